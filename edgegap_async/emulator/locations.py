"""Where game servers can run, where players are, and which city is nearest to them.

The cities are real; the cloud has its own. A player's address is located offline: first by the
networks of the settings, then by its country (package iptocc) and that country's centre of
population. Private and loopback addresses, of which nothing is known, are in Montreal. The nearest
city has the smallest sum of distances to all players.

`countries.json` is made from GeoNames (https://www.geonames.org), licensed under CC BY 4.0: the
mean of a country's cities, weighted by population, as [latitude, longitude].
"""

from __future__ import annotations

import functools
import ipaddress
import json
import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any, Final, TypeAlias

from edgegap_async.api.models import Location
from edgegap_async.api.requests import GeoCoordinates, User
from edgegap_async.api.validation import check_kind
from edgegap_async.errors import InvalidRequest

Point: TypeAlias = tuple[float, float]
"""Degrees north, degrees east."""

_EARTH_RADIUS_KM: Final = 6371.0
_MONTREAL: Final[Point] = (45.508888, -73.561668)


def _cities() -> Mapping[str, Location]:
    table = """
    Montreal      | Canada         | North America | Quebec                | Eastern Time         | 45.508888 | -73.561668
    Toronto       | Canada         | North America | Ontario               | Eastern Time         |  43.65107 |  -79.34702
    New York      | United States  | North America | New York              | Eastern Time         |  40.71278 |  -74.00594
    Miami         | United States  | North America | Florida               | Eastern Time         |  25.76168 |  -80.19179
    Chicago       | United States  | North America | Illinois              | Central Time         |  41.87811 |  -87.62980
    Dallas        | United States  | North America | Texas                 | Central Time         |  32.77666 |  -96.79699
    Denver        | United States  | North America | Colorado              | Mountain Time        |  39.73924 | -104.99025
    Los Angeles   | United States  | North America | California            | Pacific Time         |  34.05223 | -118.24368
    Seattle       | United States  | North America | Washington            | Pacific Time         |  47.60621 | -122.33207
    São Paulo     | Brazil         | South America | São Paulo             | Brasilia Time        | -23.55052 |  -46.63331
    Santiago      | Chile          | South America | Santiago Metropolitan | Chile Time           | -33.44889 |  -70.66927
    London        | United Kingdom | Europe        | England               | Greenwich Mean Time  |  51.50735 |   -0.12776
    Paris         | France         | Europe        | Île-de-France         | Central European Time |  48.85661 |    2.35222
    Frankfurt     | Germany        | Europe        | Hesse                 | Central European Time |  50.11092 |    8.68213
    Madrid        | Spain          | Europe        | Madrid                | Central European Time |  40.41678 |   -3.70379
    Stockholm     | Sweden         | Europe        | Stockholm             | Central European Time |  59.32932 |   18.06858
    Warsaw        | Poland         | Europe        | Masovia               | Central European Time |  52.22968 |   21.01223
    Istanbul      | Turkey         | Europe        | Istanbul              | Turkey Time          |  41.00824 |   28.97836
    Dubai         | United Arab Emirates | Asia    | Dubai                 | Gulf Time            |  25.20485 |   55.27078
    Mumbai        | India          | Asia          | Maharashtra           | India Time           |  19.07598 |   72.87766
    Singapore     | Singapore      | Asia          | Singapore             | Singapore Time       |   1.35208 |  103.81984
    Hong Kong     | Hong Kong      | Asia          | Hong Kong             | Hong Kong Time       |  22.31930 |  114.16936
    Seoul         | South Korea    | Asia          | Seoul                 | Korea Time           |  37.56654 |  126.97797
    Tokyo         | Japan          | Asia          | Tokyo                 | Japan Time           |  35.68949 |  139.69171
    Sydney        | Australia      | Oceania       | New South Wales       | Eastern Time         | -33.86882 |  151.20929
    Johannesburg  | South Africa   | Africa        | Gauteng               | South Africa Time    | -26.20410 |   28.04731
    """  # noqa: E501 - a table is read across
    names = ("city", "country", "continent", "administrative_division", "timezone")
    cities: dict[str, Location] = {}
    for line in table.strip().splitlines():
        *texts, north, east = map(str.strip, line.split("|"))
        place: dict[str, Any] = dict(zip(names, texts, strict=True))
        cities[texts[0]] = Location(**place, latitude=float(north), longitude=float(east))
    return cities


CITIES: Final[Mapping[str, Location]] = _cities()
"""The locations of deployments, by the city's name."""


@functools.cache
def _countries() -> Mapping[str, Point]:
    text = files(__package__ or __name__).joinpath("countries.json").read_text("utf-8")
    return {country: (north, east) for country, (north, east) in json.loads(text).items()}


def distance_km(one: Point, other: Point) -> float:
    """Returns the great-circle distance between two points, in kilometres."""
    north, east, other_north, other_east = map(math.radians, (*one, *other))
    across = (
        math.sin((other_north - north) / 2) ** 2
        + math.cos(north) * math.cos(other_north) * math.sin((other_east - east) / 2) ** 2
    )
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, across)))


def _point(location: Location) -> Point:
    return location.latitude or 0.0, location.longitude or 0.0


class LocationFinder:
    """Locates players, and finds the nearest city for them.

    Args:
        networks: the points of addresses by network, such as `{"10.0.0.0/8": (48.9, 2.4)}`; of
            several networks with an address, the narrowest one counts.

    Raises:
        InvalidRequest: a network or a point is not valid.
    """

    def __init__(self, networks: Mapping[str, Point] | None = None) -> None:
        self._networks: list[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, Point]] = []
        check_kind("player_locations", networks, Mapping)
        for text, point in (networks or {}).items():
            try:
                check_kind("a network", text, str)
                self._networks.append((ipaddress.ip_network(text), _checked(point)))
            except ValueError as problem:
                raise InvalidRequest(f"player_locations: {text!r}: {problem}") from None
        self._networks.sort(key=lambda item: item[0].prefixlen, reverse=True)

    def locate(self, user: User) -> Point:
        """Returns the point of a player; Montreal if nothing is known."""
        if isinstance(user, GeoCoordinates):
            return user.latitude, user.longitude
        return self.point_and_country(user.ip_address)[0] or _MONTREAL

    def point_and_country(self, text: str) -> tuple[Point | None, str | None]:
        """Returns the point and the country code of an IP address; None for what is not known."""
        address = ipaddress.ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        import iptocc  # of the extra `emulator`

        country = iptocc.country_code(str(address)) or None
        for network, point in self._networks:
            if address in network:
                return point, country
        return _countries().get(country or ""), country

    def nearest(self, users: Iterable[User], cities: Iterable[Location] | None = None) -> Location:
        """Returns the city with the smallest sum of distances to the players.

        Args:
            users: the players.
            cities: the cities to choose from, at least one; None for all.
        """
        points = [self.locate(user) for user in users]
        return min(
            CITIES.values() if cities is None else cities,
            key=lambda city: math.fsum(distance_km(_point(city), point) for point in points),
        )


def _checked(point: Point) -> Point:
    if not isinstance(point, tuple | list) or len(point) != 2:  # noqa: PLR2004 - north, east
        raise InvalidRequest(f"a point must be (latitude, longitude) in degrees, not {point!r}")
    place = GeoCoordinates(*point)
    return place.latitude, place.longitude
