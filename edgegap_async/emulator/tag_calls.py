"""The calls about tags of deployments, and those of a deployment about itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import attrs

from edgegap_async.api.models import Tag, TagPage
from edgegap_async.api.requests import TagName
from edgegap_async.api.resources.deployments import DeploymentContext
from edgegap_async.errors import BadRequest, Conflict, NotFound

from .cloud_state import CloudState
from .list_queries import page_answer

_MAX_TAGS: Final = 40


class TagCalls(CloudState):
    """The calls about tags of deployments, and those of a deployment about itself."""

    async def list_tags(self, *, request_id: str, **pages: str) -> TagPage:
        """Returns the tags of a deployment."""
        every = tuple(self._find(request_id).tags.values())
        return page_answer(TagPage, "tags", every, pages, is_always_paged=False)

    async def get_tag(self, *, request_id: str, tag_name: str) -> Tag:
        """Returns one tag of a deployment."""
        return self._find_tag(request_id, tag_name)

    async def create_tag(self, *, request_id: str, body: TagName) -> Tag:
        """Adds a tag to a deployment. The environment of its process stays as it was."""
        tags = self._find(request_id).tags
        if body.name in tags:
            raise Conflict(f"Tag {body.name} exists already")
        if len(tags) >= _MAX_TAGS:
            raise BadRequest(f"A deployment has {_MAX_TAGS} tags at most")
        now = datetime.now(UTC)
        tags[body.name] = Tag(name=body.name, create_time=now, last_updated=now)
        return tags[body.name]

    async def rename_tag(self, *, request_id: str, tag_name: str, body: TagName) -> Tag:
        """Renames a tag."""
        tag = self._find_tag(request_id, tag_name)
        deployment = self.deployments[request_id]
        if body.name in deployment.tags and body.name != tag_name:
            raise Conflict(f"Tag {body.name} exists already")
        renamed = attrs.evolve(tag, name=body.name, last_updated=datetime.now(UTC))
        in_order = [renamed if one is tag else one for one in deployment.tags.values()]
        deployment.tags = {one.name: one for one in in_order}
        return renamed

    async def delete_tag(self, *, request_id: str, tag_name: str) -> None:
        """Removes a tag."""
        self._find_tag(request_id, tag_name)
        del self.deployments[request_id].tags[tag_name]

    def _find_tag(self, request_id: str, name: str) -> Tag:
        tag = self._find(request_id).tags.get(name)
        if tag is None:
            raise NotFound(f"Tag {name} not found")
        return tag

    # ── from inside a deployment, whose token the server has checked ─────────────────────────────

    async def get_context(self, *, request_id: str) -> DeploymentContext:
        """Returns what a deployment may know about itself, at ARBITRIUM_CONTEXT_URL."""
        seen = self._find(request_id).deployment()
        same = ("public_ip", "fqdn", "ports", "location", "tags", "sockets", "sockets_usage")
        return DeploymentContext(
            request_id=request_id,
            status=seen.current_status,
            ready=seen.running,
            **{name: getattr(seen, name) for name in same},
        )

    create_context_tag = create_tag
    delete_context_tag = delete_tag
