"""The command line as a person meets it: help with examples, exit codes, messages that name what to change, and a real build."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import Result
from typer.testing import CliRunner

from coverage_pipeline.__main__ import app
from coverage_pipeline.coverage import open_coverage
from coverage_pipeline.serving import free_port
from tests.catalog.items import item, square
from tests.shared_data import read_items

Serve = Callable[[Sequence[Mapping[str, Any]]], str]
LANDSAT = "planetary-computer__landsat-8-c2-l2.ndjson.gz"


def run(*arguments: str) -> Result:
    """The command in this process, which has its imports already; an error that is none of ours is raised."""
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def said(result: Result) -> str:
    """What was printed, as one line: the terminal's width breaks it anywhere."""
    return " ".join(result.output.split())


def config_for(address: str, collection: str = "landsat-8-c2-l2", **more: str) -> Path:
    """Settings that ask ``address`` for Landsat; the current folder is the test's own."""
    path = Path("build.toml")
    sections = "\n".join(f"[{name}]\n{body}\n" for name, body in more.items())
    path.write_text(
        f"""
{sections}
[scan]
retries = 0
timeout_seconds = 5

[[sensors.sources.landsat-8-9]]
kind = "stac"
endpoint = "{address}"
collection_id = "{collection}"
cloud_field = "eo:cloud_cover"
"""
    )
    tomllib.loads(path.read_text())
    return path


# Help


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("build", "scan", "gap", "serve", "demo"):
        assert command in result.output


@pytest.mark.parametrize(
    ("command", "example"),
    [
        (
            "build",
            "coverage-planner build --sensors emit,sentinel-2 --start 2025-01-01 --end 2025-12-31 --grid 0.1 --out data/coverage.zarr",
        ),
        ("scan", "coverage-planner scan sentinel-2 2025-03 --bbox 5,50,8,54"),
        ("gap", "coverage-planner gap --config config/build.toml"),
        ("serve", "coverage-planner serve --port 5006"),
        ("demo", "coverage-planner demo --build-only"),
    ],
)
def test_help_of_a_command_has_an_example(command: str, example: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert example in said(result)


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.output.strip()) == (0, version("coverage-planner"))


def test_no_arguments_show_the_help() -> None:
    assert "Usage" in run().output


def test_as_a_module_and_as_a_script_it_is_the_same_program() -> None:
    script = Path(sys.executable).with_name("coverage-planner")
    for command in ([sys.executable, "-m", "coverage_pipeline"], [str(script)]):
        ended = subprocess.run([*command, "scan", "hubble", "2025-01"], capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert "unknown sensor 'hubble'" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""


# Wrong settings: 2, and nothing was started


@pytest.mark.parametrize(
    ("arguments", "environment", "names"),
    [
        (["build", "--grid", "0.07"], {}, ["0.07", "grid.resolution", "the command line", "180"]),
        (["build"], {"COVERAGE_GRID_RESOLUTION": "0.07"}, ["0.07", "COVERAGE_GRID_RESOLUTION", "the environment"]),
        (["build"], {"COVERAGE_WINDOW_FREQ": "W"}, ["COVERAGE_WINDOW_FREQ", "'W'", "MS"]),
        (["build"], {"COVERAGE_GRID_CRS": "EPSG:3857"}, ["COVERAGE_GRID_CRS", "EPSG:4326"]),
        (["build", "--start", "2025-03-01", "--end", "2025-01-31"], {}, ["reversed", "window.start", "window.end"]),
        (["build", "--start", "soon"], {}, ["window.start", "soon"]),
        (["build", "--sensors", "emit,hubble"], {}, ["unknown sensor 'hubble'", "emit", "landsat-8-9"]),
        (["build", "--sensors", "emit,emit"], {}, ["'emit' is listed twice"]),
        (["build", "--bbox", "1,2,3"], {}, ["--bbox", "west,south,east,north"]),
        (["build", "--bbox", "0,60,10,50"], {}, ["--bbox", "south < north"]),
        (["build", "--bbox", "nan,0,10,10"], {}, ["--bbox"]),
        (["build", "--config", "nowhere.toml"], {}, ["nowhere.toml"]),
        (["scan", "hubble", "2025-01"], {}, ["unknown sensor 'hubble'", "emit"]),
        (["scan", "emit", "January"], {}, ["'January'", "YYYY-MM"]),
        (["gap"], {"COVERAGE_CLOUD_LT": "0"}, ["COVERAGE_CLOUD_LT"]),
        (["serve"], {"COVERAGE_CLOUD_LT": "x"}, ["COVERAGE_CLOUD_LT"]),
    ],
)
def test_wrong_settings_end_with_2_and_say_which(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], names: list[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run(*arguments)
    assert result.exit_code == 2
    for name in names:
        assert name in said(result)
    assert not list(Path.cwd().iterdir())  # nothing was started


def test_a_setting_nobody_knows_is_named_with_its_file() -> None:
    Path("build.toml").write_text("[grid]\nresolutoin = 0.5\n")
    result = run("build", "--config", "build.toml")
    assert result.exit_code == 2
    assert "resolutoin" in said(result)
    assert "build.toml" in said(result)


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_DB_PASSWORD", "hush-hush")
    monkeypatch.setenv("COVERAGE_DB_URL", "postgresql://me:hush-hush@127.0.0.1/eo")
    monkeypatch.setenv("COVERAGE_DB_PORT", "no number")
    result = run("build")
    assert result.exit_code == 2
    assert "COVERAGE_DB_PORT" in said(result)
    assert "hush" not in result.output


# Sources that fail: 1


def test_a_scan_of_a_source_that_is_down_names_sensor_month_and_provider() -> None:
    port = free_port()
    config = config_for(f"http://127.0.0.1:{port}")
    result = run("scan", "landsat-8-9", "2020-01", "--config", str(config))
    assert result.exit_code == 1
    for name in ("landsat-8-9", "2020-01", f"127.0.0.1:{port}"):
        assert name in said(result)
    assert "Traceback" not in result.output
    assert not list(Path.cwd().rglob("*.parquet"))


def test_a_scan_says_what_came(serve_items: Serve) -> None:
    items = [item("a", "2025-01-15T10:00:00Z"), item("b", "2025-01-31T23:59:59.5Z"), item("c", "2025-02-01T00:00:00Z")]
    config = config_for(serve_items(items), "scenes")
    result = run("scan", "landsat-8-9", "2025-01", "--config", str(config))
    assert result.exit_code == 0
    assert "landsat-8-9 2025-01: 2 scenes (complete)" in said(result)
    assert Path("data/catalog/landsat-8-9/2025-01.parquet").exists()
    assert "data/catalog/landsat-8-9/2025-01.parquet" in said(result)


def test_a_place_that_cannot_be_written_ends_with_1(serve_items: Serve) -> None:
    config = config_for(serve_items([item()]), "scenes")
    Path("file").write_text("")
    for arguments in (
        ["scan", "landsat-8-9", "2025-01"],
        ["build", "--out", "file/coverage.zarr", "--sensors", "landsat-8-9", "--grid", "10"],
    ):
        result = CliRunner(env={"COVERAGE_DATA": "file"}).invoke(app, [*arguments, "--config", str(config)])
        assert result.exit_code == 1, result.exception
        assert "cannot write" in said(result)
        assert "file" in said(result)


def test_gap_without_a_cube_says_what_to_do_first() -> None:
    Path("build.toml").write_text('[sensors]\nkeys = ["prisma"]\n[window]\nstart = 2025-01-01\nend = 2025-01-31\n[grid]\nresolution = 10\n')
    result = run("gap", "--config", "build.toml")
    assert result.exit_code == 1
    assert "coverage" in said(result)


# A build


def test_an_ad_hoc_build_of_real_items_and_its_gap(serve_items: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    items = read_items(LANDSAT)
    months = {key: [i for i in items if i["properties"]["datetime"].startswith(key)] for key in ("2020-01", "2020-02")}
    assert all(months.values())
    config = config_for(serve_items([i for some in months.values() for i in some]), area='scope = "all"')

    arguments = ["--sensors", "landsat-8-9", "--start", "2020-01-01", "--end", "2020-02-15", "--grid", "1.0", "--out", "out/coverage.zarr"]
    result = run("build", "--config", str(config), *arguments)
    assert result.exit_code == 0
    assert result.stdout.strip() == "out/coverage.zarr"  # for a script to take
    assert "widened to whole months: 2020-01-01..2020-02-29" in said(result)
    for key, some in months.items():
        assert f"landsat-8-9 {key}: {len(some)} scenes (complete)" in said(result)
        assert Path(f"out/catalog/landsat-8-9/{key}.parquet").exists()

    ds = open_coverage("out/coverage.zarr")
    assert dict(ds.sizes) == {"sensor": 1, "time": 2, "lat": 180, "lon": 360}
    assert ds["scenes_total"].values.tolist() == [[len(some) for some in months.values()]]
    assert int((ds["scenes_count"] > 0).sum()) > 20
    # nothing is configured to read holdings from: their layer is off, and no action follows
    assert np.isnan(ds["held_count"].values).all()
    assert set(np.unique(ds["action"])) == {0, 6}  # unknown; out of the sensor's reach

    # Everything the gap needs is in the cube: no catalogue is asked again
    monkeypatch.setenv("COVERAGE_SENSORS_KEYS", "landsat-8-9")
    monkeypatch.setenv("COVERAGE_WINDOW_START", "2020-01-01")
    monkeypatch.setenv("COVERAGE_WINDOW_END", "2020-02-29")
    monkeypatch.setenv("COVERAGE_GRID_RESOLUTION", "1.0")
    monkeypatch.setenv("COVERAGE_OUTPUT_ZARR", "out/coverage.zarr")
    monkeypatch.setenv("COVERAGE_GAP_DESIRED", json.dumps({"landsat-8-9": 7}))
    config_for(f"http://127.0.0.1:{free_port()}", area='scope = "all"')
    result = run("gap", "--config", str(config))
    assert result.exit_code == 0
    again = open_coverage("out/coverage.zarr")
    assert again["desired"].values.tolist() == [[7, 7]]
    xr.testing.assert_equal(again["scenes_count"], ds["scenes_count"])


def test_a_build_goes_on_with_holdings_off_and_keeps_the_secret(serve_items: Serve) -> None:
    config = config_for(serve_items([item("a", geometry=square(0, 50, 2))]), "scenes", area='scope = "all"')
    arguments = ["--sensors", "landsat-8-9", "--start", "2025-01-01", "--end", "2025-01-31", "--grid", "10", "--out", "out/coverage.zarr"]
    # A process of its own: there the program's own logging is on, as loud as it gets
    ended = subprocess.run(
        [sys.executable, "-m", "coverage_pipeline", "--verbose", "build", "--config", str(config), *arguments],
        env={"PATH": "/usr/bin", "COVERAGE_DB_URL": f"postgresql://me:hush-hush@127.0.0.1:{free_port()}/eo"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"holdings are off: the holdings database cannot be reached", ended.stderr)
    assert "hush" not in ended.stdout + ended.stderr
    everything = b"".join(path.read_bytes() for path in Path("out").rglob("*") if path.is_file())
    assert b"hush" not in everything
    assert open_coverage("out/coverage.zarr")["holdings_status"].values.tolist() == [[2]]  # off


def test_one_partition_that_fails_leaves_the_others_built(serve_items: Serve) -> None:
    config = config_for(serve_items([item("a", geometry=square(0, 50, 2))]), "scenes", area='scope = "all"')
    broken = f'\n[[sensors.sources.sentinel-2]]\nkind = "stac"\nendpoint = "http://127.0.0.1:{free_port()}"\ncollection_id = "scenes"\n'
    config.write_text(config.read_text() + broken)
    arguments = [
        "--sensors",
        "sentinel-2,landsat-8-9",
        "--start",
        "2025-01-01",
        "--end",
        "2025-01-31",
        "--grid",
        "10",
        "--out",
        "out/c.zarr",
    ]
    result = run("build", "--config", str(config), *arguments)
    assert result.exit_code == 1
    assert "sentinel-2 2025-01" in said(result)
    assert "1 of 2 partitions failed, the others are built" in said(result)
    ds = open_coverage("out/c.zarr")
    assert ds["scenes_total"].sel(sensor="landsat-8-9").values.tolist() == [1]
    assert np.isnan(ds["scenes_count"].sel(sensor="sentinel-2").values).all()  # not known, and not zero


def test_the_cube_may_lie_in_an_object_store() -> None:
    from coverage_pipeline.__main__ import _settings

    store = _settings(None, out="memory://bucket/planner/coverage.zarr").store()
    assert str(store.zarr) == "memory://bucket/planner/coverage.zarr"
    assert str(store.parquet_dir) == "memory://bucket/planner/catalog"
    assert str(store.root) == "memory://bucket/planner"


def test_a_database_address_that_is_none_is_said_before_any_scan(monkeypatch: pytest.MonkeyPatch, serve_items: Serve) -> None:
    monkeypatch.setenv("COVERAGE_DB_URL", "postgresql:/reader:sekret@host")
    config = config_for(serve_items([item("a", geometry=square(0, 50, 2))]), "scenes", area='scope = "all"')
    result = run("build", "--config", str(config), "--start", "2025-01-01", "--end", "2025-01-31", "--out", "out/c.zarr")
    assert result.exit_code != 0
    assert "COVERAGE_DB_URL" in said(result)
    assert "sekret" not in said(result)
    assert not list(Path("out").rglob("*.scan.json"))
