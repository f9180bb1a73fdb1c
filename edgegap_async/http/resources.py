"""The methods people call, one for each call of the API.

Each builds the request and hands it to `call`, which knows limits, repeats and the network. All
raise the errors of `call`: `NotSent`, `NoAnswer`, `UnreadableAnswer`, `Unauthorized`,
`RateLimited`, `ServerError`, `ClientClosed`; a method names those beyond. Wrong arguments are
`InvalidRequest`, and nothing is sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from datetime import datetime
from typing import Final, Literal, Protocol, TypeVar

from edgegap_async.api.codec import list_query
from edgegap_async.api.models import (
    BulkStop,
    DeployAccepted,
    Deployment,
    DeploymentPage,
    DeploymentRow,
    HostPage,
    LocationPage,
    Logs,
    Metrics,
    Stopped,
    Tag,
    TagPage,
)
from edgegap_async.api.operations import (
    BULK_STOP,
    CREATE_TAG,
    DELETE_TAG,
    DEPLOY,
    DEPLOY_TO_FLEET,
    GET_CONTAINER_LOGS,
    GET_DEPLOYMENT,
    GET_METRICS,
    GET_TAG,
    LIST_DEPLOYMENTS,
    LIST_FLEET_HOSTS,
    LIST_LOCATIONS,
    LIST_TAGS,
    RENAME_TAG,
    STOP_DEPLOYMENT,
    STOP_SELF,
    Operation,
)
from edgegap_async.api.requests import (
    AnyUser,
    AnyVariables,
    DeployRequest,
    Filter,
    FleetDeployRequest,
    OrderBy,
    Resources,
    StopFilter,
    StopFilters,
    TagName,
    Token,
    Webhook,
)
from edgegap_async.api.validation import check_kind, check_list
from edgegap_async.errors import InvalidRequest

from .call_options import CallOptions

__all__ = ["Call", "Deployments", "Locations", "PrivateFleets", "Tags"]

Result = TypeVar("Result")

_STEPS: Final = ("30s", "1m", "5m", "10m", "1h")
_LOG_OPTIONS: Final = CallOptions(max_bytes=64 * 2**20)  # logs are larger than other answers
_MOST_PAGES: Final = 10_000


class Call(Protocol):
    """How a request gets to the API and its answer back."""

    def __call__(  # noqa: D102 - the class says it
        self,
        operation: Operation[Result],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
        body: object = None,
        options: CallOptions = ...,
    ) -> Awaitable[Result]: ...


def _check_storage(chosen: object) -> None:
    check_kind("container_log_storage", chosen, str, bool)
    if chosen == "":
        raise InvalidRequest("container_log_storage is a storage's name, True or False, not ''")


class Deployments:
    """Deploy, look at, list and stop deployments, and read their logs and metrics."""

    def __init__(self, call: Call) -> None:
        self._call = call

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
        """The `request_id` of a new deployment, accepted and not READY yet. At most 40 a second.

        This is the bare call: nobody waits for the deployment or stops it, and it carries no tag
        that names the wish. If the answer is lost, or you are cancelled before it comes, a
        deployment may exist that nobody has the id of; then an error, or a line of the log, says
        so. `client.deploy` and `client.run` find it and adopt or stop it.

        Args:
            application: name of the application.
            version: name of its version.
            users: the players, at least one, by IP address (`"75.28.35.192"`) or by place
                (`(45.5, -73.6)`: degrees north and east). A server is chosen near all of them.
            environment_variables: a mapping, or `EnvironmentVariable`s where some are hidden; up
                to 4 KB each. They win over those of the version.
            tags: up to 40 characters each.
            require_cached_locations: True to deploy only where the image is cached already.
            webhook_on_ready: URL that gets the status as JSON, once, when it is READY.
            webhook_on_error: likewise when it fails.
            webhook_on_terminated: likewise when it has ended.
            resources: CPU and memory in place of the version's own.

        Raises:
            BadRequest: there is no such application or version; nothing was created.
            Unprocessable: no place for it. Its `request_id` names a deployment that **was**
                created, in Status.ERROR: stop it.
            NoAnswer: it may have been created.
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
        """The deployment as it is now: its status, ports, place. At most 20 a second.

        Raises:
            NotFound: there is no such deployment, or it ended some time ago.
        """
        return await self._call(GET_DEPLOYMENT, path={"request_id": request_id})

    async def stop(
        self, request_id: str, *, container_log_storage: str | bool | None = None
    ) -> Stopped:
        """The API's word that it stops the deployment: SIGTERM, then SIGKILL after a grace.

        A deployment that is not READY or in ERROR yet is stopped once it is.

        Args:
            request_id: which deployment.
            container_log_storage: False or True for whether its logs are stored, or the name of
                the endpoint storage they go to.

        Raises:
            Gone: it is terminated already.
            NotFound: there is no such deployment.
            Forbidden: the token may not stop it.
        """
        _check_storage(container_log_storage)
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
        """The API's word that it stops the deployment this program runs in.

        The three come from the environment: the last two parts of ARBITRIUM_DELETE_URL, and
        ARBITRIUM_DELETE_TOKEN, which is sent as it is.

        Args:
            request_id: this deployment.
            access_point_id: the number behind it in ARBITRIUM_DELETE_URL.
            token: ARBITRIUM_DELETE_TOKEN.
            container_log_storage: as for `stop`.

        Raises:
            NotFound: the ids do not belong together.
            Forbidden: the token is another deployment's.
        """
        _check_storage(container_log_storage)
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
        """The deployments that this stops: all that match every filter.

        Args:
            filters: on `request_id` or `deployment_tags`.
            everything: say True together with an empty list to stop **every** deployment of the
                organization.

        Raises:
            InvalidRequest: the list is empty and `everything` is not said, or the other way round.
        """
        check_list("filters", filters)
        body = StopFilters(tuple(filters))
        if everything is bool(body.filters):
            raise InvalidRequest(
                "no filter stops every deployment of the organization: say everything=True too"
                if not everything
                else "everything=True goes with no filters"
            )
        return await self._call(BULK_STOP, body=body)

    async def list(
        self,
        *,
        filters: Iterable[Filter] = (),
        order_by: Iterable[OrderBy] = (),
        limit: int | None = None,
    ) -> AsyncIterator[DeploymentRow]:
        """Every deployment that is not terminated, page by page. At most 10 pages a second.

        A deployment comes once, also when rows move to another page meanwhile. One that moves to
        a page that was read already is missed: order by `created_at` to make that unlikely.

        Args:
            filters: conditions, one for each field at most; all of them hold.
            order_by: the order; not documented where it is left out.
            limit: rows a page, 1 or more.
        """
        check_list("filters", filters)
        check_list("order_by", order_by)
        filters, order_by = tuple(filters), tuple(order_by)
        seen = set[str]()
        for number in range(1, _MOST_PAGES + 1):
            page = await self.list_page(number, filters=filters, order_by=order_by, limit=limit)
            fresh = [row for row in page.data if row.request_id not in seen]
            for row in fresh:
                seen.add(row.request_id)
                yield row
            # A page that says "more follow" for ever, and repeats itself, ends the list too.
            if not fresh or page.pagination is None or not page.pagination.has_next:
                return

    async def list_page(
        self,
        page: int = 1,
        *,
        filters: Iterable[Filter] = (),
        order_by: Iterable[OrderBy] = (),
        limit: int | None = None,
    ) -> DeploymentPage:
        """One page of deployments, with how many there are in all. At most 10 a second.

        Args:
            page: its number, from 1.
            filters: as for `list`.
            order_by: as for `list`.
            limit: rows a page, 1 or more.

        Raises:
            BadRequest: the API does not take this filter.
        """
        for name, number in (("page", page), ("limit", limit)):
            check_kind(name, number, int)
            if number is not None and number < 1:
                raise InvalidRequest(f"{name} is counted from 1, not {number}")
        query = {"query": list_query(filters, order_by), "page": page, "limit": limit}
        return await self._call(LIST_DEPLOYMENTS, query=query)

    async def logs(self, request_id: str) -> Logs:
        """What the container wrote, and how it crashed if it did; at most 64 MiB.

        Gone once the deployment is stopped, unless the version has an endpoint storage.

        Raises:
            NotFound: there is no such deployment, or no logs of it.
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
        """CPU, memory, network and disk use over time. Units are not documented.

        Args:
            request_id: which deployment.
            start: from when; its start if left out. A naive datetime is taken as UTC.
            end: until when.
            steps: how long a time one value stands for.
            raw: True for the values as they were measured.

        Raises:
            NotFound: there is no such deployment.
            Unprocessable: `end` is not after `start`.
        """
        check_kind("start", start, datetime)
        check_kind("end", end, datetime)
        check_kind("raw", raw, bool)
        if steps not in {None, *_STEPS}:
            raise InvalidRequest(f"steps is one of {', '.join(_STEPS)}, not {steps!r}")
        return await self._call(
            GET_METRICS,
            path={"request_id": request_id},
            query={"start_time": start, "end_time": end, "steps": steps, "raw": raw},
        )


class Locations:
    """Where servers can run."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def list(
        self,
        *,
        application: str | None = None,
        version: str | None = None,
        type: str | None = None,
        tags: bool | None = None,
    ) -> LocationPage:
        """The locations where servers can run now.

        Args:
            application: with `version`: only those with room for it.
            version: with `application`.
            type: only those of a type, such as `standard`.
            tags: True to get the locations' tags too.

        Raises:
            BadRequest: there is no such application or version.
        """
        check_kind("tags", tags, bool)
        if (application is None) is not (version is None):
            raise InvalidRequest("application and version go together")
        query = {"app": application, "version": version, "type": type, "tags": tags}
        return await self._call(LIST_LOCATIONS, query=query)


class PrivateFleets:
    """Deploy to hosts of your own, and look at them."""

    def __init__(self, call: Call) -> None:
        self._call = call

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
        """The `request_id` of a new deployment on a private host. At most 40 a second.

        This is the bare call, with what can be lost in it, as `deployments.deploy` says. Better:
        `client.deploy` with `private_host_ids`.

        Args:
            application: as for `deployments.deploy`, with all that follow.
            version: see there.
            users: see there.
            private_host_ids: hosts to try, in this order, before the public cloud.
            environment_variables: see there.
            tags: see there.
            require_cached_locations: see there.
            webhook_on_ready: see there.
            webhook_on_error: see there.
            webhook_on_terminated: see there.
            resources: see there.

        Raises:
            BadRequest: there is no such application or version; nothing was created.
            Unprocessable: as for `deployments.deploy`.
            NoAnswer: it may have been created.
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

    async def hosts(self, fleet_name: str) -> HostPage:
        """The hosts of a private fleet. Only an ACTIVE one takes deployments. At most 10 a second.

        Raises:
            BadRequest: there is no such fleet.
        """
        return await self._call(LIST_FLEET_HOSTS, path={"fleet_name": fleet_name})


class Tags:
    """The tags of a deployment. Changing them does not change its environment."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def list(self, request_id: str) -> TagPage:
        """All tags of a deployment.

        Raises:
            NotFound: there is no such deployment.
        """
        return await self._call(LIST_TAGS, path={"request_id": request_id})

    async def get(self, request_id: str, tag_name: str) -> Tag:
        """One tag, with when it was made.

        Raises:
            NotFound: there is no such deployment, or no such tag on it.
        """
        return await self._call(GET_TAG, path={"request_id": request_id, "tag_name": tag_name})

    async def create(self, request_id: str, name: str) -> Tag:
        """The tag that was put on a deployment; 1 to 40 characters.

        Raises:
            Conflict: the deployment has it already.
            NotFound: there is no such deployment.
        """
        return await self._call(CREATE_TAG, path={"request_id": request_id}, body=TagName(name))

    async def rename(self, request_id: str, tag_name: str, name: str) -> Tag:
        """The tag `tag_name` under its new name.

        Raises:
            Conflict: the deployment has the new name already.
            NotFound: there is no such deployment, or no such tag on it.
        """
        path = {"request_id": request_id, "tag_name": tag_name}
        return await self._call(RENAME_TAG, path=path, body=TagName(name))

    async def delete(self, request_id: str, tag_name: str) -> None:
        """Takes a tag off a deployment.

        Raises:
            NotFound: there is no such deployment, or no such tag on it.
        """
        await self._call(DELETE_TAG, path={"request_id": request_id, "tag_name": tag_name})
