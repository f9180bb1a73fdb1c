"""The calls about applications and their versions."""

from __future__ import annotations

from edgegap_async.api.resources.applications import (
    Application,
    ApplicationChanges,
    ApplicationPage,
    ApplicationRequest,
    ApplicationVersion,
    VersionChanges,
    VersionDeleted,
    VersionPage,
    VersionRequest,
    VersionSaved,
)

from .cloud_state import CloudState
from .list_queries import page_answer


class AppCalls(CloudState):
    """The calls about applications and their versions."""

    async def list_applications(self, **pages: str) -> ApplicationPage:
        """Returns the applications, oldest first."""
        every = [stored.shown for stored in self.registry.applications.values()]
        return page_answer(ApplicationPage, "applications", every, pages)

    async def create_application(self, *, body: ApplicationRequest) -> Application:
        """Creates an application without versions."""
        return self.registry.create(body)

    async def get_application(self, *, application: str) -> Application:
        """Returns an application."""
        return self.registry.find(application).shown

    async def update_application(
        self, *, application: str, body: ApplicationChanges
    ) -> Application:
        """Changes an application."""
        return self.registry.update(application, body)

    async def delete_application(self, *, application: str) -> None:
        """Deletes an application and its versions. Its deployments run on."""
        self.registry.delete(application)

    async def list_versions(self, *, application: str, **pages: str) -> VersionPage:
        """Returns the versions of an application, oldest first."""
        every = [version.shown for version in self.registry.find(application).versions.values()]
        return page_answer(VersionPage, "versions", every, pages)

    async def create_version(self, *, application: str, body: VersionRequest) -> VersionSaved:
        """Creates a version of an image that the settings map to a program, or run themselves."""
        await self._verify_image(application, None, body)
        created = self.registry.create_version(application, body)
        return VersionSaved(success=True, version=created)

    async def get_version(self, *, application: str, version: str) -> ApplicationVersion:
        """Returns a version, without its secrets."""
        return self.registry.find_version(application, version).shown

    async def update_version(
        self, *, application: str, version: str, body: VersionChanges
    ) -> VersionSaved:
        """Changes a version. Its deployments run on as they are."""
        await self._verify_image(application, version, body)
        changed = self.registry.update_version(application, version, body)
        return VersionSaved(success=True, version=changed)

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

    async def delete_version(self, *, application: str, version: str) -> VersionDeleted:
        """Deletes a version. Its deployments run on."""
        self.registry.delete_version(application, version)
        return VersionDeleted(success=True, message=f"Version {version} was deleted")
