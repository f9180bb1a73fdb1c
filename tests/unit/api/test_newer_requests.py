"""Bodies of calls beyond the page: what is refused before it is sent."""

from __future__ import annotations

import pytest

from edgegap_async.api.newer_requests import (
    ApplicationChanges,
    VersionChanges,
    VersionPortRequest,
)
from edgegap_async.errors import InvalidRequest


def test_the_name_of_an_image_is_in_lower_case() -> None:
    assert VersionChanges(docker_image="studio/arena").docker_image == "studio/arena"
    with pytest.raises(InvalidRequest, match=r"docker_image must be in lower case: 'studio/Arena'"):
        VersionChanges(docker_image="studio/Arena")


def test_the_name_of_an_application_has_three_characters_or_more() -> None:
    assert ApplicationChanges(name="pong").name == "pong"
    with pytest.raises(InvalidRequest, match=r"name has 2 characters; 3 is the least"):
        ApplicationChanges(name="go")


def test_the_port_0_needs_a_name() -> None:
    assert VersionPortRequest(port=0, protocol="UDP", name="game").port == 0
    with pytest.raises(InvalidRequest, match="name is required for the port 0"):
        VersionPortRequest(port=0, protocol="UDP")
