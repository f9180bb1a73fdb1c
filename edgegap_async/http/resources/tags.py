"""The calls about the tags of deployments."""

from __future__ import annotations

from edgegap_async.api.models import Tag, TagPage
from edgegap_async.api.operations import CREATE_TAG, DELETE_TAG, GET_TAG, LIST_TAGS, RENAME_TAG
from edgegap_async.api.requests import TagName

from .resource import Listing, Resource


class Tags(Resource):
    """Reads and changes the tags of deployments. A change does not reach the running container."""

    def list(self, request_id: str, *, limit: int | None = None) -> Listing[Tag, TagPage]:
        """Lists the tags of a deployment.

        Args:
            request_id: the deployment.
            limit: tags of one page, 1 or more; None for the API's default.

        Raises:
            NotFound: the deployment does not exist.
        """
        return Listing(
            self._call,
            LIST_TAGS,
            lambda page: page.tags,
            lambda tag: tag.name,
            path={"request_id": request_id},
            limit=limit,
            names_first_page=False,
        )

    async def get(self, request_id: str, tag_name: str) -> Tag:
        """Returns one tag, with the time of its creation.

        Raises:
            NotFound: the deployment does not exist, or does not have the tag.
        """
        return await self._call(GET_TAG, path={"request_id": request_id, "tag_name": tag_name})

    async def create(self, request_id: str, name: str) -> Tag:
        """Adds a tag to a deployment, and returns the tag.

        Args:
            request_id: the deployment.
            name: the tag, 1 to 40 characters.

        Raises:
            Conflict: the deployment has the tag already.
            NotFound: the deployment does not exist.
        """
        return await self._call(CREATE_TAG, path={"request_id": request_id}, body=TagName(name))

    async def rename(self, request_id: str, tag_name: str, name: str) -> Tag:
        """Renames a tag of a deployment, and returns the tag under its new name.

        Args:
            request_id: the deployment.
            tag_name: the present name.
            name: the new name, 1 to 40 characters.

        Raises:
            Conflict: the deployment has a tag of the new name already.
            NotFound: the deployment does not exist, or does not have the tag.
        """
        path = {"request_id": request_id, "tag_name": tag_name}
        return await self._call(RENAME_TAG, path=path, body=TagName(name))

    async def delete(self, request_id: str, tag_name: str) -> None:
        """Removes a tag from a deployment.

        Raises:
            NotFound: the deployment does not exist, or does not have the tag.
        """
        await self._call(DELETE_TAG, path={"request_id": request_id, "tag_name": tag_name})
