"""Endpoint storages, which keep logs and files in a bucket of yours, and their pull profiles."""

from __future__ import annotations

from datetime import datetime

import attrs

from .response import ApiResponse, Pagination


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
