"""The calls about endpoint storages and their pull profiles."""

from __future__ import annotations

from edgegap_async.api.resources.endpoint_storages import (
    CREATE_ENDPOINT_STORAGE,
    CREATE_PULL_PROFILE,
    DELETE_ENDPOINT_STORAGE,
    DELETE_PULL_PROFILE,
    GET_ENDPOINT_STORAGE,
    GET_PULL_PROFILE,
    LINK_PULL_PROFILE,
    LIST_ENDPOINT_STORAGES,
    LIST_PULL_PROFILES,
    UNLINK_PULL_PROFILE,
    UPDATE_ENDPOINT_STORAGE,
    UPDATE_PULL_PROFILE,
    EndpointStorage,
    EndpointStorageChanges,
    EndpointStoragePage,
    EndpointStorageRequest,
    OutputFormat,
    PullProfile,
    PullProfileChanges,
    PullProfileLink,
    PullProfilePage,
    PullProfileRequest,
    SourceType,
)

from .resource import Listing, Resource


class EndpointStorages(Resource):
    """Creates, reads, changes and deletes endpoint storages: S3 buckets of yours.

    A version with an endpoint storage keeps its logs there. No answer has a secret key.
    """

    def list(self, *, limit: int | None = None) -> Listing[EndpointStorage, EndpointStoragePage]:
        """Lists the endpoint storages of the organization.

        Args:
            limit: storages of one page, 1 or more; None for the API's default.
        """
        return Listing(
            self._call,
            LIST_ENDPOINT_STORAGES,
            lambda page: page.endpoints,
            lambda storage: storage.name,
            limit=limit,
        )

    async def create(
        self,
        name: str,
        *,
        access_key_id: str,
        secret_access_key: str,
        endpoint: str,
        bucket: str,
        output_format: OutputFormat | None = None,
    ) -> EndpointStorage:
        """Creates an endpoint storage.

        Args:
            name: its name, which versions and stops refer to.
            access_key_id: the id of the access key.
            secret_access_key: the secret access key, which the API encrypts.
            endpoint: the URL of the provider with http or https, best without the bucket.
            bucket: the name of the bucket.
            output_format: how logs are written; None for the API's default, `TEXT`.

        Raises:
            BadRequest: the API does not accept a value, or the name is in use.
        """
        body = EndpointStorageRequest(
            name=name,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            endpoint=endpoint,
            bucket=bucket,
            output_format=output_format,
        )
        del secret_access_key  # a traceback that shows local variables must not show it
        return await self._call(CREATE_ENDPOINT_STORAGE, body=body)

    async def get(self, endpoint_name: str) -> EndpointStorage:
        """Returns an endpoint storage.

        Raises:
            NotFound: there is none of that name.
        """
        return await self._call(GET_ENDPOINT_STORAGE, path={"endpoint_name": endpoint_name})

    async def update(
        self,
        endpoint_name: str,
        *,
        name: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        endpoint: str | None = None,
        bucket: str | None = None,
        output_format: OutputFormat | None = None,
    ) -> EndpointStorage:
        """Changes an endpoint storage, and returns it as it is now. What is None stays as it is.

        Args:
            endpoint_name: the storage.
            name: its new name.
            access_key_id: as for `create`.
            secret_access_key: as for `create`.
            endpoint: as for `create`.
            bucket: as for `create`.
            output_format: as for `create`.

        Raises:
            NotFound: there is no storage of that name.
            BadRequest: the API does not accept a value, or the new name is in use.
        """
        body = EndpointStorageChanges(
            name=name,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            endpoint=endpoint,
            bucket=bucket,
            output_format=output_format,
        )
        del secret_access_key  # a traceback that shows local variables must not show it
        path = {"endpoint_name": endpoint_name}
        return await self._call(UPDATE_ENDPOINT_STORAGE, path=path, body=body)

    async def delete(self, endpoint_name: str) -> None:
        """Deletes an endpoint storage. Versions that have it keep no logs any more.

        Raises:
            NotFound: there is none of that name.
        """
        await self._call(DELETE_ENDPOINT_STORAGE, path={"endpoint_name": endpoint_name})


class PullProfiles(Resource):
    """Creates, reads, changes, deletes and links pull profiles.

    A pull profile copies a file or folder from an endpoint storage into each new container of the
    versions that are linked to it.
    """

    def list(
        self, endpoint_name: str, *, limit: int | None = None
    ) -> Listing[PullProfile, PullProfilePage]:
        """Lists the pull profiles of an endpoint storage.

        Args:
            endpoint_name: the storage.
            limit: profiles of one page, 1 or more; None for the API's default.

        Raises:
            NotFound: there is no such storage.
        """
        return Listing(
            self._call,
            LIST_PULL_PROFILES,
            lambda page: page.pull_profiles,
            lambda profile: profile.name,
            path={"endpoint_name": endpoint_name},
            limit=limit,
        )

    async def create(
        self,
        endpoint_name: str,
        name: str,
        *,
        source: str,
        source_type: SourceType,
        destination: str,
    ) -> PullProfile:
        """Creates a pull profile. It does nothing before `link`.

        Args:
            endpoint_name: the storage.
            name: the profile's name.
            source: the path in the bucket.
            source_type: `File` or `Folder`.
            destination: the folder in the container. The container's user must be able to write to
                it, and deployments fail for protected folders such as `/etc`.

        Raises:
            NotFound: there is no such storage.
            BadRequest: the API does not accept a value, or the name is in use.
        """
        body = PullProfileRequest(
            name=name, source=source, source_type=source_type, destination=destination
        )
        path = {"endpoint_name": endpoint_name}
        return await self._call(CREATE_PULL_PROFILE, path=path, body=body)

    async def get(self, endpoint_name: str, name: str) -> PullProfile:
        """Returns a pull profile.

        Raises:
            NotFound: the storage or the profile does not exist.
        """
        return await self._call(GET_PULL_PROFILE, path=_path(endpoint_name, name))

    async def update(
        self,
        endpoint_name: str,
        pull_profile_name: str,
        *,
        name: str | None = None,
        source: str | None = None,
        source_type: SourceType | None = None,
        destination: str | None = None,
    ) -> PullProfile:
        """Changes a pull profile, and returns it as it is now. What is None stays as it is.

        Args:
            endpoint_name: the storage.
            pull_profile_name: the profile.
            name: its new name.
            source: as for `create`.
            source_type: as for `create`.
            destination: as for `create`.

        Raises:
            NotFound: the storage or the profile does not exist.
            BadRequest: the API does not accept a value, or the new name is in use.
        """
        body = PullProfileChanges(
            name=name, source=source, source_type=source_type, destination=destination
        )
        path = _path(endpoint_name, pull_profile_name)
        return await self._call(UPDATE_PULL_PROFILE, path=path, body=body)

    async def delete(self, endpoint_name: str, name: str) -> None:
        """Deletes a pull profile. The versions that are linked to it get nothing any more.

        Raises:
            NotFound: the storage or the profile does not exist.
        """
        await self._call(DELETE_PULL_PROFILE, path=_path(endpoint_name, name))

    async def link(
        self, endpoint_name: str, name: str, application: str, version: str
    ) -> PullProfileLink:
        """Links a version to a pull profile: its new containers get what the profile names.

        Args:
            endpoint_name: the storage.
            name: the profile.
            application: the application.
            version: its version.

        Raises:
            NotFound: one of them does not exist.
        """
        path = _path(endpoint_name, name, application, version)
        return await self._call(LINK_PULL_PROFILE, path=path)

    async def unlink(self, endpoint_name: str, name: str, application: str, version: str) -> None:
        """Takes a version off a pull profile.

        Args:
            endpoint_name: the storage.
            name: the profile.
            application: the application.
            version: its version.

        Raises:
            NotFound: one of them does not exist, or the two are not linked.
        """
        path = _path(endpoint_name, name, application, version)
        await self._call(UNLINK_PULL_PROFILE, path=path)


def _path(endpoint_name: str, name: str, *version: str) -> dict[str, str]:
    path = {"endpoint_name": endpoint_name, "pull_profile_name": name}
    return path | dict(zip(("app_name", "version_name"), version, strict=False))
