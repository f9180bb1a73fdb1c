"""The calls about images of the container registry, and their bodies."""

from __future__ import annotations

from collections.abc import Iterable  # noqa: F401 - the annotation of `as_strings`, which pdoc evaluates here
from typing import Any, Final

import attrs

from edgegap_async.api.models.container_registry import ImageTagDeleted, ImageTagPage, TagDeletions
from edgegap_async.api.operations import Operation, RetrySafety
from edgegap_async.api.requests import RequestModel, as_strings
from edgegap_async.api.validation import check_list, check_segment, field_name, not_empty

_IMAGE: Final = "/v1/container-registry/images/{image_name}/tags"
_IMAGE_NAME: Final = frozenset({"image_name"})


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
    query=frozenset({"page", "limit"}),
    returns=ImageTagPage,
    ok=frozenset({200}),
    may_fail=frozenset({400, 401, 404, 500}),
    slashes=_IMAGE_NAME,
)
DELETE_IMAGE_TAG: Final = Operation(
    name="delete_image_tag",
    method="DELETE",
    path=_IMAGE + "/{tag_name}",
    returns=ImageTagDeleted,
    ok=frozenset({200}),
    may_fail=frozenset({401, 404, 500}),
    slashes=_IMAGE_NAME,
)
BULK_DELETE_IMAGE_TAGS: Final = Operation(
    name="bulk_delete_image_tags",
    method="POST",
    path=_IMAGE + "/bulk-delete",
    body=ImageTags,
    returns=TagDeletions,
    ok=frozenset({207}),
    may_fail=frozenset({400, 401, 404, 500}),
    # A repeat would say 404 of what the first request has deleted.
    retry_safety=RetrySafety.ONLY_IF_NOT_SENT,
    slashes=_IMAGE_NAME,
)

REGISTRY_OPERATIONS: Final[tuple[Operation[object], ...]] = (
    LIST_IMAGE_TAGS,
    DELETE_IMAGE_TAG,
    BULK_DELETE_IMAGE_TAGS,
)
"""The calls about images of the container registry."""
