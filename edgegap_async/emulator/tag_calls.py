"""The calls about tags of deployments, and those of a deployment about itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import attrs

from edgegap_async.api.models import Status, Tag, TagPage
from edgegap_async.api.requests import TagName
from edgegap_async.api.resources.deployments import DeploymentContext
from edgegap_async.errors import BadRequest, Conflict, NotFound

from .cloud_state import CloudState, Reply
from .deployments import LocalDeployment
from .list_queries import page_of

_MAX_TAGS: Final = 40


class TagCalls(CloudState):
    """The calls about tags of deployments, and those of a deployment about itself."""

    async def list_tags(
        self, *, request_id: str, page: str | None = None, limit: str | None = None
    ) -> Reply:
        """Returns the tags of a deployment."""
        every = list(self._find(request_id).tags.values())
        tags, position = page_of(every, page, limit)
        return 200, TagPage(
            tags=tags, count=len(every), total_count=len(every), pagination=position
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

    # ── from inside a deployment ─────────────────────────────────────────────────────────────────

    async def get_context(self, *, request_id: str, access_point_id: str, token: str) -> Reply:
        """Returns what a deployment may know about itself, at ARBITRIUM_CONTEXT_URL."""
        seen = self._find_own(request_id, access_point_id, token).deployment()
        return 200, DeploymentContext(
            request_id=request_id,
            public_ip=seen.public_ip,
            status=seen.current_status,
            ready=seen.current_status is Status.READY,
            fqdn=seen.fqdn,
            ports=seen.ports,
            location=seen.location,
            tags=seen.tags,
            sockets=seen.sockets,
            sockets_usage=seen.sockets_usage,
        )

    async def create_context_tag(
        self, *, request_id: str, access_point_id: str, token: str, body: TagName
    ) -> Reply:
        """Adds a tag to the deployment that sends the call."""
        self._find_own(request_id, access_point_id, token)
        return await self.create_tag(request_id=request_id, body=body)

    async def delete_context_tag(
        self, *, request_id: str, access_point_id: str, token: str, tag_name: str
    ) -> Reply:
        """Removes a tag of the deployment that sends the call."""
        self._find_own(request_id, access_point_id, token)
        return await self.delete_tag(request_id=request_id, tag_name=tag_name)

    def check_context_token(
        self, *, request_id: str, access_point_id: str, token: str, **_: str
    ) -> None:
        """Checks that a call comes from the deployment's own process.

        Raises:
            Unauthorized: the token is another one.
            BadRequest: the deployment or the number in the URL is another one; or NotFound.
        """
        self._find_own(request_id, access_point_id, token)

    def _find_own(self, request_id: str, access_point_id: str, token: str) -> LocalDeployment:
        deployment = self._find(request_id)
        self._check_own(deployment, access_point_id, deployment.secrets.context_token, token)
        return deployment
