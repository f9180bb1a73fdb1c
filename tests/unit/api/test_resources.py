"""Bodies and paths of the calls beyond the page."""

from __future__ import annotations

from typing import Any

import pytest

from edgegap_async import IpAddress
from edgegap_async.api.codec import to_json
from edgegap_async.api.messages import encode
from edgegap_async.api.resources.applications import (
    ApplicationChanges,
    VersionChanges,
    VersionPortRequest,
)
from edgegap_async.api.resources.container_registry import (
    BULK_DELETE_IMAGE_TAGS,
    DELETE_IMAGE_TAG,
    LIST_IMAGE_TAGS,
    ImageTags,
    TagDeletion,
)
from edgegap_async.api.resources.endpoint_storages import (
    LINK_PULL_PROFILE,
    EndpointStorageChanges,
    EndpointStorageRequest,
    PullProfileRequest,
)
from edgegap_async.api.resources.relays import RelayRequest, RelayRevocation
from edgegap_async.errors import InvalidRequest

CANARY = "canary-secret-access-key"
STORAGE: dict[str, Any] = {
    "name": "logs",
    "access_key_id": "key",
    "secret_access_key": CANARY,
    "endpoint": "https://s3.example.com",
    "bucket": "arena",
}


@pytest.mark.parametrize(
    ("operation", "path"),
    [
        (LIST_IMAGE_TAGS, "/v1/container-registry/images/team/a%20b/tags"),
        (DELETE_IMAGE_TAG, "/v1/container-registry/images/team/a%20b/tags/v1"),
        (BULK_DELETE_IMAGE_TAGS, "/v1/container-registry/images/team/a%20b/tags/bulk-delete"),
    ],
)
def test_the_name_of_an_image_keeps_its_slashes_and_nothing_else(operation: Any, path: str) -> None:
    arguments = {"image_name": "team/a b", "tag_name": "v1"}

    assert encode(operation, path=arguments).path == path


@pytest.mark.parametrize(
    "image", ["../app/arena", "team//arena", "/arena", "arena/", "", "a?b", "a%2Fb", ".", 1]
)
def test_the_name_of_an_image_cannot_change_the_path(image: Any) -> None:
    with pytest.raises(InvalidRequest, match="image_name"):
        encode(LIST_IMAGE_TAGS, path={"image_name": image})


def test_other_arguments_may_have_no_slash() -> None:
    with pytest.raises(InvalidRequest, match="tag_name"):
        encode(DELETE_IMAGE_TAG, path={"image_name": "arena", "tag_name": "a/b"})


def test_a_link_names_storage_profile_application_and_version() -> None:
    names = {"endpoint_name": "logs", "pull_profile_name": "maps"}
    version = {"app_name": "arena", "version_name": "v1"}

    assert encode(LINK_PULL_PROFILE, path=names | version).path == (
        "/v1/storage/endpoint/logs/pull-profile/maps/app/arena/version/v1"
    )


def test_players_of_a_relay_are_given_by_address() -> None:
    request = RelayRequest(users=["192.0.2.1", IpAddress("::ffff:198.51.100.7")])

    assert to_json(request) == {"users": [{"ip": "192.0.2.1"}, {"ip": "198.51.100.7"}]}


@pytest.mark.parametrize("token", [-1, 1.5, "7", True, None])
def test_the_token_of_a_player_is_a_whole_number(token: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"RelayRevocation\.authorization_token"):
        RelayRevocation(session_id="s-S", authorization_token=token)


@pytest.mark.parametrize("tags", [[], "v1", [""], ["a/b"], [1]])
def test_tags_to_delete_are_a_list_of_names(tags: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"ImageTags\.tags"):
        ImageTags(tags)


def test_only_204_means_that_a_tag_was_deleted() -> None:
    deleted = [TagDeletion(tag="v1", status=status).is_deleted for status in (204, 404, 500, None)]

    assert deleted == [True, False, False, False]


@pytest.mark.shows_secrets("the frame of a constructor has the argument beside the wrong one")
@pytest.mark.parametrize(
    "wrong",
    [
        {"secret_access_key": f"{CANARY}\n"},
        {"secret_access_key": ""},
        {"secret_access_key": None},
        {"endpoint": "s3.example.com"},
        {"endpoint": "ftp://s3.example.com"},
        {"bucket": None},
        {"name": "a/b"},
        {"output_format": "XML"},
    ],
)
def test_a_storage_is_checked_and_its_secret_is_in_no_error(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(InvalidRequest, match=rf"EndpointStorageRequest\.{field}") as caught:
        EndpointStorageRequest(**(STORAGE | wrong))

    assert CANARY not in str(caught.value)
    assert CANARY not in repr(EndpointStorageRequest(**STORAGE))


def test_a_change_sends_what_is_given() -> None:
    assert to_json(EndpointStorageChanges(bucket="other")) == {"bucket": "other"}


@pytest.mark.parametrize("wrong", [{"source_type": None}, {"source_type": "Dir"}, {"source": " "}])
def test_a_pull_profile_is_checked(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"source": "/maps", "source_type": "Folder", "destination": "/maps"}
    (field,) = wrong
    with pytest.raises(InvalidRequest, match=rf"PullProfileRequest\.{field}"):
        PullProfileRequest(name="maps", **(fields | wrong))


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


def test_the_error_for_a_password_of_a_wrong_type_does_not_show_it() -> None:
    with pytest.raises(
        InvalidRequest, match="private_token must be of type str, not <class 'bytes'>"
    ):
        VersionChanges(private_token=b"wrong-kind")  # type: ignore[arg-type]
