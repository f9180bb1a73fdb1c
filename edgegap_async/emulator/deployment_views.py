"""Deployments as the control API and the page show them: more than the API tells its clients.

Values of hidden variables, tokens and the paths of webhooks are in none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edgegap_async.api.codec import to_json
from edgegap_async.api.requests import WEBHOOK_KINDS

from .cloud import Cloud
from .deployments import LocalDeployment
from .metrics import Samples
from .recorded_requests import SECRET_NAME
from .status_events import StatusEvent

_MAX_PLAYERS: Final = 50  # players of a deployment whose points are shown


def row(cloud: Cloud, deployment: LocalDeployment) -> dict[str, Any]:
    """Returns a deployment as one row of the page."""
    place, process = deployment.location, deployment.process
    return {
        "request_id": deployment.request_id,
        "application": deployment.application.name,
        "version": deployment.application.version,
        "status": str(deployment.status),
        "seconds_in_status": round(deployment.seconds_in_status, 3),
        "is_stop_requested": deployment.is_stop_requested,
        "error_detail": deployment.error_detail,
        "pid": None if process is None else process.pid,
        "ports": dict(deployment.port_numbers),
        "tags": list(deployment.tags),
        "city": place.city,
        "point": [place.latitude, place.longitude],
        "is_placed": deployment.is_placed,
        "players": [
            [round(degrees, 2) for degrees in point]
            for point in cloud.player_points(deployment, _MAX_PLAYERS)
        ],
        "host_id": deployment.host_id,
        "created_at": deployment.created_at.isoformat(),
    }


def details(
    cloud: Cloud, deployment: LocalDeployment, history: Iterable[StatusEvent]
) -> dict[str, Any]:
    """Returns what the page of one deployment shows: its row, and what a row has no room for.

    Args:
        cloud: the cloud that it is in.
        deployment: the deployment.
        history: its changes of status.
    """
    application = deployment.application
    return {
        **row(cloud, deployment),
        "now": deployment.clock.now().isoformat(),
        "history": [event.as_table() for event in history],
        "fqdn": deployment.fqdn,
        "port_details": to_json(dict(deployment.ports)),
        "location": to_json(deployment.location),
        "fleet": deployment.fleet_name,
        "cpu_units": deployment.cpu_units,
        "memory_mb": deployment.memory_mb,
        "max_duration": application.max_duration,
        "restart_policy": application.restart_policy,
        "user_count": len(deployment.request.users),
        "environment": _environment(deployment),
        "webhooks": [
            kind
            for status, kind in WEBHOOK_KINDS.items()
            if deployment.request.webhook_for(status) is not None
        ],
        "crash": None if deployment.crash is None else to_json(deployment.crash),
        "removed_at": deployment.removed_at and deployment.removed_at.isoformat(),
    }


def _environment(deployment: LocalDeployment) -> list[dict[str, Any]]:
    """Returns the variables that the version and the deploy declare; None for a hidden value."""
    application = deployment.application
    shown: dict[str, str | None] = {
        **application.environment,
        **dict.fromkeys(application.hidden_environment),
    }
    for variable in deployment.request.environment_variables:
        shown[variable.key] = None if variable.is_hidden else variable.value
    visible = {
        key: None if SECRET_NAME.search(key) else value for key, value in sorted(shown.items())
    }
    return [
        {"key": key, "value": value, "is_hidden": value is None} for key, value in visible.items()
    ]


def usage(samples: Samples) -> dict[str, Any]:
    """Returns the measurements of a deployment: one list for each quantity, oldest first.

    A value is None where the quantity was not measured.
    """
    columns = samples.series(start=None, end=None, step=None).columns()
    names = {
        "cpu": "cpu",
        "memory": "mem",
        "received": "network_receive",
        "sent": "network_transmit",
        "read": "disk_read_total",
        "written": "disk_write_total",
    }
    return {
        "times": [time.timestamp() for time in columns["time"]],
        **{name: columns[column] for name, column in names.items()},
    }
