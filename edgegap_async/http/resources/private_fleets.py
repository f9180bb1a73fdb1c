"""The calls about private fleets."""

from __future__ import annotations

from collections.abc import Iterable

from edgegap_async.api.models import DeployAccepted
from edgegap_async.api.operations import DEPLOY_TO_FLEET
from edgegap_async.api.requests import AnyUser, AnyVariables, FleetDeployRequest, Resources, Webhook
from edgegap_async.api.resources.private_fleets import LIST_FLEET_HOSTS, FleetHost, HostPage

from .resource import Listing, Resource


class PrivateFleets(Resource):
    """Deploys to the hosts of a private fleet, and lists the hosts."""

    async def deploy(
        self,
        application: str,
        version: str,
        *,
        users: Iterable[AnyUser],
        private_host_ids: Iterable[str],
        environment_variables: AnyVariables = (),
        tags: Iterable[str] = (),
        require_cached_locations: bool | None = None,
        webhook_on_ready: Webhook | str | None = None,
        webhook_on_error: Webhook | str | None = None,
        webhook_on_terminated: Webhook | str | None = None,
        resources: Resources | None = None,
    ) -> DeployAccepted:
        """Creates a deployment on a private host and returns its id. At most 40 calls a second.

        This is the plain API call, with the risk that `deployments.deploy` describes. Without that
        risk: `client.deploy` with `private_host_ids`.

        Args:
            application: name of the application.
            version: name of its version.
            users: as for `deployments.deploy`.
            private_host_ids: hosts to try, in this order, before the public cloud.
            environment_variables: as for `deployments.deploy`.
            tags: as for `deployments.deploy`.
            require_cached_locations: as for `deployments.deploy`.
            webhook_on_ready: as for `deployments.deploy`.
            webhook_on_error: as for `deployments.deploy`.
            webhook_on_terminated: as for `deployments.deploy`.
            resources: as for `deployments.deploy`.

        Raises:
            BadRequest: the application or version does not exist. Nothing was created.
            Unprocessable: as for `deployments.deploy`.
            NoAnswer: the deployment may have been created.
        """
        body = FleetDeployRequest(
            application=application,
            version=version,
            users=users,
            private_host_ids=private_host_ids,
            environment_variables=environment_variables,
            tags=tags,
            require_cached_locations=require_cached_locations,
            webhook_on_ready=webhook_on_ready,
            webhook_on_error=webhook_on_error,
            webhook_on_terminated=webhook_on_terminated,
            resources=resources,
        )
        return await self._call(DEPLOY_TO_FLEET, body=body)

    def hosts(self, fleet_name: str) -> Listing[FleetHost, HostPage]:
        """Lists the hosts of a private fleet. At most 10 pages a second.

        Only an ACTIVE host takes deployments.

        Raises:
            BadRequest: the fleet does not exist.
        """
        return Listing(
            self._call,
            LIST_FLEET_HOSTS,
            lambda page: page.data,
            lambda host: host.host_id,
            path={"fleet_name": fleet_name},
            names_first_page=False,
        )
