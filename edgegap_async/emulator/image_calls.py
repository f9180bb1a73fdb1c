"""The calls about images of the container registry."""

from __future__ import annotations

from edgegap_async.api.resources.container_registry import (
    DeletionSummary,
    ImageTagDeleted,
    ImageTagPage,
    ImageTags,
    TagDeletion,
    TagDeletions,
)
from edgegap_async.errors import NotFound

from .cloud_state import CloudState
from .list_queries import page_answer


class ImageCalls(CloudState):
    """The calls about images of the container registry."""

    async def list_image_tags(self, *, image_name: str, **pages: str) -> ImageTagPage:
        """Returns the tags of an image, oldest first."""
        return page_answer(ImageTagPage, "data", self.images.tags(image_name), pages)

    async def delete_image_tag(self, *, image_name: str, tag_name: str) -> ImageTagDeleted:
        """Deletes a tag."""
        return self.images.delete(image_name, tag_name)

    async def bulk_delete_image_tags(self, *, image_name: str, body: ImageTags) -> TagDeletions:
        """Deletes several tags, and says of each what became of it."""
        self.images.tags(image_name)
        results = tuple(self._deleted(image_name, tag) for tag in body.tags)
        success = sum(result.is_deleted for result in results)
        summary = DeletionSummary(
            total=len(results), success=success, failed=len(results) - success
        )
        return TagDeletions(results=results, summary=summary)

    def _deleted(self, image_name: str, tag: str) -> TagDeletion:
        try:
            self.images.delete(image_name, tag)
        except NotFound as problem:
            return TagDeletion(tag=tag, status=404, message=problem.message)
        return TagDeletion(tag=tag, status=204)
