"""The calls about endpoint storages and pull profiles."""

from __future__ import annotations

from edgegap_async.api.resources.endpoint_storages import (
    EndpointStorage,
    EndpointStorageChanges,
    EndpointStoragePage,
    EndpointStorageRequest,
    PullProfile,
    PullProfileChanges,
    PullProfileLink,
    PullProfilePage,
    PullProfileRequest,
)

from .cloud_state import CloudState
from .list_queries import page_answer
from .storages import StoredProfile, StoredStorage


class StorageCalls(CloudState):
    """The calls about endpoint storages and pull profiles."""

    async def list_endpoint_storages(self, **pages: str) -> EndpointStoragePage:
        """Returns the storages, oldest first."""
        every = [stored.shown for stored in self.storages.by_name.values()]
        return page_answer(EndpointStoragePage, "endpoints", every, pages)

    async def create_endpoint_storage(self, *, body: EndpointStorageRequest) -> EndpointStorage:
        """Creates a storage. Its key is not tried."""
        return self.storages.add(StoredStorage.new(body)).shown

    async def get_endpoint_storage(self, *, endpoint_name: str) -> EndpointStorage:
        """Returns a storage, without its secret key."""
        return self.storages.find(endpoint_name).shown

    async def update_endpoint_storage(
        self, *, endpoint_name: str, body: EndpointStorageChanges
    ) -> EndpointStorage:
        """Changes a storage."""
        return self.storages.update(endpoint_name, body).shown

    async def delete_endpoint_storage(self, *, endpoint_name: str) -> None:
        """Deletes a storage and its pull profiles."""
        self.storages.delete(endpoint_name)

    async def list_pull_profiles(self, *, endpoint_name: str, **pages: str) -> PullProfilePage:
        """Returns the pull profiles of a storage, oldest first."""
        every = [one.shown for one in self.storages.find(endpoint_name).profiles.by_name.values()]
        return page_answer(PullProfilePage, "pull_profiles", every, pages)

    async def create_pull_profile(
        self, *, endpoint_name: str, body: PullProfileRequest
    ) -> PullProfile:
        """Creates a pull profile. Nothing is copied: there is no bucket."""
        profiles = self.storages.find(endpoint_name).profiles
        return profiles.add(StoredProfile.new(body)).shown

    async def get_pull_profile(self, *, endpoint_name: str, pull_profile_name: str) -> PullProfile:
        """Returns a pull profile."""
        return self._profile(endpoint_name, pull_profile_name).shown

    async def update_pull_profile(
        self, *, endpoint_name: str, pull_profile_name: str, body: PullProfileChanges
    ) -> PullProfile:
        """Changes a pull profile."""
        profiles = self.storages.find(endpoint_name).profiles
        return profiles.update(pull_profile_name, body).shown

    async def delete_pull_profile(self, *, endpoint_name: str, pull_profile_name: str) -> None:
        """Deletes a pull profile and its links."""
        self.storages.find(endpoint_name).profiles.delete(pull_profile_name)

    async def link_pull_profile(
        self, *, endpoint_name: str, pull_profile_name: str, app_name: str, version_name: str
    ) -> PullProfileLink:
        """Links a version to a pull profile."""
        self.registry.find_version(app_name, version_name)
        profile = self._profile(endpoint_name, pull_profile_name)
        return profile.link(endpoint_name, app_name, version_name)

    async def unlink_pull_profile(
        self, *, endpoint_name: str, pull_profile_name: str, app_name: str, version_name: str
    ) -> None:
        """Takes a version off a pull profile."""
        self._profile(endpoint_name, pull_profile_name).unlink(app_name, version_name)

    def _profile(self, storage: str, name: str) -> StoredProfile:
        return self.storages.find(storage).profiles.find(name)
