"""Images of the container registry, by tag."""

from __future__ import annotations

from datetime import datetime

import attrs

from .response import ApiResponse, Model, Pagination


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
