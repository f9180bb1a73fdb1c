"""Locations of players, the nearest city, and the list of cities."""

from __future__ import annotations

import pytest
from emulated_cloud import (
    ARENA,
    a_cloud,
    answer,
)

from edgegap_async import GeoCoordinates, IpAddress
from edgegap_async.emulator.locations import CITIES, LocationFinder, distance_km
from edgegap_async.errors import BadRequest, InvalidRequest

MONTREAL = (45.508888, -73.561668)


@pytest.mark.parametrize(
    ("one", "other", "kilometres"),
    [
        (MONTREAL, MONTREAL, 0),
        ((51.50735, -0.12776), (48.85661, 2.35222), 344),  # London to Paris
        ((0.0, 179.0), (0.0, -179.0), 222),  # over the date line
        ((90.0, 0.0), (-90.0, 0.0), 20015),
    ],
)
def test_distances_are_along_great_circles(
    one: tuple[float, float], other: tuple[float, float], kilometres: float
) -> None:
    assert distance_km(one, other) == pytest.approx(kilometres, rel=0.01)


def test_every_city_is_best_for_a_player_in_it() -> None:
    places = LocationFinder()

    best = {
        name: places.nearest([GeoCoordinates(city.latitude or 0, city.longitude or 0)]).city
        for name, city in CITIES.items()
    }

    assert best == {name: name for name in CITIES}
    assert len(CITIES) >= 25


def test_the_best_city_is_near_to_all_players_together() -> None:
    in_london, in_new_york = GeoCoordinates(51.5, -0.1), GeoCoordinates(40.7, -74.0)

    assert LocationFinder().nearest([in_london, in_london, in_new_york]).city == "London"
    assert LocationFinder().nearest([in_new_york, in_new_york, in_london]).city == "New York"


@pytest.mark.parametrize(
    ("address", "city"),
    [
        ("75.28.35.192", "Chicago"),  # the United States, whose people live in Missouri on average
        ("90.0.0.1", "Paris"),
        ("::ffff:90.0.0.1", "Paris"),
        ("2001:4860:4860::8888", "Chicago"),
        ("127.0.0.1", "Montreal"),
        ("fe80::1", "Montreal"),
    ],
)
def test_an_address_is_placed_by_its_country(address: str, city: str) -> None:
    assert LocationFinder().nearest([IpAddress(address)]).city == city


def test_the_narrowest_network_of_the_settings_places_an_address() -> None:
    places = LocationFinder({"10.0.0.0/8": (48.9, 2.4), "10.1.0.0/16": (35.7, 139.7)})

    assert places.nearest([IpAddress("10.2.0.1")]).city == "Paris"
    assert places.nearest([IpAddress("10.1.0.1")]).city == "Tokyo"
    assert places.locate(IpAddress("2001:db8::1")) == pytest.approx(MONTREAL)


@pytest.mark.parametrize(
    ("networks", "complaint"),
    [({"10.0.0.1/8": (0, 0)}, "10.0.0.1/8"), ({"10.0.0.0/8": (100, 0)}, "latitude")],
)
def test_an_invalid_network_or_point_is_refused(
    networks: dict[str, tuple[float, float]], complaint: str
) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        LocationFinder(networks)


async def test_locations_have_type_and_if_asked_for_tags() -> None:
    async with a_cloud(ARENA) as cloud:
        plain = (await answer(cloud, "list_locations")).locations
        tagged = await answer(
            cloud, "list_locations", app="arena", version="v1", type="standard", tags="true"
        )
        none = (await answer(cloud, "list_locations", app="arena", type="other")).locations
        with pytest.raises(BadRequest):
            await cloud.list_locations(app="arena", version="v9")

    assert {location.type for location in plain} == {"standard"}
    assert {location.tags for location in plain} == {()}
    assert all(location.tags for location in tagged.locations)
    assert len(tagged.locations) == len(plain) >= 25
    assert none == ()
