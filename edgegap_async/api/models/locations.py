"""Places where game servers run."""

from __future__ import annotations

import attrs

from .response import ApiResponse, Model, Pagination


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LocationTag(Model):
    """A property of a location, in lists that were requested with `tags=True`."""

    key: str | None = None
    """The name of the property."""
    value: str | None = None
    """The value of the property."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Location(Model):
    """A place where game servers run."""

    city: str | None = None
    """The name of the city."""
    country: str | None = None
    """The name of the country."""
    continent: str | None = None
    """The name of the continent."""
    administrative_division: str | None = None
    """The state, province or region."""
    timezone: str | None = None
    """The time zone, such as `America/New_York`."""
    latitude: float | None = None
    """Degrees north, -90 to 90."""
    longitude: float | None = None
    """Degrees east, -180 to 180."""
    type: str | None = None
    """The kind of location, such as `standard`; only in lists of locations, until 2026."""
    tags: tuple[LocationTag, ...] = ()
    """The properties of the location; only in lists that were requested with `tags=True`."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LocationPage(ApiResponse):
    """The locations where game servers can run now."""

    locations: tuple[Location, ...] = ()
    """The locations of this answer."""
    messages: tuple[str, ...] = ()
    """Remarks of the API about the locations."""
    total_count: int | None = None
    """How many locations all pages have together; None before 2026, when all were on one page."""
    pagination: Pagination | None = None
    """The position of this page; None before 2026."""
