"""The calls about the locations where servers can run."""

from __future__ import annotations

from collections.abc import Hashable

from edgegap_async.api.models import Location, LocationPage
from edgegap_async.api.operations import LIST_LOCATIONS
from edgegap_async.api.resources.locations import LIST_BEACONS, BeaconPage, LocationBeacon
from edgegap_async.api.validation import check_kind
from edgegap_async.errors import InvalidRequest

from .listing import Listing
from .resource import Resource


class Locations(Resource):
    """Lists the locations where servers can run, and their beacons."""

    def list(
        self,
        *,
        application: str | None = None,
        version: str | None = None,
        type: str | None = None,
        tags: bool | None = None,
        limit: int | None = None,
    ) -> Listing[Location, LocationPage]:
        """Lists the locations where servers can run now.

        Args:
            application: together with `version`, only locations with room for it; None for all.
            version: as `application`.
            type: only locations of a type, such as `standard`; None for all.
            tags: True to include the tags of the locations; None for the API's default.
            limit: locations of one page, 1 or more; None for the API's default.

        Raises:
            BadRequest: the application or version does not exist.
        """
        check_kind("tags", tags, bool)
        if (application is None) is not (version is None):
            raise InvalidRequest("application and version go together: pass both or neither")
        return Listing(
            self._call,
            LIST_LOCATIONS,
            lambda page: page.locations,
            _place,
            query={"app": application, "version": version, "type": type, "tags": tags},
            limit=limit,
            names_first_page=False,
        )

    def beacons(self, *, limit: int | None = None) -> Listing[LocationBeacon, BeaconPage]:
        """Lists the beacons: servers that answer pings, near which game servers can run.

        `nearest` measures which one is nearest.

        Args:
            limit: beacons of one page, 1 or more; None for the API's default.
        """
        # Its pages do not say whether another one follows: one without new beacons is the last.
        return Listing(
            self._call,
            LIST_BEACONS,
            lambda page: page.locations,
            _address,
            limit=limit,
            has_next=lambda page: bool(page.locations),
        )


def _address(beacon: LocationBeacon) -> Hashable:
    place = beacon.location and _place(beacon.location)
    return beacon.host, beacon.fqdn, beacon.udp_port, beacon.tcp_port, place


def _place(location: Location) -> Hashable:
    """Returns what tells a location apart: the API gives it no id."""
    return location.city, location.country, location.latitude, location.longitude, location.type
