"""The calls about applications."""

from __future__ import annotations

from edgegap_async.api.resources.applications import (
    BLANK_PICTURE,
    CREATE_APPLICATION,
    DELETE_APPLICATION,
    GET_APPLICATION,
    LIST_APPLICATIONS,
    UPDATE_APPLICATION,
    Application,
    ApplicationChanges,
    ApplicationPage,
    ApplicationRequest,
)

from .listing import Listing
from .resource import Resource


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
