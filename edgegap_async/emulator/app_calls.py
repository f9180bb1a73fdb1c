"""The calls about applications and their versions."""

from __future__ import annotations

from edgegap_async.api.resources.applications import (
    ApplicationChanges,
    ApplicationPage,
    ApplicationRequest,
    VersionChanges,
    VersionDeleted,
    VersionPage,
    VersionRequest,
    VersionSaved,
)

from .cloud_state import CloudState, Reply
from .list_queries import page_of


class AppCalls(CloudState):
    """The calls about applications and their versions."""

    async def list_applications(
        self, *, page: str | None = None, limit: str | None = None
    ) -> Reply:
        """Returns the applications, oldest first."""
        every = [stored.shown for stored in self.registry.applications.values()]
        applications, position = page_of(every, page, limit, is_always_paged=True)
        return 200, ApplicationPage(
            applications=applications, total_count=len(every), pagination=position
        )

    async def create_application(self, *, body: ApplicationRequest) -> Reply:
        """Creates an application without versions."""
        return 200, self.registry.create(body)

    async def get_application(self, *, application: str) -> Reply:
        """Returns an application."""
        return 200, self.registry.find(application).shown

    async def update_application(self, *, application: str, body: ApplicationChanges) -> Reply:
        """Changes an application."""
        return 200, self.registry.update(application, body)

    async def delete_application(self, *, application: str) -> Reply:
        """Deletes an application and its versions. Its deployments run on."""
        self.registry.delete(application)
        return 200, None

    async def list_versions(
        self, *, application: str, page: str | None = None, limit: str | None = None
    ) -> Reply:
        """Returns the versions of an application, oldest first."""
        every = [version.shown for version in self.registry.find(application).versions.values()]
        versions, position = page_of(every, page, limit, is_always_paged=True)
        return 200, VersionPage(versions=versions, total_count=len(every), pagination=position)

    async def create_version(self, *, application: str, body: VersionRequest) -> Reply:
        """Creates a version of an image that the settings map to a program, or run themselves."""
        await self._verify_image(application, None, body)
        created = self.registry.create_version(application, body)
        return 200, VersionSaved(success=True, version=created)

    async def get_version(self, *, application: str, version: str) -> Reply:
        """Returns a version, without its secrets."""
        return 200, self.registry.find_version(application, version).shown

    async def update_version(
        self, *, application: str, version: str, body: VersionChanges
    ) -> Reply:
        """Changes a version. Its deployments run on as they are."""
        await self._verify_image(application, version, body)
        changed = self.registry.update_version(application, version, body)
        return 200, VersionSaved(success=True, version=changed)

    async def _verify_image(
        self, application: str, version: str | None, wanted: VersionChanges
    ) -> None:
        """Pulls the image of a container if the call asks for its check.

        Raises:
            BadRequest: the registry refuses the credentials.
            ImageUnavailable: the image cannot be pulled.
        """
        if not wanted.verify_image or self.engine is None:
            return
        wanted_image = self.registry.container_image(application, version, wanted)
        if wanted_image is not None:
            await self.engine.verify(*wanted_image)

    async def delete_version(self, *, application: str, version: str) -> Reply:
        """Deletes a version. Its deployments run on."""
        self.registry.delete_version(application, version)
        return 200, VersionDeleted(success=True, message=f"Version {version} was deleted")
