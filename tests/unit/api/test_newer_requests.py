"""Bodies of calls beyond the page: what is refused before it is sent."""

from __future__ import annotations

import pytest

from edgegap_async.api.newer_requests import VersionChanges
from edgegap_async.errors import InvalidRequest


def test_the_name_of_an_image_is_in_lower_case() -> None:
    assert VersionChanges(docker_image="studio/arena").docker_image == "studio/arena"
    with pytest.raises(InvalidRequest, match=r"docker_image must be in lower case: 'studio/Arena'"):
        VersionChanges(docker_image="studio/Arena")
