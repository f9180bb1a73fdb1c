"""Endpoint storages, their pull profiles, and the versions that profiles are linked to.

Only names are kept: the emulator writes to no bucket, and copies nothing into a deployment. It does
not keep a secret key at all.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import attrs

from edgegap_async.api.requests import RequestModel
from edgegap_async.api.resources.endpoint_storages import (
    EndpointStorage,
    EndpointStorageRequest,
    PullProfile,
    PullProfileLink,
    PullProfileRequest,
)
from edgegap_async.errors import BadRequest, NotFound


@attrs.define
class StoredProfile:
    """A pull profile."""

    shown: PullProfile
    """What the API shows."""
    links: dict[tuple[str, str], PullProfileLink] = attrs.field(factory=dict)
    """Its links by application and version."""

    @classmethod
    def new(cls, wanted: PullProfileRequest) -> StoredProfile:
        """Returns the profile of a request."""
        now = datetime.now(UTC)
        return cls(PullProfile(**_given(wanted), create_time=now, last_updated=now))

    def link(self, storage: str, application: str, version: str) -> PullProfileLink:
        """Links a version to this profile of a storage, if it is not linked yet."""
        now = datetime.now(UTC)
        link = self.links.get((application, version)) or PullProfileLink(
            app=application,
            app_version=version,
            endpoint=storage,
            pull_profile=self.shown.name,
            create_time=now,
        )
        self.links[application, version] = attrs.evolve(link, last_updated=now)
        return self.links[application, version]

    def unlink(self, application: str, version: str) -> None:
        """Takes a version off this profile.

        Raises:
            NotFound: there is no such link.
        """
        if self.links.pop((application, version), None) is None:
            name = self.shown.name
            raise NotFound(f"Version {version} of {application} is not linked to {name}")


@attrs.define
class StoredStorage:
    """An endpoint storage."""

    shown: EndpointStorage
    """What the API shows."""
    profiles: Named[StoredProfile] = attrs.field(factory=lambda: Named("Pull profile"))
    """Its pull profiles."""

    @classmethod
    def new(cls, wanted: EndpointStorageRequest) -> StoredStorage:
        """Returns the storage of a request."""
        now = datetime.now(UTC)
        values = {"output_format": "TEXT", **_given(wanted)}
        return cls(EndpointStorage(**values, create_time=now, last_updated=now))


Stored = TypeVar("Stored", StoredProfile, StoredStorage)


class Named(Generic[Stored]):
    """Things that have a name of their own.

    Args:
        what: what each of them is, for errors.

    Attributes:
        by_name: the things by name, oldest first.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.by_name: dict[str, Stored] = {}

    def find(self, name: str) -> Stored:
        """Returns the thing of this name.

        Raises:
            NotFound: there is none.
        """
        if name not in self.by_name:
            raise NotFound(f"{self._what} {name} not found")
        return self.by_name[name]

    def add(self, new: Stored) -> Stored:
        """Adds a thing, and returns it.

        Raises:
            BadRequest: there is one of its name.
        """
        self._check_free(new.shown.name)
        self.by_name[new.shown.name] = new
        return new

    def update(self, name: str, changes: RequestModel) -> Stored:
        """Changes a thing, and returns it; another name leaves it in its place.

        Raises:
            NotFound: there is none of this name.
            BadRequest: there is one of the new name.
        """
        stored, values = self.find(name), _given(changes)
        if values.get("name", name) != name:
            self._check_free(values["name"])
        shown: Any = stored.shown
        stored.shown = attrs.evolve(shown, **values, last_updated=datetime.now(UTC))
        self.by_name = {one.shown.name: one for one in self.by_name.values()}
        return stored

    def delete(self, name: str) -> None:
        """Deletes a thing, and what belongs to it.

        Raises:
            NotFound: there is none of this name.
        """
        self.find(name)
        del self.by_name[name]

    def _check_free(self, name: str) -> None:
        if name in self.by_name:
            raise BadRequest(f"{self._what} {name} already exists")


def _given(changes: RequestModel) -> dict[str, Any]:
    """Returns the fields of a request that are set and that the API shows."""
    values = changes.given()
    values.pop("secret_access_key", None)
    return values
