"""The calls about applications and their versions: a container image, and how it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Unpack

import attrs

from edgegap_async.api.operations import Operation
from edgegap_async.api.resources.applications import (
    BLANK_PICTURE,
    CREATE_APPLICATION,
    CREATE_VERSION,
    DELETE_APPLICATION,
    DELETE_VERSION,
    GET_APPLICATION,
    GET_VERSION,
    LIST_APPLICATIONS,
    LIST_VERSIONS,
    SET_AND_ENCRYPTED,
    UPDATE_APPLICATION,
    UPDATE_VERSION,
    Application,
    ApplicationChanges,
    ApplicationPage,
    ApplicationRequest,
    ApplicationVersion,
    VersionChanges,
    VersionPage,
    VersionRequest,
    VersionSaved,
    VersionSettings,
)
from edgegap_async.api.values import HiddenText
from edgegap_async.errors import ImageUnavailable, InvalidRequest

from .resource import Listing, Resource

_CREDENTIALS: Final = ("private_username", "private_token")
_LEAST_TIME_TO_DEPLOY: Final = 15  # seconds; the API shows its default of 10, and refuses it
_NOT_COMPARED: Final = {*_CREDENTIALS, "ports", "envs"}  # the API shows them in another way


class Applications(Resource):
    """Lists, reads, creates, changes and deletes applications, the names of versions."""

    def list(self, *, limit: int | None = None) -> Listing[Application, ApplicationPage]:
        """Lists the applications of the organization.

        Args:
            limit: applications of one page, 1 or more; None for the API's default.

        Raises:
            Forbidden: the token may not list applications.
        """
        return Listing(
            self._call,
            LIST_APPLICATIONS,
            lambda page: page.applications,
            lambda application: application.name,
            limit=limit,
        )

    async def get(self, application: str) -> Application:
        """Returns an application.

        Raises:
            NotFound: there is no application of that name.
        """
        return await self._call(GET_APPLICATION, path={"application": application})

    async def create(
        self, name: str, *, is_active: bool = True, image: str = BLANK_PICTURE
    ) -> Application:
        """Creates an application without versions, and returns it.

        If the answer is lost, the client reads the application, and returns it if it is there.

        Args:
            name: its name, 3 to 64 characters.
            is_active: whether its versions can be deployed.
            image: a picture of it for the dashboard, in base64. The API needs one: the default is
                one transparent pixel.

        Raises:
            Conflict: there is an application of that name.
            BadRequest: the organization has as many applications as it may have.
            NoAnswer: the application may have been created.
        """
        body = ApplicationRequest(name=name, is_active=is_active, image=image)
        return await self._made(
            self._call(CREATE_APPLICATION, body=body),
            lambda: self.get(name),
            lambda found: found.is_active is is_active,
        )

    async def update(
        self,
        application: str,
        *,
        name: str | None = None,
        is_active: bool | None = None,
        image: str | None = None,
    ) -> Application:
        """Changes an application, and returns it. What was deployed before runs on.

        Args:
            application: name of the application.
            name: its new name, 3 to 64 characters; None to keep it.
            is_active: whether its versions can be deployed; None to keep it.
            image: another picture, in base64; None to keep it.

        Raises:
            NotFound: there is no application of that name.
            Conflict: there is an application of the new name.
            NoAnswer: the application may have been changed.
        """
        body = ApplicationChanges(name=name, is_active=is_active, image=image)
        return await self._call(UPDATE_APPLICATION, path={"application": application}, body=body)

    async def delete(self, application: str) -> None:
        """Deletes an application **and all of its versions**. What was deployed runs on.

        Raises:
            NotFound: there is no application of that name.
        """
        await self._call(DELETE_APPLICATION, path={"application": application})


class Versions(Resource):
    """Lists, reads, creates, copies, changes and deletes versions of applications.

    The API shows a version's credentials for a private registry, and its hidden variables, as the
    text `This value is set and encrypted`. No method sends that text as a password: pass the
    credentials again.
    """

    def list(
        self, application: str, *, limit: int | None = None
    ) -> Listing[ApplicationVersion, VersionPage]:
        """Lists the versions of an application.

        Args:
            application: name of the application.
            limit: versions of one page, 1 or more; None for the API's default.

        Raises:
            NotFound: the application does not exist.
        """
        return Listing(
            self._call,
            LIST_VERSIONS,
            lambda page: page.versions,
            lambda version: version.name,
            path={"application": application},
            limit=limit,
        )

    async def get(self, application: str, version: str) -> ApplicationVersion:
        """Returns a version of an application, without its secrets.

        Raises:
            NotFound: the application or the version does not exist.
        """
        return await self._call(GET_VERSION, path={"application": application, "version": version})

    async def create(
        self,
        application: str,
        name: str,
        *,
        docker_repository: str,
        docker_image: str,
        docker_tag: str,
        req_cpu: int,
        req_memory: int,
        **settings: Unpack[VersionSettings],
    ) -> ApplicationVersion:
        """Creates a version, and returns it.

        If the answer is lost, the client reads the version: it returns it if it has the same
        settings, and otherwise raises the error of the lost answer. To repeat the call does no
        harm then: a version that exists is a `Conflict`.

        Args:
            application: name of the application.
            name: name of the version, 1 to 64 characters; often a time or the number of a build.
            docker_repository: the host name of the image's registry, such as `docker.io`.
            docker_image: the name of the image, in lower case.
            docker_tag: the tag of the image. Locations keep an image by its tag, so that a tag such
                as `latest` must not be pushed again.
            req_cpu: CPU units, 100 or more; 1024 are one virtual CPU.
            req_memory: memory in MB, 100 or more; twice `req_cpu` at most.
            settings: ports, variables, credentials and limits, as in `VersionSettings`.

        Raises:
            ImageUnavailable: the API cannot pull the image; `suspects` says why.
            Conflict: the application has a version of that name.
            NotFound: the application does not exist.
            NoAnswer: the version may have been created.
        """
        settings = _hidden(settings)
        body = VersionRequest(
            name=name,
            docker_repository=docker_repository,
            docker_image=docker_image,
            docker_tag=docker_tag,
            req_cpu=req_cpu,
            req_memory=req_memory,
            **settings,
        )
        return await self._create(application, body)

    async def copy(
        self,
        application: str,
        version: str,
        name: str,
        *,
        docker_repository: str | None = None,
        docker_image: str | None = None,
        docker_tag: str | None = None,
        req_cpu: int | None = None,
        req_memory: int | None = None,
        **changes: Unpack[VersionSettings],
    ) -> ApplicationVersion:
        """Creates a version that is like another one but for some changes, and returns it.

        ::

            await client.versions.copy("arena", "build-7", "build-8", docker_tag="build-8")

        Args:
            application: name of the application.
            version: name of the version that is copied.
            name: name of the new version, 1 to 64 characters.
            docker_repository: another registry; None for that of the version.
            docker_image: another image; None for that of the version.
            docker_tag: another tag; None for that of the version.
            req_cpu: other CPU units, as for `create`; None for those of the version.
            req_memory: other memory in MB, as for `create`; None for that of the version.
            changes: other settings, as in `VersionSettings`. `ports` and `envs` replace all ports
                and all variables of the version.

        Raises:
            InvalidRequest: the version has secrets that the API does not show: pass
                `private_username` and `private_token`, or `envs`, in `changes`.
            ImageUnavailable: the API cannot pull the image; `suspects` says why.
            Conflict: the application has a version of the new name.
            NotFound: the application or the version does not exist.
            NoAnswer: the version may have been created, as for `create`.
        """
        changes = _hidden(changes)
        copied = await self.get(application, version)
        _check_shown(f"{application} {version}", copied, changes)
        settings: dict[str, Any] = {
            field.name: None if (value := getattr(copied, field.name)) == "" else value
            for field in attrs.fields(VersionRequest)
        }
        if (copied.time_to_deploy or 0) < _LEAST_TIME_TO_DEPLOY:
            settings["time_to_deploy"] = None
        given = {
            "docker_repository": docker_repository,
            "docker_image": docker_image,
            "docker_tag": docker_tag,
            "req_cpu": req_cpu,
            "req_memory": req_memory,
        }
        settings |= {key: value for key, value in given.items() if value is not None}
        settings |= {**changes, "name": name}
        return await self._create(application, VersionRequest(**settings))

    async def update(
        self,
        application: str,
        version: str,
        *,
        name: str | None = None,
        docker_repository: str | None = None,
        docker_image: str | None = None,
        docker_tag: str | None = None,
        **settings: Unpack[VersionSettings],
    ) -> ApplicationVersion:
        """Changes a version, and returns it. What was deployed before runs on as it is.

        The API cannot change CPU and memory of a version: copy it.

        Args:
            application: name of the application.
            version: name of the version.
            name: its new name, 1 to 64 characters; None to keep it.
            docker_repository: another registry; None to keep it.
            docker_image: another image; None to keep it.
            docker_tag: another tag; None to keep it.
            settings: other settings, as in `VersionSettings`; what is absent or None stays as it
                is. `ports` and `envs` replace all ports and all variables of the version.

        Raises:
            ImageUnavailable: the API cannot pull the image; `suspects` says why.
            NotFound: the application or the version does not exist.
            BadRequest: the application has a version of the new name.
            NoAnswer: the version may have been changed.
        """
        settings = _hidden(settings)
        if fixed := {"req_cpu", "req_memory"} & settings.keys():
            raise InvalidRequest(
                f"the API cannot change {' and '.join(sorted(fixed))} of a version: create another"
                " one with versions.copy"
            )
        body = VersionChanges(
            name=name,
            docker_repository=docker_repository,
            docker_image=docker_image,
            docker_tag=docker_tag,
            **settings,
        )
        path = {"application": application, "version": version}
        saved = await self._save(UPDATE_VERSION, path, body)
        return saved.version or await self.get(application, name or version)

    async def delete(self, application: str, version: str) -> None:
        """Deletes a version. What was deployed runs on.

        Raises:
            NotFound: the application or the version does not exist.
        """
        await self._call(DELETE_VERSION, path={"application": application, "version": version})

    async def _create(self, application: str, body: VersionRequest) -> ApplicationVersion:
        async def create() -> ApplicationVersion:
            saved = await self._save(CREATE_VERSION, {"application": application}, body)
            return saved.version or await self.get(application, body.name)

        return await self._made(
            create(), lambda: self.get(application, body.name), lambda found: _is_made(found, body)
        )

    async def _save(
        self, operation: Operation[VersionSaved], path: Mapping[str, str], body: VersionChanges
    ) -> VersionSaved:
        _check_secrets(body)
        try:
            return await self._call(operation, path=path, body=body)
        except ImageUnavailable as error:
            error.image = _image_of(body)
            raise


def _hidden(settings: VersionSettings) -> VersionSettings:
    """Returns the settings with secrets that a traceback with local variables does not show."""
    hidden = settings.copy()
    token: object = settings.get("private_token")
    envs: Any = settings.get("envs")
    if isinstance(token, str):
        hidden["private_token"] = HiddenText(token)
    if isinstance(envs, Mapping):
        hidden["envs"] = {
            key: HiddenText(value) if isinstance(value, str) else value
            for key, value in envs.items()
        }
    return hidden


def _check_secrets(body: VersionChanges) -> None:
    """Checks that no secret is the text that the API shows in place of one."""
    values = {name: getattr(body, name) for name in _CREDENTIALS}
    values |= {f"the variable {one.key}": HiddenText(one.value) for one in body.envs or ()}
    if shown := [name for name, value in values.items() if value == SET_AND_ENCRYPTED]:
        raise InvalidRequest(
            f"{' and '.join(shown)}: {SET_AND_ENCRYPTED!r} is what the API shows in place of a"
            " secret, and would be stored as the secret: pass the secret itself"
        )


def _check_shown(what: str, copied: ApplicationVersion, changes: VersionSettings) -> None:
    """Checks that the program passes again what the API does not show."""
    hidden = [
        name
        for name in _CREDENTIALS
        if getattr(copied, name) == SET_AND_ENCRYPTED and name not in changes
    ]
    if hidden:
        raise InvalidRequest(
            f"{what} has credentials for its registry, which the API does not show: pass"
            f" {' and '.join(hidden)} again, or None for a public image"
        )
    variables = [one.key or "" for one in copied.envs if one.value == SET_AND_ENCRYPTED]
    if variables and "envs" not in changes:
        raise InvalidRequest(
            f"{what} has hidden variables, which the API does not show: pass envs with all"
            f" variables again; {', '.join(variables)} {'is' if len(variables) == 1 else 'are'}"
            " hidden"
        )


def _is_made(found: ApplicationVersion, body: VersionRequest) -> bool:
    """Returns whether a version is what a request has asked for, as far as the API shows it."""
    names = {field.name for field in attrs.fields(VersionRequest)} - _NOT_COMPARED
    wanted = {name: value for name in names if (value := getattr(body, name)) is not None}
    return all(getattr(found, name) == value for name, value in wanted.items())


def _image_of(body: VersionChanges) -> str | None:
    parts = (body.docker_repository, body.docker_image)
    image = "/".join(part for part in parts if part)
    return f"{image}{f':{body.docker_tag}' if body.docker_tag else ''}" or None
