"""The calls about endpoint storages and pull profiles."""

from __future__ import annotations

from edgegap_async.api.resources.endpoint_storages import (
    EndpointStorageChanges,
    EndpointStoragePage,
    EndpointStorageRequest,
    PullProfileChanges,
    PullProfilePage,
    PullProfileRequest,
)

from .cloud_state import CloudState, Reply
from .list_queries import page_of


class StorageCalls(CloudState):
    """The calls about endpoint storages and pull profiles."""

    async def list_endpoint_storages(
        self, *, page: str | None = None, limit: str | None = None
    ) -> Reply:
        """Returns the storages, oldest first."""
        every = [stored.shown for stored in self.storages.by_name.values()]
        endpoints, position = page_of(every, page, limit, is_always_paged=True)
        return 200, EndpointStoragePage(
            endpoints=endpoints, total_count=len(every), pagination=position
        )

    async def create_endpoint_storage(self, *, body: EndpointStorageRequest) -> Reply:
        """Creates a storage. Its key is not tried."""
        return 200, self.storages.create(body)

    async def get_endpoint_storage(self, *, endpoint_name: str) -> Reply:
        """Returns a storage, without its secret key."""
        return 200, self.storages.find(endpoint_name).shown

    async def update_endpoint_storage(
        self, *, endpoint_name: str, body: EndpointStorageChanges
    ) -> Reply:
        """Changes a storage."""
        return 200, self.storages.update(endpoint_name, body)

    async def delete_endpoint_storage(self, *, endpoint_name: str) -> Reply:
        """Deletes a storage and its pull profiles."""
        self.storages.delete(endpoint_name)
        return 204, None

    async def list_pull_profiles(
        self, *, endpoint_name: str, page: str | None = None, limit: str | None = None
    ) -> Reply:
        """Returns the pull profiles of a storage, oldest first."""
        every = [one.shown for one in self.storages.find(endpoint_name).profiles.values()]
        profiles, position = page_of(every, page, limit, is_always_paged=True)
        return 200, PullProfilePage(
            pull_profiles=profiles, total_count=len(every), pagination=position
        )

    async def create_pull_profile(self, *, endpoint_name: str, body: PullProfileRequest) -> Reply:
        """Creates a pull profile. Nothing is copied: there is no bucket."""
        return 200, self.storages.create_profile(endpoint_name, body)

    async def get_pull_profile(self, *, endpoint_name: str, pull_profile_name: str) -> Reply:
        """Returns a pull profile."""
        return 200, self.storages.find_profile(endpoint_name, pull_profile_name).shown

    async def update_pull_profile(
        self, *, endpoint_name: str, pull_profile_name: str, body: PullProfileChanges
    ) -> Reply:
        """Changes a pull profile."""
        return 200, self.storages.update_profile(endpoint_name, pull_profile_name, body)

    async def delete_pull_profile(self, *, endpoint_name: str, pull_profile_name: str) -> Reply:
        """Deletes a pull profile and its links."""
        self.storages.delete_profile(endpoint_name, pull_profile_name)
        return 204, None

    async def link_pull_profile(
        self, *, endpoint_name: str, pull_profile_name: str, app_name: str, version_name: str
    ) -> Reply:
        """Links a version to a pull profile."""
        self.registry.find_version(app_name, version_name)
        return 200, self.storages.link(endpoint_name, pull_profile_name, app_name, version_name)

    async def unlink_pull_profile(
        self, *, endpoint_name: str, pull_profile_name: str, app_name: str, version_name: str
    ) -> Reply:
        """Takes a version off a pull profile."""
        self.storages.unlink(endpoint_name, pull_profile_name, app_name, version_name)
        return 204, None
