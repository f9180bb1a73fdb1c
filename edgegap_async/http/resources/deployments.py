"""The calls about deployments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from edgegap_async.api.codec import list_query
from edgegap_async.api.models import (
    BulkStop,
    DeployAccepted,
    Deployment,
    DeploymentPage,
    DeploymentRow,
    Logs,
    Stopped,
)
from edgegap_async.api.operations import (
    BULK_STOP,
    DEPLOY,
    GET_CONTAINER_LOGS,
    GET_DEPLOYMENT,
    LIST_DEPLOYMENTS,
    STOP_DEPLOYMENT,
    STOP_SELF,
)
from edgegap_async.api.requests import (
    AnyUser,
    AnyVariables,
    DeployRequest,
    Filter,
    OrderBy,
    Resources,
    StopFilter,
    StopFilters,
    Token,
    Webhook,
)
from edgegap_async.api.validation import check_kind
from edgegap_async.errors import InvalidRequest
from edgegap_async.http.call import CallOptions

from .resource import Listing, Resource

if TYPE_CHECKING:
    from edgegap_async.api.resources.metrics import Metrics

_METRIC_STEPS: Final = ("30s", "1m", "5m", "10m", "1h")
_LOG_OPTIONS: Final = CallOptions(max_bytes=64 * 2**20)  # logs are larger than other answers


def check_storage(chosen: object) -> None:
    """Checks the argument `container_log_storage`.

    Raises:
        InvalidRequest: it is no name, True, False or None.
    """
    check_kind("container_log_storage", chosen, str, bool)
    if chosen == "":
        raise InvalidRequest(
            "container_log_storage must be a storage's name, True or False, not ''"
        )


async def is_listed(deployments: Deployments, request_id: str) -> bool:
    """Returns whether the list of deployments shows a deployment that has not ended.

    Raises:
        CallError: a list request failed.
    """
    rows = deployments.list(filters=[Filter("request_id", "in", [request_id])])
    return request_id in {row.request_id async for row in rows}  # the API may ignore the filter


class Deployments(Resource):
    """Deploys, lists and stops deployments, and reads their status, logs and metrics."""

    async def deploy(
        self,
        application: str,
        version: str,
        *,
        users: Iterable[AnyUser],
        environment_variables: AnyVariables = (),
        tags: Iterable[str] = (),
        require_cached_locations: bool | None = None,
        webhook_on_ready: Webhook | str | None = None,
        webhook_on_error: Webhook | str | None = None,
        webhook_on_terminated: Webhook | str | None = None,
        resources: Resources | None = None,
    ) -> DeployAccepted:
        """Creates a deployment and returns its `request_id`. At most 40 calls a second.

        The API accepts the deployment before it is READY. This is the plain API call, without an
        operation tag: if the answer is lost, or the task is cancelled before the answer comes, a
        deployment with an unknown id may exist, and an error or the log says so. `client.deploy`
        and `client.run` find such a deployment and adopt or stop it.

        Args:
            application: name of the application.
            version: name of its version.
            users: the players, at least one, by IP address (`"75.28.35.192"`) or by position
                (`(45.5, -73.6)`: degrees north and east). The API chooses a server near them.
            environment_variables: a mapping, or `EnvironmentVariable`s to hide some; up to 4 KB
                each. They override the variables of the version.
            tags: up to 40 characters each.
            require_cached_locations: True to deploy only where the image is cached; None for the
                API's default.
            webhook_on_ready: URL to which the API posts the deployment's status as JSON, once,
                when it is READY; None for no webhook.
            webhook_on_error: the same for the status ERROR.
            webhook_on_terminated: the same for the end of the deployment.
            resources: CPU and memory; None for those of the version.

        Raises:
            BadRequest: the application or version does not exist. Nothing was created.
            Unprocessable: the API found no location. The error's `request_id` names a deployment
                that **was** created, in Status.ERROR: stop it.
            NoAnswer: the deployment may have been created.
        """
        body = DeployRequest(
            application=application,
            version=version,
            users=users,
            environment_variables=environment_variables,
            tags=tags,
            require_cached_locations=require_cached_locations,
            webhook_on_ready=webhook_on_ready,
            webhook_on_error=webhook_on_error,
            webhook_on_terminated=webhook_on_terminated,
            resources=resources,
        )
        return await self._call(DEPLOY, body=body)

    async def get(self, request_id: str) -> Deployment:
        """Returns the current state of a deployment. At most 20 calls a second.

        Raises:
            NotFound: the deployment does not exist, or it ended some time ago.
            Gone: the deployment is terminated.
        """
        return await self._call(GET_DEPLOYMENT, path={"request_id": request_id})

    async def stop(
        self, request_id: str, *, container_log_storage: str | bool | None = None
    ) -> Stopped:
        """Asks the API to stop a deployment, which gets SIGTERM and, after a grace time, SIGKILL.

        The API stops a deployment that is still deploying once it is READY or in ERROR.

        Args:
            request_id: the deployment.
            container_log_storage: whether the API stores the logs, or the name of the endpoint
                storage for them; None for the setting of the version.

        Raises:
            Gone: the deployment is terminated already.
            NotFound: the deployment does not exist.
            Forbidden: the token may not stop the deployment.
        """
        check_storage(container_log_storage)
        return await self._call(
            STOP_DEPLOYMENT,
            path={"request_id": request_id},
            query={"container_log_storage": container_log_storage},
        )

    async def stop_self(
        self,
        request_id: str,
        access_point_id: str | int,
        *,
        token: str,
        container_log_storage: str | bool | None = None,
    ) -> Stopped:
        """Asks the API to stop the deployment that this program runs in.

        The ids are the last two segments of the environment variable ARBITRIUM_DELETE_URL.

        Args:
            request_id: this deployment.
            access_point_id: the number after it in ARBITRIUM_DELETE_URL.
            token: the value of ARBITRIUM_DELETE_TOKEN.
            container_log_storage: as for `stop`.

        Raises:
            NotFound: the two ids do not belong together.
            Forbidden: the token belongs to another deployment.
        """
        check_storage(container_log_storage)
        secret = Token(token)
        del token  # a traceback that shows local variables must not show it
        return await self._call(
            STOP_SELF,
            path={"request_id": request_id, "access_point_id": str(access_point_id)},
            query={"container_log_storage": container_log_storage},
            options=CallOptions(token=secret),
        )

    async def bulk_stop(
        self, filters: Iterable[StopFilter], *, everything: bool = False
    ) -> BulkStop:
        """Stops all deployments that match every filter, and returns them.

        Args:
            filters: conditions on `request_id` or `deployment_tags`.
            everything: True to stop what is not named: **every** deployment of the organization
                with an empty list, and nearly every one with a filter of type `not`.

        Raises:
            InvalidRequest: the list is empty or has a `not` without `everything`, or has neither
                with it.
        """
        body = StopFilters(filters)
        stops_unnamed = not body.filters or any(one.filter_type == "not" for one in body.filters)
        if everything is not stops_unnamed:
            what = "a filter of type not" if body.filters else "no filter"
            raise InvalidRequest(
                f"{what} stops deployments that nothing names: pass everything=True too"
                if stops_unnamed
                else "everything=True goes with no filters, or with one of type not"
            )
        return await self._call(BULK_STOP, body=body)

    def list(
        self,
        *,
        filters: Iterable[Filter] = (),
        order_by: Iterable[OrderBy] = (),
        limit: int | None = None,
    ) -> Listing[DeploymentRow, DeploymentPage]:
        """Lists the deployments that are not terminated. At most 10 pages a second.

        A row that moves to a page that was read before is missed; order by `created_at` to make
        that unlikely.

        Args:
            filters: conditions that all hold, at most one for each field.
            order_by: the order of the rows; without it the API does not document the order.
            limit: rows of one page, 1 or more; None for the API's default.

        Raises:
            BadRequest: the API does not accept a filter.
        """
        return Listing(
            self._call,
            LIST_DEPLOYMENTS,
            lambda page: page.data,
            lambda row: row.request_id,
            query={"query": list_query(filters, order_by)},
            limit=limit,
        )

    async def logs(self, request_id: str) -> Logs:
        """Returns the container's output, and details of a crash; 64 MiB at most.

        The API deletes the logs when the deployment is stopped, unless the version has an endpoint
        storage.

        Raises:
            NotFound: the deployment does not exist, or has no logs.
        """
        return await self._call(
            GET_CONTAINER_LOGS, path={"request_id": request_id}, options=_LOG_OPTIONS
        )

    async def metrics(
        self,
        request_id: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        steps: Literal["30s", "1m", "5m", "10m", "1h"] | None = None,
        raw: bool | None = None,
    ) -> Metrics:
        """Returns the use of CPU, memory, network and disk over time, in undocumented units.

        Args:
            request_id: the deployment.
            start: begin of the period; None for the start of the deployment. A naive datetime
                counts as UTC.
            end: end of the period; None for now.
            steps: time that one value stands for; None for the API's default.
            raw: True for the values as measured; None for the API's default.

        Raises:
            NotFound: the deployment does not exist.
            Unprocessable: `end` is not after `start`.
        """
        check_kind("start", start, datetime)
        check_kind("end", end, datetime)
        check_kind("raw", raw, bool)
        if steps not in (None, *_METRIC_STEPS):
            raise InvalidRequest(f"steps must be one of {', '.join(_METRIC_STEPS)}, not {steps!r}")
        from edgegap_async.api.resources.metrics import GET_METRICS  # for few programs

        return await self._call(
            GET_METRICS,
            path={"request_id": request_id},
            query={"start_time": start, "end_time": end, "steps": steps, "raw": raw},
        )

    async def report(
        self, request_id: str, reason: str, metadata: Mapping[str, object] | None = None
    ) -> None:
        """Reports to Edgegap that something is wrong with a deployment.

        Args:
            request_id: the deployment.
            reason: what is wrong, 1 to 255 characters.
            metadata: more about it, as a JSON object; None for nothing.

        Raises:
            Forbidden: the token may not report about the deployment.
            BadRequest: there is no such deployment, or the API does not accept the report.
            NoAnswer: the report may have arrived.
        """
        # Few programs report, and the import takes as long as that of this module.
        from edgegap_async.api.resources.deployments import REPORT_DEPLOYMENT, DeploymentReport

        body = DeploymentReport(reason=reason, metadata=metadata)
        await self._call(REPORT_DEPLOYMENT, path={"request_id": request_id}, body=body)
