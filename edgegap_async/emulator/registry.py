"""The applications and versions that can be deployed, as the API shows them and as they run.

A version comes from the settings (a TOML file, or code), or from a call of the API. A call names a
container image, never a program: `[[images]]` of the settings says which program an image stands
for, so that the body of a call runs no command. A version of the settings has an image too,
`emulator/NAME:VERSION`, so that a client can read it and create a version of the same image.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from edgegap_async.api.resources import applications as models
from edgegap_async.api.resources.applications import (
    ApplicationChanges,
    ApplicationRequest,
    VersionChanges,
    VersionPortRequest,
    VersionRequest,
)
from edgegap_async.errors import BadRequest, Conflict, ImageUnavailable, NotFound, log_fields

from .catalogue import Application, AppPort, Image, port_names
from .container_engine import Credentials, full_name
from .environment import check_variables

_log: Final = logging.getLogger(__name__)

_REPOSITORY: Final = "emulator"  # registry of the images of the settings' own versions
# Of the description, for a call that leaves them out. It has 10 for `time_to_deploy`, and a minimum
# of 15.
_LEAST_TIME_TO_DEPLOY: Final = 15  # seconds
_LEAST_GRACE: Final = 5  # seconds
_LEAST_UNITS: Final = 100
_DEFAULTS: Final = models.ApplicationVersion(
    name="default",
    is_active=True,
    req_video=0,
    caching_percent=0.0,
    time_to_deploy=_LEAST_TIME_TO_DEPLOY,
    max_duration=1440,
    restart_policy="always",
    termination_grace_period_seconds=_LEAST_GRACE,
)
_USERNAME: Final = "private_username"
_TOKEN: Final = "private_token"  # noqa: S105 - the name of a field
_PROGRAM_SETTINGS: Final = (
    "is_active",
    "max_duration",
    "restart_policy",
    "termination_grace_period_seconds",
    "time_to_deploy",
)
_OTHER_SPELLINGS: Final = {"WEBSOCKET": "WS"}


@attrs.define
class StoredVersion:
    """A version of an application."""

    shown: models.ApplicationVersion
    """What the API shows."""
    program: Application
    """What a deploy starts."""
    is_from_settings: bool = False
    """Whether it comes from the settings and not from a call."""
    missing: frozenset[str] = frozenset()
    """Names of hidden variables whose values were not kept over a restart."""


@attrs.define
class StoredApplication:
    """An application and its versions."""

    shown: models.Application
    """What the API shows."""
    is_from_settings: bool = False
    """Whether it comes from the settings and not from a call."""
    versions: dict[str, StoredVersion] = attrs.field(factory=dict)
    """Its versions by name, in the order in which they were created."""


class Registry:
    """The applications and versions that exist.

    Args:
        applications: the versions of the settings.
        images: the programs that images of calls stand for.
    """

    def __init__(self, applications: Iterable[Application], images: Iterable[Image]) -> None:
        self.applications: dict[str, StoredApplication] = {}
        """The applications by name, in the order in which they were created."""
        self.images: tuple[Image, ...] = ()
        """The images of the settings."""
        self.deleted_images = set[str]()
        """Names with tags of the images that calls have deleted."""
        self.loaded_at = datetime.now(UTC)
        """When the settings were read."""
        self.load(applications, images)

    def load(self, applications: Iterable[Application], images: Iterable[Image]) -> None:
        """Takes over the versions of the settings, in place of those that came from them before.

        Versions that calls have created stay. A version of the settings replaces one of its name.
        """
        for stored in self.applications.values():
            stored.versions = {
                name: version
                for name, version in stored.versions.items()
                if not version.is_from_settings
            }
        self.images, self.loaded_at = tuple(images), datetime.now(UTC)
        self.deleted_images.clear()
        for application in applications:
            self.put(application)
        self.applications = {
            name: stored
            for name, stored in self.applications.items()
            if stored.versions or not stored.is_from_settings
        }

    def put(self, application: Application) -> None:
        """Adds a version of the settings, or replaces one of the same name."""
        now = datetime.now(UTC)
        stored = self.applications.get(application.name)
        if stored is None:
            stored = StoredApplication(
                models.Application(
                    name=application.name,
                    is_active=True,
                    image=models.BLANK_PICTURE,
                    create_time=now,
                    last_updated=now,
                ),
                is_from_settings=True,
            )
            self.applications[application.name] = stored
        stored.versions[application.version] = StoredVersion(
            _described(application, now), application, is_from_settings=True
        )

    @property
    def deployable(self) -> tuple[str, ...]:
        """What can be deployed: application and version, such as `arena v1`."""
        return tuple(
            sorted(
                f"{name} {version}"
                for name, stored in self.applications.items()
                for version in stored.versions
            )
        )

    def program(self, application: str, version: str) -> Application | None:
        """Returns what a deploy of the version starts; None if it cannot be deployed.

        Raises:
            BadRequest: the values of its hidden variables were not kept over a restart.
        """
        stored = self.applications.get(application)
        chosen = stored and stored.versions.get(version)
        if not stored or not chosen or not (stored.shown.is_active and chosen.program.is_active):
            return None
        if chosen.missing:
            raise BadRequest(
                f"The emulator keeps no hidden values over a restart: set"
                f" {', '.join(sorted(chosen.missing))} of {application} {version} again"
                f" (PATCH /v1/app/{application}/version/{version} with envs or {_TOKEN})"
            )
        return chosen.program

    def restore(self, application: StoredApplication) -> None:
        """Takes over an application of an emulator that has ended; what the settings have stays.

        The settings say which programs its versions run. A version whose image they do not know is
        left out, and logged.
        """
        name = application.shown.name
        stored = self.applications.setdefault(name, StoredApplication(application.shown))
        for version_name, version in application.versions.items():
            if version_name in stored.versions:
                continue
            try:
                image = self._image(version.shown)
            except ImageUnavailable as problem:
                _log.warning(
                    "%s %s is not restored: %s",
                    name,
                    version_name,
                    problem,
                    extra=log_fields(problem, application=name, version=version_name),
                )
                continue
            program = attrs.evolve(version.program, **_image_settings(image, version.shown))
            stored.versions[version_name] = attrs.evolve(version, program=program)

    # ── applications ─────────────────────────────────────────────────────────────────────────────

    def find(self, name: str) -> StoredApplication:
        """Returns an application.

        Raises:
            NotFound: there is none of that name.
        """
        stored = self.applications.get(name)
        if stored is None:
            raise NotFound(f"Application {name} not found")
        return stored

    def create(self, wanted: ApplicationRequest) -> models.Application:
        """Creates an application.

        Raises:
            Conflict: there is one of that name.
        """
        if wanted.name in self.applications:
            raise Conflict(f"Application {wanted.name} already exists")
        now = datetime.now(UTC)
        shown = models.Application(**wanted.given(), create_time=now, last_updated=now)
        self.applications[wanted.name] = StoredApplication(shown)
        return shown

    def update(self, name: str, changes: ApplicationChanges) -> models.Application:
        """Changes an application.

        Raises:
            NotFound: there is none of that name.
            Conflict: there is one of the new name.
        """
        stored = self.find(name)
        if changes.name not in {None, name} and changes.name in self.applications:
            raise Conflict(f"Application {changes.name} already exists")
        stored.shown = attrs.evolve(stored.shown, **changes.given(), last_updated=datetime.now(UTC))
        for version in stored.versions.values():
            version.program = attrs.evolve(version.program, name=stored.shown.name)
        self.applications = {one.shown.name: one for one in self.applications.values()}
        return stored.shown

    def delete(self, name: str) -> None:
        """Deletes an application and its versions; what was deployed runs on.

        Raises:
            NotFound: there is none of that name.
        """
        self.find(name)
        del self.applications[name]

    # ── versions ─────────────────────────────────────────────────────────────────────────────────

    def find_version(self, application: str, name: str) -> StoredVersion:
        """Returns a version.

        Raises:
            NotFound: the application or the version does not exist.
        """
        stored = self.find(application).versions.get(name)
        if stored is None:
            raise NotFound(f"Version {name} of application {application} not found")
        return stored

    def create_version(self, application: str, wanted: VersionRequest) -> models.ApplicationVersion:
        """Creates a version.

        Raises:
            NotFound: the application does not exist.
            Conflict: it has a version of that name.
            ImageUnavailable: the settings have no program for the image.
        """
        versions = self.find(application).versions
        if wanted.name in versions:
            raise Conflict(f"Version {wanted.name} already exists")
        shown = attrs.evolve(_changed(_DEFAULTS, wanted), create_time=datetime.now(UTC))
        image = self._image(shown)
        _check_credentials(image, wanted)
        settings = {
            **_image_settings(image, shown),
            **_program_settings(shown),
            **_program_settings(wanted),
            **_credential_settings(image, wanted),
        }
        ports = settings.get("ports", ())
        _check_ports(image, ports)
        program = Application(
            name=application,
            version=wanted.name,
            cpu_units=wanted.req_cpu,
            memory_mb=wanted.req_memory,
            **settings,
        )
        versions[wanted.name] = StoredVersion(shown, program)
        return shown

    def update_version(
        self, application: str, name: str, changes: VersionChanges
    ) -> models.ApplicationVersion:
        """Changes a version; what was deployed before runs on as it is.

        Raises:
            NotFound: the application or the version does not exist.
            BadRequest: the application has a version of the new name.
            ImageUnavailable: the settings have no program for the new image.
        """
        stored, owner = self.find_version(application, name), self.find(application)
        if changes.name not in {None, name} and changes.name in owner.versions:
            raise BadRequest(f"Version {changes.name} already exists")
        shown = _changed(stored.shown, changes)
        settings = {**_program_settings(changes), **_credential_settings(stored.program, changes)}
        names = {"docker_repository", "docker_image", "docker_tag"}
        if names & changes.given().keys():
            image = self._image(shown)
            if changes.private_token is not None:
                _check_credentials(image, changes)
            settings |= _image_settings(image, shown)
            _check_ports(image, settings.get("ports", stored.program.ports))
        program = attrs.evolve(stored.program, version=shown.name, **settings)
        missing = stored.missing
        if changes.envs is not None:
            missing &= {_TOKEN}
        if changes.private_token is not None:
            missing -= {_TOKEN}
        new = StoredVersion(shown, program, missing=missing)
        in_order = [new if version is stored else version for version in owner.versions.values()]
        owner.versions = {version.shown.name: version for version in in_order}
        return shown

    def container_image(
        self, application: str, name: str | None, wanted: VersionChanges
    ) -> tuple[str, Credentials | None] | None:
        """Returns what a call would have a container engine pull; None for a program.

        Args:
            application: name of the application.
            name: name of the version that the call changes; None if it creates one.
            wanted: the request.

        Raises:
            NotFound: the application or the version does not exist.
            ImageUnavailable: the settings have no program for the image.
        """
        stored = None if name is None else self.find_version(application, name)
        shown = _changed(_DEFAULTS if stored is None else stored.shown, wanted)
        source = self._image(shown)
        image = _image_settings(source, shown)["image"]
        if image is None:
            return None
        given = _credential_settings(source if stored is None else stored.program, wanted)
        return image, credentials_of(given["private_username"], given["private_token"])

    def delete_version(self, application: str, name: str) -> None:
        """Deletes a version; what was deployed runs on.

        Raises:
            NotFound: the application or the version does not exist.
        """
        self.find_version(application, name)
        del self.find(application).versions[name]

    def _image(self, shown: models.ApplicationVersion) -> Image | Application:
        """Returns what the image of a version stands for.

        Raises:
            ImageUnavailable: nothing.
        """
        names = _image_names(shown)
        if names[0] in self.deleted_images:
            raise ImageUnavailable(f"Unable to pull image {names[0]}: its tag was deleted")
        own = {
            _image_names(version.shown)[0]: version.program
            for stored in self.applications.values()
            for version in stored.versions.values()
        }
        known: dict[str, Image | Application] = {
            **own,
            **{image.image: image for image in self.images},
        }
        for name in names:
            if name in known:
                return known[name]
        has_other_tags = any(name.startswith(f"{names[1]}:") for name in known)
        missing = f"tag {shown.docker_tag} of it" if has_other_tags else "image of that name"
        raise ImageUnavailable(
            f"Unable to pull image {names[0]}: there is no {missing} here. Add a table"
            f' [[images]] with image = "{names[1]}" and argv to the settings of the emulator'
        )


def _image_names(shown: models.ApplicationVersion) -> tuple[str, str]:
    """Returns the name of a version's image with its tag, and without it."""
    name = f"{shown.docker_repository}/{shown.docker_image}"
    return f"{name}:{shown.docker_tag}", name


def _changed(
    shown: models.ApplicationVersion, changes: VersionChanges
) -> models.ApplicationVersion:
    """Returns a version with changes, as the API shows it: without secrets."""
    values = changes.given()
    for secret in {"private_username", "private_token"} & values.keys():
        values[secret] = models.SET_AND_ENCRYPTED
    if changes.ports is not None:
        values["ports"] = tuple(_shown_port(port, port.port) for port in changes.ports)
    if changes.envs is not None:
        values["envs"] = tuple(
            models.VersionVariable(
                key=variable.key,
                value=models.SET_AND_ENCRYPTED if variable.is_hidden else variable.value,
                is_hidden=variable.is_hidden,
            )
            for variable in changes.envs
        )
    return attrs.evolve(shown, **values, last_updated=datetime.now(UTC))


def _program_settings(source: VersionChanges | models.ApplicationVersion) -> dict[str, Any]:
    """Returns the settings of a program that a request, or what is shown, gives it."""
    settings = {
        name: getattr(source, name)
        for name in _PROGRAM_SETTINGS
        if getattr(source, name) is not None
    }
    if isinstance(source, VersionChanges):
        if source.ports is not None:
            settings["ports"] = tuple(map(_app_port, source.ports))
        if source.envs is not None:
            check_variables(variable.key for variable in source.envs)
            for name, is_hidden in (("environment", False), ("hidden_environment", True)):
                settings[name] = {
                    variable.key: variable.value
                    for variable in source.envs
                    if variable.is_hidden is is_hidden
                }
    return settings


def _app_port(port: VersionPortRequest) -> AppPort:
    protocol = port.protocol.upper()
    return AppPort(
        name=port.name or str(port.port),
        protocol=_OTHER_SPELLINGS.get(protocol, protocol),
        to_check=port.to_check,
        tls_upgrade=port.tls_upgrade,
        number=port.port or None,
    )


def credentials_of(username: str | None, token: str | None) -> Credentials | None:
    """Returns the credentials for a registry; None for a public one."""
    if username is None or token is None:
        return None
    return Credentials(username=username, token=token)


def _image_settings(
    source: Image | Application, shown: models.ApplicationVersion
) -> dict[str, Any]:
    """Returns the settings of a program that its image gives it."""
    names = ("argv", "directory", "memory_limit_mb", "cpu_limit_seconds", "open_files_limit")
    settings = {name: getattr(source, name) for name in (*names, "sandbox")}
    settings["image"] = _image_names(shown)[0] if source.runs_image else None
    return settings


def _credential_settings(
    source: Image | Application, wanted: VersionChanges
) -> dict[str, str | None]:
    """Returns the settings for the registry of a container's image; a program needs none."""
    names = (_USERNAME, _TOKEN)
    if not source.runs_image:
        return dict.fromkeys(names)
    return {name: getattr(wanted, name) or getattr(source, name) for name in names}


def _check_credentials(image: Image | Application, wanted: VersionChanges) -> None:
    """Checks that a version has the credentials that the image of a program needs."""
    if isinstance(image, Application) or image.private_token is None or image.runs_image:
        return
    given = (wanted.private_username or "", wanted.private_token or "")
    needed = (image.private_username or "", image.private_token)
    if given == needed:
        return
    if wanted.verify_image:
        raise BadRequest("Unable to login with the given credentials")
    raise ImageUnavailable(f"Unable to pull image {image.image}: these credentials are refused")


def _check_ports(image: Image | Application, ports: Iterable[AppPort]) -> None:
    missing = set(port_names(image.argv)) - {port.name for port in ports}
    if missing:
        raise ImageUnavailable(
            f"The version has no port named {', '.join(sorted(missing))}, which argv of its image"
            " needs (table [[images]] of the settings of the emulator)"
        )


def shown_protocol(protocol: str) -> str:
    """Returns a protocol as the API shows it: `Websocket` where `WS` was written."""
    return "Websocket" if protocol.upper() == "WS" else protocol


def _shown_port(port: VersionPortRequest | AppPort, number: int) -> models.VersionPort:
    return models.VersionPort(
        port=number,
        protocol=shown_protocol(port.protocol),
        to_check=port.to_check,
        tls_upgrade=port.tls_upgrade,
        name=port.name,
    )


def _image_part(name: str) -> str:
    return re.sub("[^a-z0-9._-]+", "-", name.lower())


def _image_of(application: Application) -> tuple[str, str, str]:
    """Returns registry, name and tag of an application's image."""
    if application.image is None:
        return _REPOSITORY, _image_part(application.name), _image_part(application.version)
    registry, _, name = full_name(application.image).partition("/")
    name, at, digest = name.partition("@")
    name, _, tag = name.partition(":")
    return registry, name, f"{tag}{at}{digest}" or "latest"


def _described(application: Application, now: datetime) -> models.ApplicationVersion:
    """Returns a version of the settings as the API shows it, with values that the API allows."""
    variables: Mapping[bool, Mapping[str, str]] = {
        False: application.environment,
        True: dict.fromkeys(application.hidden_environment, models.SET_AND_ENCRYPTED),
    }
    registry, image, tag = _image_of(application)
    is_private = application.private_token is not None
    return attrs.evolve(
        _DEFAULTS,
        name=application.version,
        is_active=application.is_active,
        docker_repository=registry,
        docker_image=image,
        docker_tag=tag,
        private_username=models.SET_AND_ENCRYPTED if is_private else None,
        private_token=models.SET_AND_ENCRYPTED if is_private else None,
        req_cpu=max(_LEAST_UNITS, application.cpu_units),
        req_memory=max(_LEAST_UNITS, application.memory_mb),
        time_to_deploy=max(_LEAST_TIME_TO_DEPLOY, math.ceil(application.time_to_deploy)),
        max_duration=math.ceil(application.max_duration),
        restart_policy=application.restart_policy,
        termination_grace_period_seconds=max(
            _LEAST_GRACE, math.ceil(application.termination_grace_period_seconds)
        ),
        ports=tuple(_shown_port(port, port.number or 0) for port in application.ports),
        envs=tuple(
            models.VersionVariable(key=key, value=value, is_hidden=is_hidden)
            for is_hidden, values in variables.items()
            for key, value in values.items()
        ),
        create_time=now,
        last_updated=now,
    )
