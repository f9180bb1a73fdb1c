"""The calls about endpoint storages."""

from __future__ import annotations

from edgegap_async.api.resources.endpoint_storages import (
    CREATE_ENDPOINT_STORAGE,
    DELETE_ENDPOINT_STORAGE,
    GET_ENDPOINT_STORAGE,
    LIST_ENDPOINT_STORAGES,
    UPDATE_ENDPOINT_STORAGE,
    EndpointStorage,
    EndpointStorageChanges,
    EndpointStoragePage,
    EndpointStorageRequest,
    OutputFormat,
)

from .listing import Listing
from .resource import Resource


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
