"""The calls about applications."""

from __future__ import annotations

from edgegap_async.api.models.applications import Application, ApplicationPage
from edgegap_async.api.newer_operations import GET_APPLICATION, LIST_APPLICATIONS

from .listing import Listing
from .resource import Resource


class Applications(Resource):
    """Lists and reads applications, the names under which versions can be deployed."""

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
