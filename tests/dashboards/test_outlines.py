"""What lies over the map: coasts as fine as the zoom, names of countries that do not cover one another, and the scale."""

from __future__ import annotations

import re

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from coverage_dashboards.outlines import country_names, outlines, scale_of
from coverage_dashboards.viewport import EDGE, latitude_of, longitude_of, mercator_x, mercator_y
from coverage_pipeline.geometry import outlines as geodata


def view(
    lon: float, lat: float, metres_a_pixel: float, width: int = 1000, height: int = 600
) -> tuple[tuple[float, float], tuple[float, float]]:
    x, y = float(mercator_x(lon)), float(mercator_y(lat))
    across, up = metres_a_pixel * width / 2, metres_a_pixel * height / 2
    return (x - across, x + across), (y - up, y + up)


def test_coasts_are_finer_the_closer_one_looks() -> None:
    """Around Naxos: the same kilometre of coast has more vertices on a closer map."""
    counts = []
    for metres in (3_000.0, 1_000.0, 300.0):
        x, y = outlines("coastlines", *view(25.5, 37.05, metres), 1000)
        lon, lat = longitude_of(x), latitude_of(y)
        near = (np.abs(lon - 25.5) < 0.4) & (np.abs(lat - 37.05) < 0.3)
        counts.append(int(near.sum()))
    assert counts[0] < counts[1] < counts[2]


def test_fine_coasts_are_the_same_coasts() -> None:
    """1:10m against 1:50m: nearly all of the coarse coast lies within 5 km of the fine one, and no line crosses the map."""
    fine, coarse = geodata.fine_coastlines(), geodata.coastlines()
    parts = shapely.get_parts(fine)
    west, south, east, north = shapely.bounds(parts).T
    assert west.min() >= -180
    assert east.max() <= 180
    assert south.min() >= -90
    assert north.max() <= 84
    steps = np.abs(np.diff(shapely.get_coordinates(parts), axis=0)).max(axis=1)
    _, number = shapely.get_coordinates(parts, return_index=True)
    assert steps[np.diff(number) == 0].max() < 5  # no seam at 180
    rng = np.random.default_rng(1)
    points = shapely.get_coordinates(coarse)
    points = points[np.abs(points[:, 1]) < 60]
    some = shapely.points(points[rng.integers(0, len(points), 2_000)])
    tree = shapely.STRtree(parts)
    _, apart = tree.query_nearest(some, return_distance=True, all_matches=False)
    assert np.mean(apart < 0.05) > 0.9  # what is left are shores of lakes, which the fine coasts lack


@given(lon=st.floats(-180, 180), lat=st.floats(-75, 75), metres=st.floats(50, 30_000))
def test_the_scale_is_true_where_it_says(lon: float, lat: float, metres: float) -> None:
    """An independent measure: the geodesic on the sphere that Web Mercator takes the ellipsoid for."""
    (x0, x1), ys = view(lon, lat, metres)
    scale = scale_of((x0, x1), ys, 1000)
    assert 40 <= scale.pixels <= 121
    told = re.fullmatch(r"([\d,]+) (km|m) \(at (\d+)° ([NS])\)", scale.words)
    assert told is not None
    length = float(told[1].replace(",", "")) * (1000 if told[2] == "km" else 1)
    middle = sum(ys) / 2
    at = float(latitude_of(middle))
    if abs(at) > 80:
        return
    assert abs(float(told[3]) - abs(at)) <= 0.5001
    sphere = pyproj.Geod(a=6_378_137.0, b=6_378_137.0)
    left, right = (float(longitude_of(x)) for x in (-metres / 2, metres / 2))
    _, _, one_pixel = sphere.inv(left, at, right, at)
    assert scale.pixels == pytest.approx(length / one_pixel, abs=0.6)


@settings(deadline=None)  # the first one reads the outlines
@given(lon=st.floats(-180, 180), lat=st.floats(-60, 75), metres=st.floats(200, 40_000))
def test_names_stand_in_the_view_and_apart(lon: float, lat: float, metres: float) -> None:
    x_range, y_range = view(lon, lat, metres)
    xs, ys, names = country_names(x_range, y_range, 1000)
    for number, (x, y, name) in enumerate(zip(xs, ys, names, strict=True)):
        assert x_range[0] <= x <= x_range[1]
        assert y_range[0] <= y <= y_range[1]
        outline = geodata.countries()[name]
        turned = (float(longitude_of(x)) + 180) % 360 - 180
        assert outline.buffer(0.01).contains(shapely.Point(turned, float(latitude_of(y))))
        for other in range(number):
            letters = (len(name) + len(names[other])) / 2 * 7
            assert abs(x - xs[other]) >= letters * metres or abs(y - ys[other]) >= 16 * metres


def test_names_go_on_beyond_the_antimeridian() -> None:
    names = country_names((EDGE - 4e6, EDGE + 12e6), (-3e6, 9e6), 1000)[2]
    assert "United States of America" in names  # a turn further east
