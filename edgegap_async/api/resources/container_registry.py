"""The calls about images of the container registry: models, body and operations."""

from __future__ import annotations

from collections.abc import Iterable  # noqa: F401 - the annotation of `as_strings`, which pdoc evaluates here
from datetime import datetime
from typing import Any, Final

import attrs

from edgegap_async.api.models.response import ApiResponse, Model, Pagination
from edgegap_async.api.operations import PAGES, Operation
from edgegap_async.api.requests import RequestModel, as_strings
from edgegap_async.api.validation import check_list, check_segment, field_name, not_empty

_IMAGE: Final = "/v1/container-registry/images/{image_name}/tags"
_IMAGE_NAME: Final = frozenset({"image_name"})


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ImageArtifact(Model):
    """What a tag of an image names; several tags can name one artifact."""

    image_hash: str | None = None
    """Its digest, such as `sha256:…`."""
    size_mb: float | None = None
    """Its size in megabytes."""
    remaining_tags: tuple[str, ...] = ()
    """Its tags."""
    artifact_deleted: bool = False
    """Whether the registry has deleted it, because it has no tag any more."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ImageTag(Model):
    """A tag of an image."""

    tag: str
    """The tag."""
    last_push_at: datetime | None = None
    """When an image was last pushed under it."""
    artifact: ImageArtifact | None = None
    """What it names."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ImageTagPage(ApiResponse):
    """One page of the tags of an image."""

    omits_none = True

    data: tuple[ImageTag, ...] = ()
    """The tags of this page."""
    count: int | None = None
    """How many tags all pages have together; None if the answer does not say."""
    pagination: Pagination | None = None
    """The position of this page; None if the answer does not say."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ImageTagDeleted(ApiResponse):
    """The registry deleted a tag."""

    deleted_tag: str | None = None
    """The tag."""
    artifact: ImageArtifact | None = None
    """What it named, with the tags that are left."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TagDeletion(Model):
    """What became of one tag of a bulk delete."""

    omits_none = True

    tag: str
    """The tag, as in the call."""
    status: int | None = None
    """204 if it was deleted, 404 if there was none, 500 if the registry failed."""
    message: str | None = None
    """The API's words about it; None for none."""

    @property
    def is_deleted(self) -> bool:
        """Whether the tag was deleted by this call."""
        return self.status == 204  # noqa: PLR2004 - an HTTP status


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeletionSummary(Model):
    """How a bulk delete went."""

    total: int | None = None
    """How many tags the call named."""
    success: int | None = None
    """How many of them were deleted."""
    failed: int | None = None
    """How many of them were not."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TagDeletions(ApiResponse):
    """What became of each tag of a bulk delete."""

    results: tuple[TagDeletion, ...] = ()
    """One result for each tag."""
    summary: DeletionSummary | None = None
    """How many of each kind."""


def _tags(model: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    what = field_name(model, attribute)
    check_list(what, value)
    not_empty(model, attribute, value)
    for tag in value:
        check_segment(f"each of {what}", tag)


@attrs.frozen(eq=False, repr=False)
class ImageTags(RequestModel):
    """The body of a call that deletes tags of an image."""

    tags: tuple[str, ...] = attrs.field(converter=as_strings, validator=_tags)
    """The tags, at least one."""


LIST_IMAGE_TAGS: Final = Operation(
    name="list_image_tags",
    method="GET",
    path=_IMAGE,
    query=PAGES,
    returns=ImageTagPage,
    may_fail={400, 401, 404, 500},
    slashes=_IMAGE_NAME,
)
DELETE_IMAGE_TAG: Final = Operation(
    name="delete_image_tag",
    method="DELETE",
    path=_IMAGE + "/{tag_name}",
    returns=ImageTagDeleted,
    may_fail={401, 404, 500},
    slashes=_IMAGE_NAME,
)
BULK_DELETE_IMAGE_TAGS: Final = Operation(
    name="bulk_delete_image_tags",
    method="POST",
    path=_IMAGE + "/bulk-delete",
    body=ImageTags,
    returns=TagDeletions,
    ok={207},
    may_fail={400, 401, 404, 500},
    # A repeat would say 404 of what the first request has deleted.
    slashes=_IMAGE_NAME,
)
