"""The calls that deploy, list and stop deployments, and read their logs and metrics."""

from __future__ import annotations

from edgegap_async.api.codec import read_list_query
from edgegap_async.api.models import (
    BulkStop,
    DeployAccepted,
    Deployment,
    DeploymentPage,
    Logs,
    Status,
    Stopped,
)
from edgegap_async.api.requests import DeployRequest, FleetDeployRequest, StopFilters
from edgegap_async.api.resources.deployments import DeploymentReport
from edgegap_async.api.resources.metrics import Metrics
from edgegap_async.errors import BadRequest, Gone, NotFound, Unprocessable

from .cloud_state import UNKNOWN_LOGS_TEXT, CloudState
from .list_queries import (
    ids_in,
    matches_stop_filter,
    page_answer,
    parse_time,
    predicate,
)
from .metrics import STEPS


class DeploymentCalls(CloudState):
    """The calls about deployments."""

    # ── deploy ───────────────────────────────────────────────────────────────────────────────────

    async def deploy(self, *, body: DeployRequest) -> DeployAccepted:
        """Accepts a deploy to the public cloud."""
        return self._deploy(body, None)

    async def deploy_to_fleet(self, *, body: FleetDeployRequest) -> DeployAccepted:
        """Accepts a deploy to the first private host with enough resources, else to the cloud."""
        hosts = self._private_hosts()
        needed = self._find_application(body).resources_for(body)
        for host in filter(None, map(hosts.get, body.private_host_ids)):
            cpu, memory = self._free_resources(host)
            if host.status == "ACTIVE" and needed[0] <= cpu and needed[1] <= memory:
                return self._deploy(body, host)
        return self._deploy(body, None)

    # ── read ─────────────────────────────────────────────────────────────────────────────────────

    async def get_deployment(self, *, request_id: str, hidden: float = 0.0) -> Deployment:
        """Returns the status of a deployment, from `hidden` seconds after its deploy on."""
        return self._find(request_id, hidden).deployment()

    async def list_deployments(
        self, *, query: str | None = None, hidden: float = 0.0, **pages: str
    ) -> DeploymentPage:
        """Returns the rows of deployments that are not TERMINATED and pass the filters.

        A deployment is listed from `hidden` seconds after its deploy on.
        """
        if query is not None and not self.settings.list_accepts_filters:
            raise BadRequest("query is not supported")
        wanted = read_list_query(query)
        chosen = self.live(ids_in(wanted.filters))
        hidden = max(hidden, self.settings.list_delay)
        if hidden:
            chosen = [one for one in chosen if one.age >= hidden]
        if not self.settings.list_includes_errors:
            chosen = [one for one in chosen if one.status is not Status.ERROR]
        for condition in wanted.filters:
            chosen = list(filter(predicate(condition), chosen))
        for order in reversed(wanted.order_by):
            if order.field == "created_at":  # deployments have no session sockets here
                chosen.sort(key=lambda one: one.created_at, reverse=order.order == "desc")
        return page_answer(
            DeploymentPage,
            "data",
            chosen,
            pages,
            show=lambda one: one.row(with_status=self.settings.list_has_status),
        )

    async def get_container_logs(self, *, request_id: str) -> Logs:
        """Returns what the process has written."""
        deployment = self._find(request_id, text=UNKNOWN_LOGS_TEXT)
        if deployment.status is Status.TERMINATED:
            raise NotFound(f"The logs of {request_id} are gone: it is terminated")
        return deployment.logs()

    async def get_metrics(
        self,
        *,
        request_id: str,
        start_time: str | None = None,
        end_time: str | None = None,
        steps: str | None = None,
        raw: str | None = None,
    ) -> Metrics:
        """Returns how a deployment has used this machine."""
        deployment = self._find(request_id)
        start, end = parse_time("start_time", start_time), parse_time("end_time", end_time)
        if start and end and end <= start:
            raise Unprocessable("end_time must be after start_time")
        if steps is not None and steps not in STEPS:
            raise Unprocessable(f"steps must be one of {', '.join(STEPS)}")
        if raw not in {None, "true", "false"}:
            raise Unprocessable("raw is true or false")
        step = None if raw == "true" else STEPS[steps or "30s"]
        return deployment.samples.series(start=start, end=end, step=step)

    async def report_deployment(self, *, request_id: str, body: DeploymentReport) -> None:
        """Keeps a report about a deployment, in `reports`."""
        self._find(request_id)
        self.reports.append((request_id, body))

    # ── stop ─────────────────────────────────────────────────────────────────────────────────────

    async def stop_deployment(
        self,
        *,
        request_id: str,
        container_log_storage: str | None = None,  # noqa: ARG002 - the emulator has no storage
    ) -> Stopped:
        """Stops a deployment: 200 if it ends now, 202 if it ends once it is READY or in ERROR."""
        deployment = self._find(request_id)
        if deployment.status is Status.TERMINATED:
            raise Gone(f"Instance {request_id} is already terminated")
        summary = deployment.deployment()
        deployment.stop()
        if not summary.current_status.is_ready and not summary.current_status.is_terminal:
            return Stopped(message=f"{request_id} - Delete request will be processed soon")
        return Stopped(message=f"Instance {request_id} will be deleted", deployment_summary=summary)

    stop_self = stop_deployment  # the server has checked the token of the deployment

    async def bulk_stop(self, *, body: StopFilters) -> BulkStop:
        """Stops the deployments that match every filter."""
        chosen = [
            one
            for one in self.live()
            if one.status is not Status.TERMINATING
            and all(matches_stop_filter(one, condition) for condition in body.filters)
        ]
        for deployment in chosen:
            deployment.stop()
        return BulkStop(
            processable=tuple(DeployAccepted(request_id=one.request_id) for one in chosen)
        )
