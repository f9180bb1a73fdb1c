"""The calls about locations."""

from __future__ import annotations

import attrs

from edgegap_async.api.models import LocationPage, LocationTag
from edgegap_async.errors import BadRequest

from .cloud_state import CloudState, Reply
from .locations import CITIES


class LocationCalls(CloudState):
    """The calls about locations."""

    async def list_locations(
        self,
        *,
        app: str | None = None,
        version: str | None = None,
        type: str | None = None,
        tags: str | None = None,
    ) -> Reply:
        """Returns the cities. Each of them runs every application."""
        known = {name for pair in self._applications for name in (pair, (pair[0], None))}
        if app is not None and (app, version) not in known:
            raise BadRequest("Invalid Application or Application Version")
        labels = (LocationTag(key="emulated", value="true"),) if tags == "true" else ()
        return 200, LocationPage(
            locations=tuple(
                attrs.evolve(city, type="standard", tags=labels)
                for city in CITIES.values()
                if type in {None, "standard"}
            ),
        )
