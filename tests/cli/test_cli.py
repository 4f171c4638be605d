"""The command line as a person meets it: help with examples, exit codes, messages that name what to change, and a real build."""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import subprocess
import sys
import time
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

from coverage_pipeline.catalog.report import ScanReport
from coverage_pipeline.catalog.windows import Progress
from coverage_pipeline.cli.app import app
from coverage_pipeline.cli.scan import _ScanShown, _source_index
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.demo.stac_server import free_port
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from tests.catalog import stac_server
from tests.catalog.items import item, square
from tests.shared_data import read_items

pytestmark = pytest.mark.slow

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
    for command in ("build", "migrate", "top", "scan", "doctor", "gap", "serve", "demo"):
        assert command in result.output


@pytest.mark.parametrize(
    ("command", "example"),
    [
        (
            "build",
            "coverage-planner build --sensors emit,sentinel-2 --start 2025-01-01 --end 2025-12-31 --grid 0.1 --out data/coverage.zarr",
        ),
        ("scan", "coverage-planner scan sentinel-2 2025-03 --bbox 5,50,8,54"),
        ("scan", "coverage-planner scan landsat-8-9 2025-03 --provider earth-search --partial"),
        ("migrate", "COVERAGE_GRID_RULE=center coverage-planner migrate"),
        ("migrate", "coverage-planner migrate --to s3://bucket/coverage-2.zarr"),
        ("top", "coverage-planner top clear --layer unheld --sensors landsat-8-9 --start 2025-01-01 --end 2025-06-30"),
        ("doctor", "coverage-planner doctor --sensor emit,landsat-8-9"),
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
        (["migrate"], {"COVERAGE_GRID_RULE": "most"}, ["COVERAGE_GRID_RULE", "touch", "center", "fraction"]),
        (["migrate", "--config", "nowhere.toml"], {}, ["nowhere.toml"]),
        (["top", "--layer", "wanted"], {}, ["--layer 'wanted'", "available, held, unheld"]),
        (["top", "cloud"], {}, ["'cloud'", "scenes, clear, unknown, observations, clear_observations"]),
        (["top", "--sensors", "hubble"], {}, ["unknown sensor 'hubble'"]),
        (["top", "--start", "2025-03-01", "--end", "2025-01-31"], {}, ["reversed"]),
        (["top", "--limit", "0"], {}, ["--limit"]),
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
    from coverage_pipeline.cli.console import command_settings

    store = command_settings(None, out="memory://bucket/planner/coverage.zarr").store()
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


# Moving a cube, and asking what is on disk


def built_january(serve_items: Serve) -> list[str]:
    """Three scenes of Landsat, built on 10° cells; the settings' arguments. Nobody answers any more afterwards."""
    items = [
        item("a", "2025-01-03T10:00:00Z", geometry=square(9, 44, 2)),  # over an edge, and over the centre of neither cell
        item("b", "2025-01-15T10:00:00Z", geometry=square(4, 44, 2)),
        item("c", "2025-01-15T10:05:00Z", geometry=square(31, 1, 2), properties={"eo:cloud_cover": 90.0}),
    ]
    window = "start = 2025-01-01\nend = 2025-01-31"
    more = {"grid": "resolution = 10", "window": window, "sensors": 'keys = ["landsat-8-9"]', "area": 'scope = "all"'}
    config = config_for(serve_items(items), "scenes", **more)
    assert run("build", "--config", str(config)).exit_code == 0
    config_for(f"http://127.0.0.1:{free_port()}", "scenes", **more)
    return ["--config", str(config)]


def test_a_cube_is_migrated_to_another_rule_without_a_catalogue(serve_items: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    config = built_january(serve_items)
    count = open_coverage("data/coverage.zarr")["scenes_count"].isel(sensor=0, time=0).load()
    assert int(count.sum()) == 4
    monkeypatch.setenv("COVERAGE_GRID_RULE", "center")
    result = run("build", *config)
    assert result.exit_code == 1
    assert "coverage-planner migrate" in said(result)

    result = run("migrate", "--to", "second.zarr", *config)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "second.zarr")
    assert open_coverage("data/coverage.zarr").attrs["coverage_rule"] == "touch"
    result = run("migrate", "--to", "second.zarr", *config)
    assert result.exit_code == 1
    assert "second.zarr is there already" in said(result)

    result = run("migrate", *config)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "0 partitions copied, 1 made anew, 0 not carried over"
    assert re.fullmatch(r"the old cube is data/coverage\.before-\d{8}T\d{6}Z\.zarr", lines[1])
    assert lines[2] == "data/coverage.zarr"  # for a script to take
    now = open_coverage("data/coverage.zarr")
    assert now.attrs["coverage_rule"] == "center"
    assert int(now["scenes_count"].sum()) == 1
    assert open_coverage(lines[1].removeprefix("the old cube is "))["scenes_count"].isel(sensor=0, time=0).equals(count)


def test_a_migration_that_is_refused_ends_with_1(serve_items: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("migrate", "--config", str(config_for("http://127.0.0.1:9")))
    assert result.exit_code == 1
    assert "no coverage cube at data/coverage.zarr" in said(result)
    config = built_january(serve_items)
    Path("data/catalog/landsat-8-9/2025-01.parquet").unlink()
    monkeypatch.setenv("COVERAGE_CLOUD_LT", "50")
    result = run("migrate", *config)
    assert result.exit_code == 1
    for name in ("1 of 1 partitions cannot be carried over", "--drop", "2025-01|landsat-8-9", "does not exist yet"):
        assert name in said(result)
    result = run("migrate", "--drop", *config)
    assert result.exit_code == 0
    assert "2025-01|landsat-8-9 is not carried over: " in said(result)
    assert "0 partitions copied, 0 made anew, 1 not carried over" in said(result)


def test_the_top_cells_of_a_build(serve_items: Serve) -> None:
    config = built_january(serve_items)
    assert run("top", "--config", "build.toml").exit_code == 0
    result = run("top", "clear", "--limit", "2", *config)
    assert result.exit_code == 0
    rows = [[part.strip() for part in re.split("[│┃|]", line)[1:-1]] for line in result.stdout.splitlines() if re.search(r"\d", line)]
    assert rows == [["45", "5", "2", "1"], ["45", "15", "1", "1"]]
    for word in ("lat", "lon", "value", "partitions"):
        assert word in result.stdout
    result = run("top", "--layer", "held", "--start", "2025-02-01", "--end", "2025-02-28", *config)
    assert result.exit_code == 1
    assert "no held statistics of landsat-8-9 in 2025-02..2025-02 at data: materialise them first" in said(result)


# What a scan says, and whom it asks


def two_sources(first: str, second: str, collection: str = "scenes") -> Path:
    path = Path("build.toml")
    body = "".join(
        f'[[sensors.sources.landsat-8-9]]\nkind = "stac"\nendpoint = "{address}"\ncollection_id = "{collection}"\n'
        for address in (first, second)
    )
    path.write_text(f"[scan]\nretries = 1\nbackoff_seconds = 0.01\ntimeout_seconds = 5\n{body}")
    return path


def test_a_scan_may_ask_one_provider_alone() -> None:
    with stac_server.serve(stac_server.Catalog([item("a")])) as one, stac_server.serve(stac_server.Catalog([item("b"), item("c")])) as two:
        config = str(two_sources(one.address, two.address))
        for wanted in ("1", two.address.removeprefix("http://"), two.address.rpartition(":")[2]):
            result = run("scan", "landsat-8-9", "2025-01", "--config", config, "--provider", wanted)
            assert result.exit_code == 0
            assert "landsat-8-9 2025-01: 2 scenes (complete)" in said(result)
        assert not one.searches


@pytest.mark.parametrize(
    ("sensor", "wanted", "names"),
    [
        ("landsat-8-9", "usgs", ["'usgs' is none of the sources of landsat-8-9", "0: stac planetarycomputer", "1: stac earth-search"]),
        ("landsat-8-9", "2", ["'2' is none of"]),
        ("landsat-8-9", "", ["is none of"]),
        ("landsat-8-9", "stac", ["'stac' may be any of several sources"]),
        ("emit", "cmr.earthdata.nasa.gov", ["may be any of several", "0: cmr cmr.earthdata.nasa.gov", "1: earthaccess cmr.earthdata"]),
        ("prisma", "0", ["prisma has no public catalogue"]),
    ],
)
def test_a_provider_that_is_none_or_several_ends_with_2(sensor: str, wanted: str, names: list[str]) -> None:
    result = run("scan", sensor, "2025-01", "--provider", wanted)
    assert result.exit_code == 2
    for name in names:
        assert name in said(result)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("sensor", "wanted", "index"),
    [
        ("emit", "cmr", 0),
        ("emit", "earthaccess", 1),
        ("sentinel-2", "earth-search", 1),
        ("sentinel-2", "Copernicus", 2),
        ("sentinel-2", "0", 0),
    ],
)
def test_a_provider_is_meant_by_its_kind_a_part_of_its_host_or_its_number(sensor: str, wanted: str, index: int) -> None:
    assert _source_index(COVERAGE_SENSORS[sensor], wanted) == index


def _down(catalog: stac_server.Catalog, number: int, answer: stac_server.Answer) -> stac_server.Answer:
    return 503, {"Content-Type": "text/html"}, b"\x1b[31m[bold]maintenance[/bold]"


def _down_in_the_second_half(catalog: stac_server.Catalog, number: int, answer: stac_server.Answer) -> stac_server.Answer:
    end = catalog.searches[-1]["datetime"].split("/")[1]
    return answer if end <= "2025-01-16T12:00:00Z" else _down(catalog, number, answer)


def test_a_scan_says_who_failed_before_and_how_often_it_asked_again() -> None:
    def once(catalog: stac_server.Catalog, number: int, answer: stac_server.Answer) -> stac_server.Answer:
        return (503, {}, b"busy") if number == 1 else answer

    items = [item("a"), item("z", geometry=None, bbox=None)]
    with stac_server.serve(stac_server.Catalog(items, fault=once)) as two:
        port = free_port()
        result = run("scan", "landsat-8-9", "2025-01", "--config", str(two_sources(f"http://127.0.0.1:{port}", two.address)))
    assert result.exit_code == 0
    words = said(result)
    assert f"failed before: stac 127.0.0.1:{port} scenes: landsat-8-9 2025-01" in words
    assert "2 announced, 2 received, which make 1 scene" in words
    assert "1 rejected: " in words
    assert "1 of them retries: 1 × 503" in words
    assert [line.strip() for line in result.stdout.splitlines()[-3:]] == [
        "data/catalog/landsat-8-9/2025-01.rejected.parquet",
        "data/catalog/landsat-8-9/2025-01.scan.json",
        "data/catalog/landsat-8-9/2025-01.parquet",
    ]


def test_a_scan_that_fails_says_what_is_kept_and_partial_publishes_it() -> None:
    days = [item(f"s{day}", f"2025-01-{day:02d}T10:00:00Z") for day in range(1, 31)]
    with stac_server.serve(stac_server.Catalog(days, fault=_down_in_the_second_half)) as catalog:
        config = config_for(catalog.address, "scenes")
        config.write_text(
            config.read_text() + f'[providers."{catalog.address.removeprefix("http://")}"]\nwindow_hours = 372.0\nparallel = 1\n'
        )
        result = run("scan", "landsat-8-9", "2025-01", "--config", str(config))
        assert result.exit_code == 1
        assert "1 finished window is kept: the same command goes on from there within 24 hours" in said(result)
        assert "\x1b" not in result.output
        assert "[bold]maintenance[/bold]" in said(result)
        result = run("scan", "landsat-8-9", "2025-01", "--config", str(config), "--partial")
    assert result.exit_code == 0
    assert "(partial): scenes are missing: " in said(result)
    assert "missing windows: 20250116T" in said(result)
    assert "1 read by an earlier run" in said(result)


def test_a_scan_that_fails_at_once_keeps_nothing_and_says_nothing_of_it() -> None:
    result = run("scan", "landsat-8-9", "2025-01", "--config", str(config_for(f"http://127.0.0.1:{free_port()}")))
    assert result.exit_code == 1
    assert "kept" not in said(result)


def report_of(**changes: Any) -> ScanReport:
    base: dict[str, Any] = {
        "sensor": "emit",
        "start": "2025-03-01T00:00:00Z",
        "end": "2025-04-01T00:00:00Z",
        "status": "complete",
        "scanned_at": "2025-04-02T00:00:00Z",
    }
    return ScanReport(**{**base, **changes})


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["(complete): all scenes of the month"]),
        ({"status": "provisional"}, ["more are published until 2025-04-11, scan again after that"]),
        ({"status": "provisional", "reason": "its newest item is of 2025-03-04"}, ["(provisional): its newest item is of 2025-03-04"]),
        (
            {"status": "provisional", "reason": "silence: a; totals: b", "doubts": ["silence: a", "totals: b"]},
            ["(provisional): read in full, but scenes may be missing: silence: a; totals: b", "  doubt: totals: b"],
        ),
        (
            {"status": "provisional", "reason": "its newest item is of 2025-03-04; silence: a", "doubts": ["silence: a"]},
            ["(provisional): its newest item is of 2025-03-04; read in full, but scenes may be missing: silence: a"],
        ),
        ({"first_day": "2025-03-02", "last_day": "2025-03-30"}, ["the first scene is of 2025-03-02, the last of 2025-03-30"]),
        ({"platforms": {"Sentinel-2D": 3, "sentinel-2a\n": 1234}}, ["platforms: sentinel-2a 1,234, Sentinel-2D 3"]),
        ({"other_platform": 2, "other_platforms": {"landsat-10": 2}}, ["2 of other satellites of the collection: landsat-10 2"]),
        (
            {"status": "partial", "reason": "2 windows", "missing": [f"w{k}" for k in range(9)]},
            ["w0, w1, w2, w3, w4 and 4 more", "run again"],
        ),
        ({"status": "not_applicable", "reason": "no public catalogue"}, ["not applicable: no public catalogue"]),
        ({"bbox": [5.0, 50.0, 8.5, 54.0]}, ["within 5,50,8.5,54; other areas stay not known"]),
        ({"received": 1234567, "announced": 1234567, "superseded": 5, "united": 6}, ["1,234,567 announced", "5 older copies", "6 parts"]),
        (
            {"repeated": 2, "duplicates": 3, "outside": 4, "other_platform": 7},
            ["2 repeated in two windows", "3 repeated on", "4 passed", "7 of other"],
        ),
        ({"cross_check": "empty; other has 0"}, ["cross-check: empty; other has 0"]),
        ({"rejected": {"no time": 3}}, ["3 rejected: no time"]),
    ],
)
def test_a_report_in_lines(changes: dict[str, Any], names: list[str]) -> None:
    lines = report_of(**changes).lines(10)
    assert all("\n" not in line for line in lines)
    for name in names:
        assert name in "\n".join(lines)
    assert "\n" not in report_of(**changes).in_words()


# The doctor


def test_the_doctor_says_what_works_and_ends_with_0() -> None:
    now = Month.of(dt.date.today()).shift(-2)
    when = f"{now}-15T10:00:00Z"
    with stac_server.serve(stac_server.Catalog([item("LC08_L2SP_033032_20231008_02_T1", when)])) as catalog:
        config = str(config_for(catalog.address, "scenes"))
        result = run("doctor", "--config", config, "--sensor", "landsat-8-9,prisma")
        assert result.exit_code == 0, result.output
        assert "prisma has no public catalogue: nothing to ask" in said(result)
        assert "1 source asked: 1 works" in said(result)
        assert "landsat-8-9: stac 127.0.0.1" in said(result)
        result = run("doctor", "--config", config, "--sensor", "landsat-8-9", "--sensor", "landsat-8-9", "--json")
    checks = [json.loads(line) for line in result.stdout.splitlines()]
    assert {check["verdict"] for check in checks} == {"ok"}
    assert set(checks[0]) == {"sensors", "kind", "provider", "collection", "version", "name", "verdict", "said", "seconds"}
    assert not Path("data").exists()  # nothing is written


def test_the_doctor_ends_with_1_for_who_failed_and_2_for_what_is_wrong() -> None:
    down = f"http://127.0.0.1:{free_port()}"
    result = run("doctor", "--config", str(config_for(down)), "--sensor", "landsat-8-9")
    assert result.exit_code == 1
    assert "failed: could not be reached" in said(result)
    assert "1 source asked: 1 failed" in said(result)
    with stac_server.serve(stac_server.Catalog([item()])) as catalog:
        both = two_sources(down, catalog.address, "misspelt")
        result = run("doctor", "--config", str(both), "--sensor", "landsat-8-9")
    assert result.exit_code == 2
    assert "configured wrongly: has no collection misspelt" in said(result)
    assert "2 sources asked: 1 configured wrongly, 1 failed" in said(result)


def test_the_doctor_of_an_unknown_sensor_ends_with_2() -> None:
    result = run("doctor", "--sensor", "hubble")
    assert result.exit_code == 2
    assert "unknown sensor 'hubble'" in said(result)


def test_the_doctor_prints_foreign_text_as_it_is_and_obeys_none_of_it() -> None:
    evil = "\x1b]0;owned\x07[bold red]LC08[/bold red] [link=http://example.org]x[/link]"
    now = Month.of(dt.date.today()).shift(-2)
    with stac_server.serve(stac_server.Catalog([item(evil, f"{now}-15T10:00:00Z", properties={"platform": evil})])) as catalog:
        config = str(config_for(catalog.address, "scenes"))
        for more in ([], ["--json"]):
            result = run("doctor", "--config", config, "--sensor", "landsat-8-9", *more)
            assert result.exit_code == 2  # no Landsat id
            assert "[bold red]LC08[/bold red]" in said(result)
            assert not {"\x1b", "\x07"} & set(result.output)


def test_progress_in_words() -> None:
    shown = _ScanShown()
    now = Progress(windows=16, done=3, received=1790, announced=1860, resumed=2, retries=1)
    assert shown.words(now) == "3 of 16 windows (2 from an earlier run), 1,790 items of 1,860 announced so far, 1 retry"
    assert shown.bar(now) == (3, 16)
    begun = Progress(windows=16, done=3, received=1800, retries=3)
    assert shown.words(begun) == "3 of 16 windows, 1,800 items of 1,860 announced so far, 3 retries"
    assert shown.words(Progress(windows=16, done=3, received=1900)) == "3 of 16 windows, 1,900 items"
    assert shown.bar(Progress(windows=1, received=5, announced=9)) == (5, 9)
    assert shown.bar(Progress(windows=1, received=5)) == (5, None)


def test_a_scan_stopped_by_ctrl_c_says_what_is_kept() -> None:
    def slow(catalog: stac_server.Catalog, number: int, answer: stac_server.Answer) -> stac_server.Answer:
        time.sleep(0 if number == 1 else 0.3)
        return answer

    days = [item(f"s{day}", f"2025-01-{day:02d}T10:00:00Z") for day in range(1, 31)]
    with stac_server.serve(stac_server.Catalog(days, fault=slow)) as catalog:
        config = config_for(catalog.address, "scenes")
        config.write_text(
            config.read_text() + f'[providers."{catalog.address.removeprefix("http://")}"]\nwindow_hours = 24.0\nparallel = 1\n'
        )
        command = [sys.executable, "-m", "coverage_pipeline", "scan", "landsat-8-9", "2025-01", "--config", str(config)]
        scan = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while len(catalog.searches) < 3 and scan.poll() is None:
            time.sleep(0.02)
        scan.send_signal(signal.SIGINT)
        out, told = scan.communicate(timeout=30)
    assert scan.returncode == 130, told
    assert re.search(r"finished windows? (is|are) kept: the same command goes on from there", told)
    assert "stopped; every file is whole" in told
    assert out == ""


def points(path: str, longitude: float, latitude: float) -> str:
    feature = {
        "type": "Feature",
        "properties": {"id": "site", "buffer_km": 5},
        "geometry": {"type": "Point", "coordinates": [longitude, latitude]},
    }
    Path(path).write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"COVERAGE_DATA": ""}, "COVERAGE_DATA = '' (from the environment): is empty"),
        ({"COVERAGE_DATA": "/"}, "is the root of the file system"),
        ({"COVERAGE_CONFIG": "utf-16.toml"}, "utf-16.toml begins with the mark of UTF-16"),
        ({"COVERAGE_CONFIG": "folder"}, "the settings file folder is a folder"),
        ({"COVERAGE_AREA_SCOPE": "targets"}, "there are no targets: set COVERAGE_TARGETS"),
        ({"COVERAGE_AREA_SCOPE": "targets", "COVERAGE_TARGETS": "none.geojson"}, "none.geojson"),
        (
            {"COVERAGE_AREA_SCOPE": "targets", "COVERAGE_TARGETS": "site.geojson", "COVERAGE_GRID_EXTENT": "5,45,15,55"},
            "none of the 1 targets (first id 'site') lies in the grid's extent 5, 45, 15, 55",
        ),
        ({"COVERAGE_AREA_SCOPE": "targets", "COVERAGE_TARGETS": "pole.geojson"}, "outside the latitudes that the sensors reach"),
        (
            {"COVERAGE_SENSORS_DECLARED": json.dumps({"r" * 300: {"nominal_revisit_days": 1, "default_desired_per_month": 1}})},
            "300 letters",
        ),
    ],
)
def test_what_cannot_be_started_ends_with_2_in_one_sentence(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("folder").mkdir()
    Path("utf-16.toml").write_bytes("cloud_lt = 20\n".encode("utf-16"))
    points("site.geojson", 100, -10)
    points("pole.geojson", 0, 89.5)
    before = set(Path.cwd().rglob("*"))
    for name, value in {"COVERAGE_GRID_RESOLUTION": "5", **variables}.items():
        monkeypatch.setenv(name, value)
    result = run("build", "--start", "2025-01-01", "--end", "2025-01-31", "--sensors", "emit")
    assert result.exit_code == 2, result.output
    assert message in said(result)
    assert "Traceback" not in result.output
    assert set(Path.cwd().rglob("*")) == before


@pytest.mark.parametrize("arguments", [("build", "--out", ""), ("build", "--out", " "), ("migrate", "--to", ""), ("gap", "--config", "")])
def test_an_empty_place_on_the_command_line_is_refused(arguments: tuple[str, ...]) -> None:
    """An empty name of the cube made the current folder the data root."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert "empty" in said(result) or "is a folder" in said(result)
    assert list(Path.cwd().iterdir()) == []
