"""A program whose client openapi-generator has made: it creates, deploys, reads and stops.

The folder of the package `edgegap_generated` is in PYTHONPATH. An answer that the package cannot
decode raises an error there.
"""

from __future__ import annotations

import importlib
import json
import os
import time
import urllib.request
from typing import Any

generated: Any = importlib.import_module("edgegap_generated")
URL, TOKEN = os.environ["EDGEGAP_BASE_URL"], os.environ["EDGEGAP_API_TOKEN"]
USERS = [{"user_type": "ip_address", "user_data": {"ip_address": "203.0.113.7"}}]
READY_TIMEOUT_SECONDS = 30

client = generated.ApiClient(
    generated.Configuration(host=URL, api_key={"apiKey": TOKEN}, api_key_prefix={"apiKey": "token"})
)
applications = generated.ApplicationsApi(client)
deployments = generated.DeploymentsApi(client)


def decoded(name: str, answer: Any) -> Any:
    """Prints the name of a call and the class of its decoded answer; returns the answer."""
    print(name, type(answer).__name__)
    return answer


def set_clock(*, is_paused: bool) -> None:
    """While the emulator's clock is paused, no deployment becomes READY."""
    request = urllib.request.Request(
        f"{URL}/_emulator/clock",
        data=json.dumps({"paused": is_paused}).encode(),
        headers={"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request):
        pass


def create() -> None:
    """Creates an application and a version of it, and reads them."""
    application = {"name": "ctf", "is_active": True, "image": "aGk="}
    request = generated.ApplicationCreateRequest.from_dict(application)
    decoded("application-create", applications.application_create(request))
    version = generated.AppVersionCreateRequest.from_dict(
        {
            "name": "v1",
            "docker_repository": "registry.example.com",
            "docker_image": "studio/arena",
            "docker_tag": "1",
            "req_cpu": 256,
            "req_memory": 256,
            "time_to_deploy": 60,
            "ports": [{"port": 0, "protocol": "UDP", "name": "game"}],
            "envs": [{"key": "MODE", "value": "ranked", "is_secret": False}],
        }
    )
    created = decoded("app-version-create", applications.app_version_create("ctf", version))
    assert created.version.name == "v1"
    decoded("application-get", applications.application_get("ctf"))
    decoded("application-list", applications.application_list())
    decoded("app-version-get", applications.app_version_get("ctf", "v1"))
    decoded("app-version-list", applications.app_version_list("ctf"))


def read(age: str, request_id: str) -> None:
    """Reads a deployment in each way there is."""
    status = decoded(f"deployment-get-{age}", deployments.deployment_get(request_id))
    assert (status.request_id, status.app_name) == (request_id, "ctf")
    listed = decoded(f"deployment-list-{age}", deployments.deployment_list())
    assert [row.request_id for row in listed.data] == [request_id]
    assert [row.ready for row in listed.data] == [age == "ready"]
    decoded(f"deployment-metrics-{age}", deployments.deployment_metrics_get(request_id))
    decoded(f"deployment-logs-{age}", deployments.deployment_logs_get(request_id))


def wait_for_metrics(request_id: str) -> None:
    """Reads the metrics until they have values."""
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while True:
        metrics = deployments.deployment_metrics_get(request_id, raw=True)
        if metrics.mem.datasets:
            break
        assert time.monotonic() < deadline, metrics
        time.sleep(0.05)
    assert len(metrics.mem.timestamps) == len(metrics.mem.datasets)
    decoded("deployment-metrics-measured", metrics)


def wait_until(wanted: str, request_id: str) -> Any:
    """Returns the first status with that `current_status`."""
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while True:
        status = deployments.deployment_get(request_id)
        if status.current_status == wanted:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.05)


def deploy() -> str:
    """Deploys the version, reads it before and after READY."""
    request = generated.V2DeploymentV2.from_dict(
        {"application": "ctf", "version": "v1", "users": USERS, "tags": ["first"]}
    )
    set_clock(is_paused=True)
    accepted = decoded("deploy", deployments.v2_v2_deployment_create(v2_deployment_v2=request))
    read("young", accepted.request_id)
    set_clock(is_paused=False)
    ready = wait_until("Status.READY", accepted.request_id)
    assert ready.ports is not None
    read("ready", accepted.request_id)
    wait_for_metrics(accepted.request_id)
    return str(accepted.request_id)


def tag(request_id: str) -> None:
    """Adds, reads, renames and removes a tag."""
    tags = generated.TagsApi(client)
    made = tags.deployment_tag_create(request_id, generated.DeploymentTag(name="second"))
    decoded("deployment-tag-create", made)
    decoded("deployment-tag-list", tags.deployment_tag_list(request_id))
    decoded("deployment-tag-get", tags.deployment_tag_get(request_id, "second"))
    renamed = tags.deployment_tag_update(
        request_id, "second", deployment_tag=generated.DeploymentTag(name="third")
    )
    decoded("deployment-tag-update", renamed)
    tags.deployment_tag_delete(request_id, "third")


def survey() -> None:
    """Reads where deployments can run."""
    locations = decoded("location-list", deployments.location_list())
    assert locations.locations
    beacons = decoded("beacon-list", generated.IntegrationApi(client).beacon_list())
    assert beacons.locations
    fleets = generated.PrivateFleetsApi(client)
    hosts = decoded("private-fleet-hosts", fleets.v2_private_fleet_hosts_list("alpha"))
    assert [host.host_id for host in hosts.data] == ["alpha-1"]
    request = generated.V2PrivateFleetsDeploymentCreateRequest.from_dict(
        {
            "application": "ctf",
            "version": "v1",
            "users": USERS,
            "private_host_ids": ["alpha-1"],
        }
    )
    accepted = fleets.v2_private_fleets_deployment_create(
        v2_private_fleets_deployment_create_request=request
    )
    request_id = decoded("deploy-to-fleet", accepted).request_id
    wait_until("Status.READY", request_id)
    decoded("private-fleet-hosts-used", fleets.v2_private_fleet_hosts_list("alpha"))
    stop_all = generated.DeploymentBulkDeleteRequest.from_dict(
        {"filters": [{"field": "request_id", "values": [request_id], "filter_type": "any"}]}
    )
    decoded("deployment-bulk-delete", deployments.deployment_bulk_delete(stop_all))
    wait_until("Status.TERMINATED", request_id)


def stop(request_id: str) -> None:
    """Stops the deployment and removes what was created; an unknown id is an error with a text."""
    decoded("deployment-delete", deployments.deployment_delete(request_id))
    ended = decoded("deployment-get-terminated", wait_until("Status.TERMINATED", request_id))
    assert not ended.running
    try:
        deployments.deployment_get("0" * 12)
    except importlib.import_module("edgegap_generated.exceptions").BadRequestException as error:
        decoded("deployment-get-unknown", error.data)
    decoded("app-version-delete", applications.app_version_delete("ctf", "v1"))
    applications.application_delete("ctf")


create()
deployed = deploy()
tag(deployed)
survey()
stop(deployed)
