"""The calls about images of the container registry."""

from __future__ import annotations

from collections.abc import Iterable

from edgegap_async.api.resources.container_registry import (
    BULK_DELETE_IMAGE_TAGS,
    DELETE_IMAGE_TAG,
    LIST_IMAGE_TAGS,
    ImageTag,
    ImageTagDeleted,
    ImageTagPage,
    ImageTags,
    TagDeletions,
)

from .resource import Listing, Resource


class ContainerRegistry(Resource):
    """Lists and deletes the tags of images in Edgegap's container registry.

    `image_name` is the name of an image without the registry. Its slashes are kept.
    """

    def tags(self, image_name: str, *, limit: int | None = None) -> Listing[ImageTag, ImageTagPage]:
        """Lists the tags of an image.

        Args:
            image_name: the image, such as `arena` or `team/arena`.
            limit: tags of one page, 1 or more; None for the API's default.

        Raises:
            NotFound: the image does not exist.
        """
        return Listing(
            self._call,
            LIST_IMAGE_TAGS,
            lambda page: page.data,
            lambda row: row.tag,
            path={"image_name": image_name},
            limit=limit,
        )

    async def delete_tag(self, image_name: str, tag_name: str) -> ImageTagDeleted:
        """Deletes a tag, and the image if it has no other tag.

        Versions that have the tag cannot be deployed where it is not cached.

        Raises:
            NotFound: the image does not exist, or does not have the tag.
        """
        path = {"image_name": image_name, "tag_name": tag_name}
        return await self._call(DELETE_IMAGE_TAG, path=path)

    async def delete_tags(self, image_name: str, tags: Iterable[str]) -> TagDeletions:
        """Deletes several tags of an image, and returns what became of each.

        Some may be deleted while others are not: see `is_deleted` of each of the `results`.

        Args:
            image_name: the image, as for `tags`.
            tags: the tags, at least one.

        Raises:
            NotFound: the image does not exist.
            NoAnswer: the tags may have been deleted.
        """
        path = {"image_name": image_name}
        return await self._call(BULK_DELETE_IMAGE_TAGS, path=path, body=ImageTags(tags))
