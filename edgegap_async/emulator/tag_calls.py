"""The calls about tags of deployments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import attrs

from edgegap_async.api.models import Tag, TagPage
from edgegap_async.api.requests import TagName
from edgegap_async.errors import BadRequest, Conflict, NotFound

from .cloud_state import CloudState, Reply
from .list_queries import pagination

_MAX_TAGS: Final = 40


class TagCalls(CloudState):
    """The calls about tags of deployments."""

    async def list_tags(self, *, request_id: str) -> Reply:
        """Returns the tags of a deployment."""
        tags = tuple(self._find(request_id).tags.values())
        return 200, TagPage(
            tags=tags,
            count=len(tags),
            total_count=len(tags),
            pagination=pagination(1, max(1, len(tags)), len(tags)),
        )

    async def get_tag(self, *, request_id: str, tag_name: str) -> Reply:
        """Returns one tag of a deployment."""
        return 200, self._find_tag(request_id, tag_name)

    async def create_tag(self, *, request_id: str, body: TagName) -> Reply:
        """Adds a tag to a deployment. The environment of its process stays as it was."""
        tags = self._find(request_id).tags
        if body.name in tags:
            raise Conflict(f"Tag {body.name} exists already")
        if len(tags) >= _MAX_TAGS:
            raise BadRequest(f"A deployment has {_MAX_TAGS} tags at most")
        now = datetime.now(UTC)
        tags[body.name] = Tag(name=body.name, create_time=now, last_updated=now)
        return 200, tags[body.name]

    async def rename_tag(self, *, request_id: str, tag_name: str, body: TagName) -> Reply:
        """Renames a tag."""
        tag = self._find_tag(request_id, tag_name)
        tags = self.deployments[request_id].tags
        if body.name in tags and body.name != tag_name:
            raise Conflict(f"Tag {body.name} exists already")
        renamed = attrs.evolve(tag, name=body.name, last_updated=datetime.now(UTC))
        in_order = [renamed if one is tag else one for one in tags.values()]
        tags.clear()
        tags.update((one.name, one) for one in in_order)
        return 200, renamed

    async def delete_tag(self, *, request_id: str, tag_name: str) -> Reply:
        """Removes a tag."""
        self._find_tag(request_id, tag_name)
        del self.deployments[request_id].tags[tag_name]
        return 204, None

    def _find_tag(self, request_id: str, name: str) -> Tag:
        tag = self._find(request_id).tags.get(name)
        if tag is None:
            raise NotFound(f"Tag {name} not found")
        return tag
