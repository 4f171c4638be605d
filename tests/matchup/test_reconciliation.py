"""Where holdings and catalogue disagree, each finding with the ids behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import shapely
from typer.testing import CliRunner

from coverage_pipeline.cli.app import app
from coverage_pipeline.geometry.geoparquet import as_geoparquet
from coverage_pipeline.holdings.rows import LAST_SCHEMA, REJECTED_HOLDINGS_SCHEMA
from coverage_pipeline.matchup.reconciliation import FINDINGS, Reconciliation, in_words, reconcile
from coverage_pipeline.matchup.versions import is_older
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.storage.paths import sibling
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import write_parquet
from tests.matchup.test_match import EMIT, EXTRACT, HERE, JANUARY, NOON, holding, month_of, scene, seconds

S2_FIRST = "S2A_MSIL2A_20231008T175231_N0509_R141_T13TDE_20231008T233154"
S2_AGAIN = "S2A_MSIL2A_20231008T175231_N0510_R141_T13TDE_20240901T010203"
ENMAP = "ENMAP01-____L2A-DT0000080454_20240630T082045Z_001"


def emit_id(number: int, build: str = "001") -> str:
    return f"EMIT_L2A_RFL_{build}_20250110T1200{number:02}_2501007_0{number:02}"


def listed(number: int, build: str = "001", shape: Any = HERE) -> dict[str, Any]:
    key = f"EMIT_20250110T1200{number:02}_2501007_0{number:02}"
    return scene(key, NOON + seconds(600 * number), shape) | {"item_ids": [emit_id(number, build)]}


def held(number: int, build: str = "001", shape: Any = HERE, **more: Any) -> dict[str, Any]:
    key = f"EMIT_20250110T1200{number:02}_2501007_0{number:02}"
    return holding(NOON + seconds(600 * number), shape, key=key, **more) | {"scene_id": emit_id(number, build)}


def reconciled(
    folder: Path, scenes: list[Any], holdings: list[Any], *, rejected: list[Any] = (), sensor: Any = EMIT, **how: Any
) -> Reconciliation:
    store, _ = month_of(folder, scenes, holdings, sensor=sensor, **how)
    beside(store, sensor, rejected)
    return reconcile(sensor, JANUARY, store)


def beside(store: Store, sensor: Any, rejected: list[Any] = ()) -> None:
    """What the extract leaves beside its file."""
    write_parquet(store.last_held(sensor.key, JANUARY), as_geoparquet(LAST_SCHEMA.empty_table()), EXTRACT)
    table = pa.Table.from_pylist(list(rejected), schema=REJECTED_HOLDINGS_SCHEMA)
    write_parquet(sibling(store.holdings(sensor.key, JANUARY), ".rejected.parquet"), table, EXTRACT)


def found(report: Reconciliation, finding: str) -> list[list[str]]:
    return [row["ids"] for row in report.findings.to_pylist() if row["finding"] == finding]


def test_what_agrees_finds_nothing(tmp_path: Path) -> None:
    report = reconciled(tmp_path, [listed(1), listed(2)], [held(1)])
    assert report.known
    assert report.counts == dict.fromkeys(FINDINGS, 0)
    assert (report.rows, report.version_not_told) == (1, 0)
    assert report.first == report.last == "2025-01-15T12:10:00Z"


def test_each_finding_names_its_ids(tmp_path: Path) -> None:
    west, south, east, north = HERE.bounds
    half = shapely.box(west, south, (west + east) / 2, north)
    slanted = shapely.Polygon([(west, south), (east, south + 0.2), (east - 0.1, north), (west + 0.1, north - 0.2)])
    scenes = [listed(1, "002"), listed(2, shape=slanted), listed(3)]
    holdings = [
        held(1, "001"),  # an older build
        held(2, shape=half & slanted),  # a part
        held(3),
        held(3, "000") | {"geometry": held(3)["geometry"]},  # the same scene again, under another id
        held(7),  # in no catalogue
    ]
    report = reconciled(tmp_path, scenes, holdings, rejected=[{"scene_id": "X", "datetime": None, "sensor": "EMIT", "reason": "no time"}])
    assert found(report, "upgrade") == [[emit_id(1, "001")]]
    assert found(report, "held in part") == [[emit_id(2)]]
    assert found(report, "held twice") == [[emit_id(3, "000"), emit_id(3)]]
    assert found(report, "not listed") == [[emit_id(7)]]
    assert found(report, "rejected") == [["X"]]
    assert report.counts == {"not listed": 1, "held twice": 1, "held in part": 1, "upgrade": 1, "unknown id": 0, "rejected": 1}
    assert "1 upgrade" in in_words(report)


def test_a_house_id_is_one_that_nobody_knows(tmp_path: Path) -> None:
    report = reconciled(tmp_path, [listed(1)], [holding(NOON + seconds(600)) | {"scene_id": "house-17"}])
    assert found(report, "unknown id") == [["house-17"]]
    assert found(report, "not listed") == []
    assert report.version_not_told == 1  # its id says no version


def test_what_is_not_known_is_no_zero(tmp_path: Path) -> None:
    report = reconciled(tmp_path / "a", [listed(1)], [], status="off")
    assert (report.known, report.rows, set(report.counts.values())) == (False, None, {None})
    assert "off" in in_words(report)
    report = reconcile(EMIT, JANUARY, Store.below(tmp_path / "none"))
    assert "does not exist yet" in report.reason
    prisma = COVERAGE_SENSORS["prisma"]
    report = reconciled(tmp_path / "b", [], [holding()], sensor=prisma, scan="not_applicable")
    assert (report.known, report.counts["not listed"], report.counts["upgrade"]) == (True, None, None)


@pytest.mark.parametrize(
    ("family", "one", "other", "older"),
    [
        ("sentinel-2", S2_FIRST, S2_AGAIN, True),
        ("sentinel-2", S2_AGAIN, S2_FIRST, False),
        ("sentinel-2", S2_FIRST, "S2A_13TDE_20231008_0_L2A", None),
        ("landsat", "LC08_L2SP_044034_20160830_20200906_02_T1", "LC08_L2SP_044034_20160830_20210101_02_T1", True),
        ("landsat", "LC08_L2SP_044034_20160830_02_T2", "LC08_L2SP_044034_20160830_02_T1", True),
        ("landsat", "LC08_L2SP_044034_20160830_02_T1", "LC08_L2SP_044034_20160830_20200906_02_T1", None),
        ("emit", "EMIT_L2A_RFL_001_20220810T034103_2222203_002", "EMIT_L2A_RFL_002_20220810T034103_2222203_002", True),
        ("enmap", f"{ENMAP}_V010402_20240701T122237Z", f"{ENMAP}_V010502_20250101T000000Z", True),
        ("other", "a", "b", None),
        ("other", "a", "a", False),
    ],
)  # fmt: skip
def test_which_of_two_products_is_older(family: Any, one: str, other: str, older: bool | None) -> None:
    assert is_older(family, one, other) is older


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = month_of(tmp_path / "data", [listed(1, "002")], [held(1)])
    beside(store, EMIT)
    monkeypatch.setenv("COVERAGE_DATA", str(tmp_path / "data"))
    run = CliRunner()
    common = ["reconcile", "--sensors", "emit", "--start", "2025-01-01", "--end"]
    result = run.invoke(app, [*common, "2025-01"])
    assert result.exit_code == 0, result.output
    assert "upgrade" in result.output
    assert json.loads(run.invoke(app, [*common, "2025-01", "--format", "json"]).stdout)[0]["counts"]["upgrade"] == 1
    out = tmp_path / "findings.csv"
    assert run.invoke(app, [*common, "2025-01", "--format", "csv", "--out", str(out)]).exit_code == 0
    assert out.read_text().splitlines()[1].startswith("emit,2025-01,upgrade,")
    result = run.invoke(app, [*common, "2025-02"])
    assert result.exit_code == 1
    assert "emit 2025-02 is not known" in result.output
