"""Makes the shape of the land on the emulator's page: `emulator/page/assets/world.js`.

Reads `land-110m.json` of the npm package `world-atlas` (2.0.2), which is Natural Earth's land at
1:110,000,000 as TopoJSON; Natural Earth is in the public domain. Projects it by the Natural Earth
projection (Šavrič et al. 2011), leaves Antarctica out, and writes one SVG path of whole numbers.
`map.js` projects cities and players by the same formula. Only a change of the shape needs this
program; the file that it writes is in the repository.

    npm pack world-atlas@2.0.2 && tar xf world-atlas-2.0.2.tgz
    python benchmarks/world_path.py package/land-110m.json > world.js
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCALE = 365.0  # units of the drawing for one unit of the projection
CENTRE = (1000.0, 515.0)  # where 0°, 0° is in the drawing
SOUTH = -58.0  # degrees; land that ends further south is left out
LEAST_AREA = 12.0  # square units; smaller islands are left out


def projected(east: float, north: float) -> tuple[float, float]:
    """Returns the place of a point in the drawing."""
    x, y = math.radians(east), math.radians(north)
    y2 = y * y
    y4 = y2 * y2
    across = x * (0.8707 - 0.131979 * y2 + y4 * (-0.013791 + y4 * (0.003971 * y2 - 0.001529 * y4)))
    up = y * (1.007226 + y2 * (0.015085 + y4 * (-0.044475 + 0.028874 * y2 - 0.005916 * y4)))
    return CENTRE[0] + SCALE * across, CENTRE[1] - SCALE * up


def rings(topology: dict[str, Any]) -> Iterator[list[tuple[float, float]]]:
    """Yields the outlines as lists of (degrees east, degrees north)."""
    (scale_x, scale_y), (zero_x, zero_y) = (
        topology["transform"][key] for key in ("scale", "translate")
    )
    arcs = []
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for step_x, step_y in arc:
            x, y = x + step_x, y + step_y
            points.append((x * scale_x + zero_x, y * scale_y + zero_y))
        arcs.append(points)
    for geometry in topology["objects"]["land"]["geometries"]:
        polygons = geometry["arcs"] if geometry["type"] == "MultiPolygon" else [geometry["arcs"]]
        for polygon in polygons:
            for ring in polygon:
                outline: list[tuple[float, float]] = []
                for index in ring:
                    points = arcs[index] if index >= 0 else arcs[~index][::-1]
                    outline += points[1:] if outline else points
                yield outline


def halves(ring: list[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Cuts an outline that crosses the 180th meridian there. Returns its parts."""
    turned = list[tuple[float, float]]()
    for east, north in ring:
        while turned and east - turned[-1][0] > 180:
            east -= 360  # noqa: PLW2901 - the same point, one turn on
        while turned and east - turned[-1][0] < -180:
            east += 360  # noqa: PLW2901
        turned.append((east, north))
    parts = []
    for turn in (-360.0, 0.0, 360.0):
        part = [(east + turn, north) for east, north in turned]
        part = _clipped(_clipped(part, 180.0, 1), -180.0, -1)
        if part:
            parts.append(part)
    return parts


def _clipped(
    ring: list[tuple[float, float]], meridian: float, side: int
) -> list[tuple[float, float]]:
    """Returns the part of an outline west (1) or east (-1) of a meridian."""
    kept = list[tuple[float, float]]()
    for (east, north), (next_east, next_north) in zip(ring, [*ring[1:], *ring[:1]], strict=True):
        is_in, is_next_in = (side * one <= side * meridian for one in (east, next_east))
        if is_in:
            kept.append((east, north))
        if is_in != is_next_in:
            share = (meridian - east) / (next_east - east)
            kept.append((meridian, north + share * (next_north - north)))
    return kept


def area(points: list[tuple[int, int]]) -> float:
    """Returns the area of an outline."""
    pairs = zip(points, [*points[1:], points[0]], strict=True)
    return abs(sum(x * other_y - other_x * y for (x, y), (other_x, other_y) in pairs)) / 2


def path(topology: dict[str, Any]) -> str:
    """Returns the land as the text of an SVG path, in relative steps."""
    pieces = []
    for ring in itertools.chain.from_iterable(map(halves, rings(topology))):
        if min(north for _, north in ring) < SOUTH:
            continue
        points = [(round(x), round(y)) for x, y in (projected(*point) for point in ring)]
        points = [point for index, point in enumerate(points) if point != points[index - 1]]
        if len(points) < 3 or area(points) < LEAST_AREA:
            continue
        (x, y), steps = points[0], []
        for next_x, next_y in points[1:]:
            steps.append(f"{next_x - x},{next_y - y}")
            x, y = next_x, next_y
        pieces.append(f"M{points[0][0]},{points[0][1]}l{' '.join(steps)}z")
    return "".join(pieces).replace(",-", "-").replace(" -", "-")


def main() -> None:
    topology = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    print("// The land of the world: Natural Earth, 1:110,000,000, in the public domain.")
    print("// Made by benchmarks/world_path.py; map.js has the projection.")
    print(f'export const LAND =\n  "{path(topology)}";')


if __name__ == "__main__":
    main()
