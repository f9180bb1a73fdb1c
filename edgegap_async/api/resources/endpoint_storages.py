"""The calls about endpoint storages and their pull profiles: models, bodies and operations."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs
from attrs.validators import optional

from edgegap_async.api.models.response import ApiResponse, Pagination
from edgegap_async.api.operations import PAGES, Operation
from edgegap_async.api.requests import RequestModel
from edgegap_async.api.validation import field_name, http_url, one_of, segment, text
from edgegap_async.errors import InvalidRequest

_STORAGE: Final = "/v1/storage/endpoint/{endpoint_name}"
_PROFILE: Final = _STORAGE + "/pull-profile/{pull_profile_name}"
_LINK: Final = _PROFILE + "/app/{app_name}/version/{version_name}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EndpointStorage(ApiResponse):
    """An S3 bucket of yours that the API can use. No answer has its secret key."""

    omits_none = True

    name: str
    """Its name."""
    access_key_id: str | None = None
    """The id of the access key."""
    endpoint: str | None = None
    """The URL of the provider, without the bucket."""
    bucket: str | None = None
    """The name of the bucket."""
    output_format: str | None = None
    """How logs are written: `TEXT` or `NDJSON`."""
    create_time: datetime | None = None
    """When it was created."""
    last_updated: datetime | None = None
    """When it was last changed."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EndpointStoragePage(ApiResponse):
    """One page of the endpoint storages of the organization."""

    omits_none = True

    endpoints: tuple[EndpointStorage, ...] = ()
    """The storages of this page."""
    total_count: int | None = None
    """How many storages all pages have together; None if the answer does not say."""
    pagination: Pagination | None = None
    """The position of this page."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PullProfile(ApiResponse):
    """What the API copies from a storage into each container of the versions that are linked."""

    omits_none = True

    name: str
    """Its name."""
    source: str | None = None
    """The path in the bucket."""
    source_type: str | None = None
    """`File` or `Folder`."""
    destination: str | None = None
    """The folder in the container."""
    create_time: datetime | None = None
    """When it was created."""
    last_updated: datetime | None = None
    """When it was last changed."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PullProfilePage(ApiResponse):
    """One page of the pull profiles of a storage."""

    pull_profiles: tuple[PullProfile, ...] = ()
    """The profiles of this page."""
    total_count: int | None = None
    """How many profiles all pages have together."""
    pagination: Pagination | None = None
    """The position of this page."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PullProfileLink(ApiResponse):
    """A version whose containers get what a pull profile names."""

    omits_none = True

    app: str | None = None
    """The name of the application."""
    app_version: str | None = None
    """The name of its version."""
    endpoint: str | None = None
    """The name of the storage."""
    pull_profile: str | None = None
    """The name of the profile."""
    create_time: datetime | None = None
    """When they were linked."""
    last_updated: datetime | None = None
    """When the link was last changed."""


OutputFormat: TypeAlias = Literal["TEXT", "NDJSON"]
"""How logs are written to a storage."""
SourceType: TypeAlias = Literal["File", "Folder"]
"""Whether a pull profile copies a file or a folder."""


_name: Final = segment()
_text: Final = text(1024)  # characters; the most that an S3 key has


def _url(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    _text(model, attribute, value)
    if http_url(value) is None:
        what = field_name(model, attribute)
        raise InvalidRequest(f"{what} needs http:// or https:// before the host, not {value!r}")


def _secret(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    # No message shows the value.
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        what = field_name(model, attribute)
        raise InvalidRequest(f"{what} must be a text of printable characters that is not empty")


_output_format: Final = one_of(*get_args(OutputFormat))
_source_type: Final = one_of(*get_args(SourceType))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EndpointStorageChanges(RequestModel):
    """The body of a call that changes an endpoint storage; what is None stays as it is."""

    name: str | None = attrs.field(default=None, validator=optional(_name))
    """Its new name."""
    access_key_id: str | None = attrs.field(default=None, validator=optional(_text))
    """The id of the access key."""
    secret_access_key: str | None = attrs.field(
        default=None, validator=optional(_secret), repr=False
    )
    """The secret access key. No repr, no error and no answer shows it."""
    endpoint: str | None = attrs.field(default=None, validator=optional(_url))
    """The URL of the provider, best without the bucket."""
    bucket: str | None = attrs.field(default=None, validator=optional(_text))
    """The name of the bucket."""
    output_format: OutputFormat | None = attrs.field(
        default=None, validator=optional(_output_format)
    )
    """How logs are written: `TEXT` or `NDJSON`."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EndpointStorageRequest(EndpointStorageChanges):
    """The body of a call that creates an endpoint storage."""

    name: str = attrs.field(validator=_name)
    """Its name."""
    access_key_id: str = attrs.field(validator=_text)
    """The id of the access key."""
    secret_access_key: str = attrs.field(validator=_secret, repr=False)
    """The secret access key. No repr, no error and no answer shows it."""
    endpoint: str = attrs.field(validator=_url)
    """The URL of the provider, best without the bucket."""
    bucket: str = attrs.field(validator=_text)
    """The name of the bucket."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PullProfileChanges(RequestModel):
    """The body of a call that changes a pull profile; what is None stays as it is."""

    name: str | None = attrs.field(default=None, validator=optional(_name))
    """Its new name."""
    source: str | None = attrs.field(default=None, validator=optional(_text))
    """The path in the bucket."""
    source_type: SourceType | None = attrs.field(default=None, validator=optional(_source_type))
    """`File` or `Folder`."""
    destination: str | None = attrs.field(default=None, validator=optional(_text))
    """The folder in the container, which its user must be able to write to."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PullProfileRequest(PullProfileChanges):
    """The body of a call that creates a pull profile."""

    name: str = attrs.field(validator=_name)
    """Its name."""
    source: str = attrs.field(validator=_text)
    """The path in the bucket."""
    source_type: SourceType = attrs.field(validator=_source_type)
    """`File` or `Folder`."""
    destination: str = attrs.field(validator=_text)
    """The folder in the container, which its user must be able to write to."""


LIST_ENDPOINT_STORAGES: Final = Operation(
    name="list_endpoint_storages",
    method="GET",
    path="/v1/storage/endpoints",
    query=PAGES,
    returns=EndpointStoragePage,
    may_fail={400, 401, 500},
)
CREATE_ENDPOINT_STORAGE: Final = Operation(
    name="create_endpoint_storage",
    method="POST",
    path="/v1/storage/endpoint",
    body=EndpointStorageRequest,
    returns=EndpointStorage,
    may_fail={400, 401, 500},
)
GET_ENDPOINT_STORAGE: Final = Operation(
    name="get_endpoint_storage",
    method="GET",
    path=_STORAGE,
    returns=EndpointStorage,
    may_fail={400, 401, 404, 500},
)
UPDATE_ENDPOINT_STORAGE: Final = Operation(
    name="update_endpoint_storage",
    method="PATCH",
    path=_STORAGE,
    body=EndpointStorageChanges,
    returns=EndpointStorage,
    may_fail={400, 401, 404, 500},
)
DELETE_ENDPOINT_STORAGE: Final = Operation(
    name="delete_endpoint_storage",
    method="DELETE",
    path=_STORAGE,
    returns=type(None),
    ok={204},
    may_fail={401, 404, 500},
)
LIST_PULL_PROFILES: Final = Operation(
    name="list_pull_profiles",
    method="GET",
    path=_STORAGE + "/pull-profiles",
    query=PAGES,
    returns=PullProfilePage,
    may_fail={400, 401, 404, 500},
)
CREATE_PULL_PROFILE: Final = Operation(
    name="create_pull_profile",
    method="POST",
    path=_STORAGE + "/pull-profile",
    body=PullProfileRequest,
    returns=PullProfile,
    may_fail={400, 401, 404, 500},
)
GET_PULL_PROFILE: Final = Operation(
    name="get_pull_profile",
    method="GET",
    path=_PROFILE,
    returns=PullProfile,
    may_fail={400, 401, 404, 500},
)
UPDATE_PULL_PROFILE: Final = Operation(
    name="update_pull_profile",
    method="PATCH",
    path=_PROFILE,
    body=PullProfileChanges,
    returns=PullProfile,
    may_fail={400, 401, 404, 500},
)
DELETE_PULL_PROFILE: Final = Operation(
    name="delete_pull_profile",
    method="DELETE",
    path=_PROFILE,
    returns=type(None),
    ok={204},
    may_fail={400, 401, 404, 500},
)
LINK_PULL_PROFILE: Final = Operation(
    name="link_pull_profile",
    method="PUT",
    path=_LINK,
    returns=PullProfileLink,
    may_fail={400, 401, 404, 500},
)
UNLINK_PULL_PROFILE: Final = Operation(
    name="unlink_pull_profile",
    method="DELETE",
    path=_LINK,
    returns=type(None),
    ok={204},
    may_fail={400, 401, 404, 500},
)
