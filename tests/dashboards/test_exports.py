"""Files of what the map shows, read by the tools that planners read them with."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image
from rasterio.io import MemoryFile

from coverage_dashboards import palette
from coverage_dashboards.choices import Choices, View
from coverage_dashboards.exports import BESIDE, ExportTooLarge, csv, geotiff, picture, python_code, window_of
from coverage_dashboards.fields import Cube, FieldCache, change_field, extent_of, field_of, open_cube
from coverage_dashboards.viewport import OUT_OF_SCOPE
from coverage_pipeline.cube.dataset import grid_of
from coverage_pipeline.cube.schema import ACTIONS
from coverage_pipeline.grid.spec import GridSpec
from tests.dashboards.cubes import FIRST, build_cube

BOX = (-30.0, -20.0, 50.0, 40.0)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Cube:
    return open_cube(str(build_cube(tmp_path_factory.mktemp("exports") / "coverage.zarr", 4.0, 3)))


def view_of(cube: Cube, metric: str, layer: str = "gap") -> View:
    first = Choices.of(cube.ds).first_view()
    return Choices.of(cube.ds).settled(
        replace(first, layer=layer, metric=metric, sensors=("emit",), last=FIRST.shift(2), aggregation="recent")  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("layer", "metric"), [("gap", "deficit"), ("gap", "action"), ("available", "scenes_count")])
@pytest.mark.parametrize("box", [None, BOX])
def test_a_geotiff_holds_the_cells_of_the_map(cube: Cube, layer: str, metric: str, box: tuple[float, float, float, float] | None) -> None:
    field, grid = field_of(cube, view_of(cube, metric, layer).query(), FieldCache()), grid_of(cube.ds)
    with MemoryFile(geotiff(field, grid, box, "What it is")) as memory, memory.open() as tiff:
        assert tiff.crs == rasterio.crs.CRS.from_epsg(4326)
        assert tiff.count == 2
        assert tiff.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert tiff.tags()["TIFFTAG_IMAGEDESCRIPTION"] == "What it is"
        values, known = tiff.read(1), tiff.read(2)
        assert tiff.bounds == pytest.approx((-32, -22, 52, 42) if box else (-180, -90, 180, 90))
        for lon, lat in ((-1, 1), (22, -3), (49, 39), (-29, -19)):
            row, column = tiff.index(lon, lat)
            r, c = int((lat + 90) // 4), int((lon + 180) // 4)
            wanted = field.values[r, c]
            assert known[row, column] == field.known_months[r, c]
            if metric == "action":
                assert tiff.tags(1)[f"class_{values[row, column]}"] == ACTIONS[int(wanted)]
            elif np.isnan(wanted):
                assert np.isnan(values[row, column])
            else:
                assert values[row, column] == (BESIDE if wanted == OUT_OF_SCOPE else wanted)
        assert (tiff.nodata is None) == (metric == "action")
        assert metric == "action" or np.isnan(tiff.nodata)


def test_a_csv_has_a_row_a_cell_and_tells_unknown_from_beside(cube: Cube) -> None:
    grid = grid_of(cube.ds)
    field = field_of(cube, view_of(cube, "deficit").query(), FieldCache())
    table = pd.read_csv(io.BytesIO(csv(field, grid, BOX)), keep_default_na=False, dtype={"deficit": str})
    assert len(table) == 21 * 16
    for _, row in table.sample(40, random_state=1).iterrows():
        wanted = field.values[int((row["lat"] + 90) // 4), int((row["lon"] + 180) // 4)]
        assert row["deficit"] == ("" if np.isnan(wanted) else "out of scope" if wanted == OUT_OF_SCOPE else str(float(wanted)))
    actions = field_of(cube, view_of(cube, "action").query(), FieldCache())
    table = pd.read_csv(io.BytesIO(csv(actions, grid, None)))
    assert set(table["action"]) <= set(ACTIONS)
    assert len(table) == grid.shape[0] * grid.shape[1]


def test_more_than_a_csv_should_hold_is_told(cube: Cube) -> None:
    field = field_of(cube, view_of(cube, "deficit").query(), FieldCache())
    big = replace(field, values=np.zeros((900, 1800), np.float32), known_months=np.zeros((900, 1800), np.uint8))
    with pytest.raises(ExportTooLarge, match="zoom in, or take the GeoTIFF"):
        csv(big, GridSpec(0.2), None)


def test_a_view_beside_the_cube_is_told() -> None:
    with pytest.raises(ExportTooLarge, match="nothing of the cube"):
        window_of(GridSpec(0.5, extent=(0.0, 30.0, 12.0, 42.0)), (100.0, 0.0, 110.0, 10.0))


@pytest.mark.parametrize("box", [None, BOX])
def test_the_python_gives_the_same_array(cube: Cube, box: tuple[float, float, float, float] | None, tmp_path: Path) -> None:
    view = view_of(cube, "deficit")
    script = tmp_path / "same.py"
    script.write_text(f"{python_code(view, cube.location, box)}\nimport numpy\nnumpy.save({str(tmp_path / 'out.npy')!r}, values.values)\n")
    subprocess.run([sys.executable, str(script)], check=True, cwd=Path(__file__).parents[2], capture_output=True, env={"PYTHONPATH": "."})
    wanted = window_of(grid_of(cube.ds), box).of(field_of(cube, view.query(), FieldCache()).values)
    got = np.load(tmp_path / "out.npy")
    assert got.shape == wanted.shape
    there = np.isfinite(wanted)
    assert there.any()
    np.testing.assert_array_equal(got[there], wanted[there])


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("metric", ["action", "deficit", "change"])
def test_a_picture_has_the_map_s_colours_a_caption_and_a_legend(cube: Cube, metric: str, dark: bool) -> None:
    if metric == "change":
        field = change_field(cube, "emit", FIRST, FIRST.shift(1), FieldCache())
    else:
        field = field_of(cube, view_of(cube, metric).query(), FieldCache())
    data = picture(field, field.limits, "Gap · <b>EMIT</b>", extent_of(cube), None, dark=dark)
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    assert image.size == (1600, 1090)
    seen = {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert palette.theme(dark).out_of_scope in seen
    assert palette.theme(dark).page in seen
    if metric == "action":
        assert palette.ACTION_COLOURS["ingest"] in seen
