"""apps, versions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import invoke

APPS = """
[[applications]]
name = "arena"
version = "v1"
argv = ["python3", "-c", "import time; time.sleep(600)"]

[[images]]
image = "docker.io/studio/arena"
argv = ["python3", "-c", "import time; time.sleep(600)"]

[[images]]
image = "registry.example.com:5000/studio/secret"
argv = ["python3", "-c", "import time; time.sleep(600)"]
private_username = "robot"
private_token = "canary-registry"
"""


@pytest.fixture
def edgegap_apps(tmp_path: Path) -> Path:
    file = tmp_path / "apps.toml"
    file.write_text(APPS)
    return file


def version(*words: str) -> Mapping[str, Any]:
    ran = invoke("versions", *words, "--json")
    assert ran.status == 0, ran.stderr
    [shown] = ran.objects
    assert isinstance(shown, dict)
    return shown


def test_apps_and_versions_are_listed() -> None:
    assert invoke("apps", "-q").stdout == "arena\n"
    assert invoke("apps").stdout.splitlines()[1].split()[:2] == ["arena", "yes"]
    assert "emulator/arena:v1" in invoke("versions", "ls", "arena").stdout
    assert invoke("versions", "ls", "absent").status == 5


def test_a_version_is_created_copied_and_changed() -> None:
    created = version(
        "create",
        "arena",
        "b7",
        "studio/arena:b7",
        "-p",
        "game:7777/udp",
        "--cpu",
        "512",
        "--memory",
        "1024",
        "-e",
        "MODE=duel",
        "--max-duration",
        "60",
    )
    assert (created["docker_repository"], created["docker_image"]) == ("docker.io", "studio/arena")
    assert (created["req_cpu"], created["req_memory"], created["max_duration"]) == (512, 1024, 60)

    copied = version("copy", "arena", "b7", "b8", "--tag", "b8")
    assert (copied["docker_tag"], copied["req_cpu"], copied["name"]) == ("b8", 512, "b8")
    assert version("copy", "arena", "b7", "b9", "--image", "studio/arena")["docker_tag"] == "latest"
    assert version("set-image", "arena", "b9", "studio/arena:b9")["docker_tag"] == "b9"
    assert "game:7777/UDP" in invoke("versions", "ls", "arena").stdout
    assert invoke("versions", "create", "arena", "b7", "studio/arena:b7").status == 1, "Conflict"
    assert invoke("versions", "copy", "arena", "absent", "b10").status == 5


def test_a_private_image_needs_credentials_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("create", "arena", "s1", "registry.example.com:5000/studio/secret:s1")
    assert invoke("versions", *words, "--registry-user", "robot").status == 2
    refused = invoke("versions", *words)
    assert (refused.status, refused.stderr[:16]) == (1, "ImageUnavailable")
    monkeypatch.setenv("EDGEGAP_REGISTRY_PASSWORD", "canary-registry")

    created = version(*words, "--registry-user", "robot")

    assert created["docker_repository"] == "registry.example.com:5000"
    unshown = invoke("versions", "copy", "arena", "s1", "s2")
    assert (unshown.status, "private_token" in unshown.stderr) == (2, True)
    assert version("copy", "arena", "s1", "s2", "--registry-user", "robot")["name"] == "s2"


@pytest.mark.parametrize(
    "words",
    [
        ("create", "arena", "v2", ":tag"),
        ("create", "arena", "v2", "studio/arena@sha256:0"),
        ("create", "arena", "v2", "studio/arena", "-p", "7777"),
        ("create", "arena", "v2", "studio/arena", "-p", "game:99999/udp"),
        ("copy", "arena", "v1", "v2", "--image", "studio/arena", "--tag", "v2"),
    ],
    ids=" ".join,
)
def test_a_wrong_image_or_port_is_status_2(words: tuple[str, ...]) -> None:
    assert invoke("versions", *words).status == 2
