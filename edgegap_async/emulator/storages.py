"""Endpoint storages, their pull profiles, and the versions that profiles are linked to.

Only names are kept: the emulator writes to no bucket, and copies nothing into a deployment. It does
not keep a secret key at all.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs

from edgegap_async.api.requests import RequestModel
from edgegap_async.api.resources.endpoint_storages import (
    EndpointStorage,
    EndpointStorageChanges,
    PullProfile,
    PullProfileChanges,
    PullProfileLink,
)
from edgegap_async.errors import BadRequest, NotFound

Shown = TypeVar("Shown", EndpointStorage, PullProfile)


@attrs.define
class StoredProfile:
    """A pull profile."""

    shown: PullProfile
    """What the API shows."""
    links: dict[tuple[str, str], PullProfileLink] = attrs.field(factory=dict)
    """Its links by application and version."""


@attrs.define
class StoredStorage:
    """An endpoint storage."""

    shown: EndpointStorage
    """What the API shows."""
    profiles: dict[str, StoredProfile] = attrs.field(factory=dict)
    """Its pull profiles by name, oldest first."""


class Storages:
    """The endpoint storages that exist.

    Attributes:
        by_name: the storages by name, oldest first.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, StoredStorage] = {}

    def find(self, name: str) -> StoredStorage:
        """Returns a storage.

        Raises:
            NotFound: there is none of that name.
        """
        return _found(self.by_name, name, "Endpoint storage")

    def create(self, wanted: EndpointStorageChanges) -> EndpointStorage:
        """Creates a storage.

        Raises:
            BadRequest: there is one of that name.
        """
        shown = _created(EndpointStorage, {"output_format": "TEXT", **_given(wanted)})
        _check_free(self.by_name, shown.name, "Endpoint storage")
        self.by_name[shown.name] = StoredStorage(shown)
        return shown

    def update(self, name: str, changes: EndpointStorageChanges) -> EndpointStorage:
        """Changes a storage.

        Raises:
            NotFound: there is none of that name.
            BadRequest: there is one of the new name.
        """
        stored = self.find(name)
        if changes.name not in {None, name}:
            _check_free(self.by_name, changes.name, "Endpoint storage")
        stored.shown = _changed(stored.shown, changes)
        self.by_name = {one.shown.name: one for one in self.by_name.values()}
        return stored.shown

    def delete(self, name: str) -> None:
        """Deletes a storage and its pull profiles.

        Raises:
            NotFound: there is none of that name.
        """
        self.find(name)
        del self.by_name[name]

    def find_profile(self, storage: str, name: str) -> StoredProfile:
        """Returns a pull profile.

        Raises:
            NotFound: the storage or the profile does not exist.
        """
        return _found(self.find(storage).profiles, name, "Pull profile")

    def create_profile(self, storage: str, wanted: PullProfileChanges) -> PullProfile:
        """Creates a pull profile.

        Raises:
            NotFound: the storage does not exist.
            BadRequest: it has a profile of that name.
        """
        profiles = self.find(storage).profiles
        shown = _created(PullProfile, _given(wanted))
        _check_free(profiles, shown.name, "Pull profile")
        profiles[shown.name] = StoredProfile(shown)
        return shown

    def update_profile(self, storage: str, name: str, changes: PullProfileChanges) -> PullProfile:
        """Changes a pull profile.

        Raises:
            NotFound: the storage or the profile does not exist.
            BadRequest: the storage has a profile of the new name.
        """
        stored, profiles = self.find_profile(storage, name), self.find(storage).profiles
        if changes.name not in {None, name}:
            _check_free(profiles, changes.name, "Pull profile")
        stored.shown = _changed(stored.shown, changes)
        renamed = {one.shown.name: one for one in profiles.values()}
        profiles.clear()
        profiles.update(renamed)
        return stored.shown

    def delete_profile(self, storage: str, name: str) -> None:
        """Deletes a pull profile and its links.

        Raises:
            NotFound: the storage or the profile does not exist.
        """
        self.find_profile(storage, name)
        del self.find(storage).profiles[name]

    def link(self, storage: str, name: str, application: str, version: str) -> PullProfileLink:
        """Links a version to a pull profile, if it is not linked yet.

        Raises:
            NotFound: the storage or the profile does not exist.
        """
        links = self.find_profile(storage, name).links
        now = datetime.now(UTC)
        link = links.get((application, version)) or PullProfileLink(
            app=application,
            app_version=version,
            endpoint=storage,
            pull_profile=name,
            create_time=now,
        )
        links[application, version] = attrs.evolve(link, last_updated=now)
        return links[application, version]

    def unlink(self, storage: str, name: str, application: str, version: str) -> None:
        """Takes a version off a pull profile.

        Raises:
            NotFound: there is no such link.
        """
        links = self.find_profile(storage, name).links
        if links.pop((application, version), None) is None:
            raise NotFound(f"Version {version} of {application} is not linked to {name}")


Stored = TypeVar("Stored")


def _found(stored: dict[str, Stored], name: str, what: str) -> Stored:
    if name not in stored:
        raise NotFound(f"{what} {name} not found")
    return stored[name]


def _check_free(stored: dict[str, Any], name: str | None, what: str) -> None:
    if name in stored:
        raise BadRequest(f"{what} {name} already exists")


def _given(changes: RequestModel) -> dict[str, Any]:
    """Returns the fields of a request that are set and that the API shows."""
    values = changes.given()
    values.pop("secret_access_key", None)
    return values


def _created(kind: type[Shown], values: dict[str, Any]) -> Shown:
    now = datetime.now(UTC)
    return kind(**values, create_time=now, last_updated=now)


def _changed(shown: Shown, changes: RequestModel) -> Shown:
    return attrs.evolve(shown, **_given(changes), last_updated=datetime.now(UTC))
