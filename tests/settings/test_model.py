"""Settings from the file, .env, the environment and the command line; each wrong value names itself and its source."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coverage_pipeline.catalog.providers import PROVIDERS
from coverage_pipeline.demand.weights import DEFAULT_WEIGHTS
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.holdings.config import DatabaseSettings, HoldingsSettings, TilesSettings
from coverage_pipeline.settings.load import load_settings, without_holdings_secrets
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.settings.sources import SettingsError

PROJECT = Path(__file__).resolve().parents[2]
DECLARED = """
[sensors]
keys = ["my-radar", "emit"]
[sensors.declared.my-radar]
title = "My radar"
nominal_revisit_days = 12
default_desired_per_month = 2
cloud = "not_applicable"
reach = [-60, 60]
first_month = "2024-05"
available_sources = [{ kind = "stac", endpoint = "https://stac.example.org/v1", collection_id = "radar", platforms = ["A"] }]
"""


def write_toml(text: str) -> None:
    Path("config").mkdir(exist_ok=True)
    Path("config/build.toml").write_text(text)


def refusal(**given: Any) -> str:
    """What a person is told; the error must be one they can act on."""
    with pytest.raises(SettingsError) as error:
        load_settings(**given)
    assert isinstance(error.value, PlannerError)
    # A traceback that goes on into the library would show the input, secrets included.
    assert error.value.__context__ is None or error.value.__suppress_context__
    return str(error.value)


def test_without_any_source_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings.grid_spec().shape == (1800, 3600)
    assert settings.sensors.keys == ["emit", "enmap", "prisma", "landsat-8-9", "sentinel-2"]
    assert settings.cloud_lt == 10
    assert settings.gap.weights == dict(DEFAULT_WEIGHTS)
    assert settings.area_in_words() == "land with a coastal margin of 20 km"
    assert str(settings.store().zarr) == "data/coverage.zarr"
    assert settings.months()[0].key == "2025-01"


def test_the_window_ends_with_the_last_closed_month() -> None:
    window = load_settings().window
    assert window.last_day(dt.date(2025, 4, 1)) == dt.date(2025, 3, 31)
    assert window.last_day(dt.date(2025, 4, 30)) == dt.date(2025, 3, 31)


def test_the_project_s_own_file_says_the_defaults() -> None:
    assert load_settings(PROJECT / "config" / "build.toml") == load_settings()


def test_the_environment_wins_over_dotenv_which_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml('data = "file"\ncloud_lt = 30\n[grid]\nresolution = 1.0\n[window]\nstart = 2024-03-01\n')
    Path(".env").write_text("COVERAGE_GRID_RESOLUTION=2\nCOVERAGE_DATA=dotenv\n")
    assert (load_settings().grid.resolution, load_settings().data) == (2, "dotenv")
    monkeypatch.setenv("COVERAGE_GRID_RESOLUTION", "5")
    settings = load_settings()
    assert (settings.grid.resolution, settings.data, settings.cloud_lt) == (5, "dotenv", 30)
    assert settings.window.start == dt.date(2024, 3, 1)
    settings = load_settings(overrides={"grid": {"resolution": 10.0}})
    assert (settings.grid.resolution, settings.data) == (10, "dotenv")


def test_every_setting_can_be_given_in_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml('[output]\nzarr = "a.zarr"\n[tiles]\nscene_id = "a"\n[gap.desired]\nemit = 1\nprisma = 4\n[db]\nschema = "a"\n')
    settings = load_settings()
    assert (settings.output.zarr, settings.tiles.scene_id, settings.db.schema_name) == ("a.zarr", "a", "a")
    for name, value in {
        "COVERAGE_OUTPUT_ZARR": "b.zarr",
        "COVERAGE_TILES_SCENE_ID": "b",
        "COVERAGE_DB_SCHEMA": "b",
        "COVERAGE_GAP_DESIRED": '{"emit": 2.5}',
        "COVERAGE_CLOUD_LT": "20",
        "COVERAGE_HOLDINGS_MATCH_TOLERANCE_SECONDS": "5",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.output.zarr, settings.tiles.scene_id, settings.db.schema_name) == ("b.zarr", "b", "b")
    assert settings.desired().per_sensor == {"emit": 2.5, "prisma": 4}  # one sensor's wish does not drop another's
    assert (settings.cloud_lt, settings.holdings.match_tolerance_seconds) == (20, 5)


@pytest.mark.parametrize("keys", ["emit,prisma", " emit , prisma ,", '["emit", "prisma"]'])
def test_a_list_of_sensors_may_be_parted_by_commas(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_SENSORS_KEYS", keys)
    assert [s.key for s in load_settings().chosen_sensors()] == ["emit", "prisma"]


def nested(section: str, name: str, value: Any) -> dict[str, Any]:
    return {section: {name: value}}


WRONG = [
    ("grid", "resolution", 0.07, "allowed are for example 0.05, 0.1, 0.125"),
    ("grid", "crs", "EPSG:3857", "only 'EPSG:4326' is possible"),
    ("window", "freq", "W", "freq must be 'MS'"),
    ("window", "end", "March", "YYYY-MM-DD"),
    ("area", "scope", "sea", "'land', 'all' or 'targets'"),
    ("area", "coastal_margin_km", -1, "greater than or equal to 0"),
    ("holdings", "source", "oracle", "'auto', 'file', 'postgis', 'stac', 'ids' or 'off'"),
    ("holdings", "min_iou", 0, "greater than 0"),
    ("holdings", "lookback_months", 0, "greater than or equal to 1"),
    ("db", "port", 99999, "less than or equal to 65535"),
    ("db", "sslmode", "maybe", "'verify-full'"),
    ("scan", "retries", "many", "valid integer"),
]


@pytest.mark.parametrize(("section", "name", "value", "allowed"), WRONG)
@pytest.mark.parametrize("source", ["file", ".env", "environment", "command line"])
def test_a_wrong_value_names_itself_its_source_and_what_is_allowed(
    source: str, section: str, name: str, value: Any, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = f"COVERAGE_{section.upper()}_{name.upper()}"
    overrides: Mapping[str, Any] | None = None
    match source:
        case "file":
            write_toml(f"[{section}]\n{name} = {value!r}\n")
            expected = f"{section}.{name} = {value!r} (from config/build.toml): "
        case ".env":
            Path(".env").write_text(f"{variable}={value}\n")
            expected = f"{variable} = '{value}' (from .env): "
        case "environment":
            monkeypatch.setenv(variable, str(value))
            expected = f"{variable} = '{value}' (from the environment): "
        case _:
            overrides = nested(section, name, value)
            expected = f"{section}.{name} = {value!r} (from the command line): "
    said = refusal(overrides=overrides)
    assert said.startswith(f"wrong setting: {expected}")
    assert allowed in said


def test_the_source_named_is_the_one_that_won(monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml("[grid]\nresolution = 0.1\n")
    monkeypatch.setenv("COVERAGE_GRID_RESOLUTION", "0.07")
    said = refusal()
    assert "COVERAGE_GRID_RESOLUTION" in said
    assert "build.toml" not in said


def test_all_wrong_values_are_named_at_once() -> None:
    write_toml('cloud_lt = 0\n[grid]\nresolution = 0.07\n[window]\nfreq = "W"\n')
    said = refusal()
    assert all(name in said for name in ("cloud_lt", "grid.resolution", "window.freq"))


def test_a_reversed_window_names_both_ends_and_where_each_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml("[window]\nstart = 2025-05-01\n")
    monkeypatch.setenv("COVERAGE_WINDOW_END", "2025-03-01")
    said = refusal()
    assert "window.start (from config/build.toml), COVERAGE_WINDOW_END (from the environment)" in said
    assert "the window is reversed: start 2025-05-01 is after end 2025-03-01" in said


@pytest.mark.parametrize(
    ("start", "end", "months", "said"),
    [
        ("2025-01-15", "2025-02-10", ["2025-01", "2025-02"], "widened to whole months: 2025-01-01..2025-02-28"),
        ("2025-01-01", "2025-02-28", ["2025-01", "2025-02"], None),
        ("2025-01", "2025-02", ["2025-01", "2025-02"], None),
    ],
)
def test_a_window_inside_months_is_widened_and_that_is_said(
    start: str, end: str, months: list[str], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVERAGE_WINDOW_START", start)
    monkeypatch.setenv("COVERAGE_WINDOW_END", end)
    settings = load_settings()
    assert [m.key for m in settings.months()] == months
    note = settings.window_note()
    assert note is None if said is None else note is not None and said in note


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ('{"deficit": 1.0}', "weights must be deficit, staleness, unmet, wait; got deficit"),
        ('{"deficit": 0.5, "staleness": 0.5, "unmet": 0.5, "wait": 0.5}', "sum 2"),
        ('{"deficit": 1.5, "staleness": -0.5, "unmet": 0, "wait": 0}', "must not be negative"),
        ('{"deficit": NaN, "staleness": 0.5, "unmet": 0.5, "wait": 0}', "must not be negative"),
    ],
)
def test_weights_are_the_four_and_sum_to_one(weights: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_GAP_WEIGHTS", weights)
    said = refusal()
    assert "COVERAGE_GAP_WEIGHTS (from the environment)" in said
    assert message in said


def test_unknown_names_are_refused_in_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml("[grid]\nresolutin = 1\n")
    assert (
        "grid.resolutin = 1 (from config/build.toml): no such setting; known here: crs, extent, h3_res, memory_mb, min_fraction, "
        "resolution, rule, threads" in refusal()
    )
    write_toml("[gird]\nresolution = 1\n")
    said = refusal()
    assert "gird (from config/build.toml): no such setting; known here: access, area, cloud_lt" in said
    assert "extra" not in said.lower()
    write_toml("")
    Path(".env").write_text("COVERAGE_GRID_RESOLUTIN=1\n")
    assert (
        "COVERAGE_GRID_RESOLUTIN = '1' (from .env): no such setting; known here: crs, extent, h3_res, memory_mb, min_fraction, "
        "resolution, rule, threads" in refusal()
    )
    Path(".env").unlink()
    assert "gird (from the command line): no such setting" in refusal(overrides={"gird": {"resolution": 1}})
    monkeypatch.setenv("COVERAGE_TILES_TABEL", "x")
    assert "COVERAGE_TILES_TABEL = 'x' (from the environment): no such setting" in refusal()


def test_an_unknown_name_in_a_table_of_tables_is_told() -> None:
    """Regression: it ended in an AttributeError."""
    write_toml('[gap.groups.optical]\nmembers = ["emit"]\n')
    assert "gap.groups.optical.members" in (said := refusal())
    assert "no such setting; known here: desired, sensors" in said
    write_toml('[tasking."stapi.example.org"]\nendpiont = "https://stapi.example.org"\n')
    assert "no such setting; known here: endpoint, products, token_env" in refusal()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("COVERAGE_GIRD_RESOLUTION", "COVERAGE_GRID_RESOLUTION"),
        ("COVERAGE_CLOUDLT", "COVERAGE_CLOUD_LT"),
        ("COVERAGE_SENSOR_KEYS", "COVERAGE_SENSORS_KEYS"),
        ("COVERAGE_TARGET", "COVERAGE_TARGETS"),
    ],
)
@pytest.mark.parametrize("source", [".env", "the environment"])
def test_a_misspelt_variable_is_not_taken_for_another_program_s(
    wrong: str, right: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == ".env":
        Path(".env").write_text(f"{wrong}=1\n")
    else:
        monkeypatch.setenv(wrong, "1")
    assert refusal() == f"wrong setting: {wrong} (from {source}): no such setting; did you mean {right}?"


# https://coverage.readthedocs.io: the tool coverage.py reads these, and its users set them.
COVERAGE_PY = ("FILE", "PROCESS_START", "PROCESS_CONFIG", "RCFILE", "CORE", "DEBUG", "DEBUG_FILE", "RUN", "FORCE_CONFIG", "SYSMON_LOG")


def test_variables_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in COVERAGE_PY:
        monkeypatch.setenv(f"COVERAGE_{name}", "/tmp/x")
    Path(".env").write_text("POSTGRES_PASSWORD=x\nCOVERAGE_FILE=.coverage\nPATH_OF_SOMETHING=[\nCOVERAGE_GRID_RESOLUTION=5\n")
    settings = load_settings()
    assert settings.grid.resolution == 5
    assert settings == load_settings(overrides={})


@pytest.mark.parametrize("name", ["COVERAGE_GAP_DESIRED", "COVERAGE_GAP", "COVERAGE_SENSORS_SOURCES", "COVERAGE_DB"])
@pytest.mark.parametrize("source", [".env", "the environment"])
def test_json_that_cannot_be_read_names_the_variable(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == ".env":
        Path(".env").write_text(f"{name}={{hunter2\n")
    else:
        monkeypatch.setenv(name, "{hunter2")
    said = refusal()
    assert said.startswith(f"wrong setting: {name} (from {source}): not JSON")
    assert "hunter2" not in said


def test_a_list_in_json_that_cannot_be_read_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_SENSORS_KEYS", '["emit"')
    assert "COVERAGE_SENSORS_KEYS" in refusal()


# --- the file -------------------------------------------------------------------------------------------------------


def test_the_file_may_be_named_by_argument_environment_or_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number, name in enumerate(("argument", "environment", "dotenv"), start=1):
        (tmp_path / f"{name}.toml").write_text(f"[grid]\nresolution = {number}\n")
    Path(".env").write_text(f"COVERAGE_CONFIG={tmp_path}/dotenv.toml\n")
    assert load_settings().grid.resolution == 3
    monkeypatch.setenv("COVERAGE_CONFIG", f"{tmp_path}/environment.toml")
    assert load_settings().grid.resolution == 2
    assert load_settings(tmp_path / "argument.toml").grid.resolution == 1


def test_a_file_that_was_named_must_be_there_and_be_toml(tmp_path: Path) -> None:
    assert "cannot read the settings file nowhere.toml: No such file" in refusal(config="nowhere.toml")
    (tmp_path / "bad.toml").write_text("grid = [\n")
    assert "bad.toml is not valid TOML" in refusal(config=tmp_path / "bad.toml")


@pytest.mark.parametrize("text", ["grid = 5", "db = 5", 'db = "password"', "sensors = []"])
def test_a_section_that_is_no_table_is_refused(text: str) -> None:
    write_toml(text)
    said = refusal()
    assert text.split()[0] in said
    assert "config/build.toml" in said


# --- secrets --------------------------------------------------------------------------------------------------------


def test_secrets_are_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_DB_PASSWORD", "hunter2")
    monkeypatch.setenv("COVERAGE_DB_URL", "postgresql://me:hunter2@db/eo")
    settings = load_settings()
    assert settings.db.password is not None
    assert settings.db.password.get_secret_value() == "hunter2"
    for shown in (repr(settings), str(settings.db), settings.model_dump_json(), str(settings.model_dump()), repr(settings.cube_spec())):
        assert "hunter2" not in shown


@pytest.mark.parametrize(
    "given",
    [
        {"COVERAGE_DB_PORT": "many"},
        {"COVERAGE_DB_PASSWRD": "hunter2"},  # a secret under a misspelt name is still one
        {"COVERAGE_DB_HOSTT": "me:hunter2@db"},
        {"COVERAGE_DB": '{"password": "hunter2", "port": 0}'},
        {"COVERAGE_DB": '"hunter2"'},
        {"COVERAGE_DB": '{"url": {"is": "hunter2"}}'},
        {"COVERAGE_GRID_RESOLUTION": "0.07"},
    ],
)
def test_no_error_repeats_a_secret(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVERAGE_DB_PASSWORD", "hunter2")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    said = refusal()
    assert "hunter2" not in said
    assert next(iter(given)).rpartition("_")[0] in said


def test_who_only_reads_the_cube_gets_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from the environment, in any spelling, nor from ``.env`` or the file; the rest of the settings is read."""
    Path(".env").write_text("COVERAGE_DB_URL=postgresql://me:hunter2@db/eo\nCOVERAGE_GRID_RESOLUTION=0.5\n")
    monkeypatch.setenv("coverage_db_password", "hunter2")
    monkeypatch.setenv("COVERAGE_DB", '{"user": "hunter2"}')
    monkeypatch.setenv("COVERAGE_HOLDINGS_PATH", "https://example.org/h.parquet?sig=hunter2")
    assert load_settings().db.url is not None
    settings = load_settings(holdings=False)
    assert (settings.db, settings.holdings, settings.tiles) == (DatabaseSettings(), HoldingsSettings(), TilesSettings())
    assert settings.grid.resolution == 0.5
    assert "hunter2" not in str(settings.model_dump())


def test_the_environment_of_a_process_that_reads_the_cube() -> None:
    given = {
        "PATH": "/usr/bin", "COVERAGE_DATA": "s3://bucket/coverage", "AWS_SECRET_ACCESS_KEY": "of the store", "COVERAGE_DBX": "x",
        "COVERAGE_DB": "{}", "coverage_db_password": "x", "COVERAGE_DB_URL": "x", "COVERAGE_HOLDINGS_PATH": "x",
        "COVERAGE_TILES_TABLE": "x",
        "PGPASSWORD": "x", "PGPASSFILE": "x",
    }  # fmt: skip
    assert set(without_holdings_secrets(given)) == {"PATH", "COVERAGE_DATA", "AWS_SECRET_ACCESS_KEY", "COVERAGE_DBX"}


@pytest.mark.parametrize("host", ["db", "db.example.org", "127.0.0.1", "::1", "[::1]", "/var/run/postgresql", "a.example,b.example"])
def test_what_a_database_host_can_be(host: str) -> None:
    assert load_settings(overrides={"db": {"host": host}}, environment=False).db.host == host


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@db.example.org:5432/eo",
        "postgresql+psycopg2://me:p%40ss%2F@db/eo?sslmode=require",
        "postgresql:///eo?host=/var/run/postgresql",
        "postgresql://me@[::1]/eo",
    ],
)
def test_what_a_database_address_can_be(url: str) -> None:
    found = load_settings(overrides={"db": {"url": url}}, environment=False).db.url
    assert found is not None
    assert found.get_secret_value() == url


def test_the_largest_answer_is_a_setting() -> None:
    assert load_settings(environment=False).scan_options().patience.max_answer_bytes == 32 << 20
    changed = load_settings(overrides={"scan": {"max_answer_mb": 64}}, environment=False)
    assert changed.scan_options().patience.max_answer_bytes == 64 << 20


def test_netrc_is_a_setting_of_a_provider() -> None:
    changed = load_settings(overrides={"providers": {"stac.example.org": {"netrc": True}}}, environment=False)
    assert changed.scan_options().providers["stac.example.org"].netrc
    assert not any(profile.netrc for profile in PROVIDERS.values())


@pytest.mark.parametrize("name", ["password", "url"])
def test_a_secret_in_the_file_is_refused_with_its_right_place(name: str) -> None:
    write_toml(f'[db]\n{name} = "hunter2"\n')
    said = refusal()
    assert f"put COVERAGE_DB_{name.upper()} into .env or the environment" in said
    assert "hunter2" not in said


# --- sensors --------------------------------------------------------------------------------------------------------


def test_a_sensor_is_declared_without_touching_code() -> None:
    write_toml(DECLARED)
    settings = load_settings()
    radar, emit = settings.chosen_sensors()
    assert (radar.key, radar.title, radar.held_satellite, radar.cloud) == ("my-radar", "My radar", None, "not_applicable")
    assert (str(radar.first_month), radar.reach, radar.taskable) == ("2024-05", (-60, 60), False)
    assert radar.available_sources[0].platforms == ("a",)
    assert emit.key == "emit"
    assert settings.cube_spec().sensors == (radar, emit)


def test_other_catalogues_for_a_sensor_replace_the_registry_s() -> None:
    write_toml('[[sensors.sources.emit]]\nkind = "stac"\nendpoint = "http://127.0.0.1:1/"\ncollection_id = "x"\n')
    settings = load_settings()
    emit = settings.registry()["emit"]
    assert [s.endpoint for s in emit.available_sources] == ["http://127.0.0.1:1/"]
    assert emit.held_satellite == "EMIT"
    assert settings.registry()["enmap"].available_sources


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('keys = ["emit", "emmit"]', "sensors.keys (from config/build.toml): unknown sensor 'emmit': known are emit, enmap"),
        ('keys = ["emit", "emit"]', "'emit' is listed twice"),
        ("keys = []", "name at least one sensor"),
        ("[sensors.declared.emit]\nnominal_revisit_days = 1", "'emit' is declared twice: the registry has it already"),
        ("[sensors.declared.x]\nswath = 1", "sensors.declared.x: unknown field swath"),
        ("[sensors.declared.x]\ntitle = 'x'", "sensors.declared.x: nominal_revisit_days: Field required"),
        ("[sensors.declared.x]\nkey = 'y'", "its key field says 'y'"),
        ("[sensors.declared.x]\nfirst_month = '2025-1'", "'2025-1' is not a month"),
        ("[sensors.declared.x]\navailable_sources = 5", "available_sources must be a list of tables"),
        ("[sensors.declared.x]\navailable_sources = ['https://a.example']", "available_sources must be a list of tables"),
        ("[sensors.declared.'X Y']\nnominal_revisit_days = 1\ndefault_desired_per_month = 1", "lower-case"),
        ("[[sensors.sources.emmit]]\nkind = 'stac'", "sensors.sources names unknown sensor 'emmit': known are"),
        (
            "[[sensors.sources.emit]]\nkind = 'ftp'\nendpoint = 'https://a.example'\ncollection_id = 'x'",
            "'stac', 'cmr', 'earthaccess', 'geoparquet' or 'static'",
        ),
        (
            "[[sensors.sources.emit]]\nkind = 'stac'\nendpoint = 'a.example'\ncollection_id = 'x'",
            "a source of emit: bad endpoint 'a.example'",
        ),
        ("[[sensors.sources.emit]]\nkind = 'stac'\nendpoint = 'https://a.example'\ncollection_id = 'x'\nurl = 'y'", "unknown field url"),
    ],
)
def test_a_sensor_that_cannot_be_used_is_refused(text: str, message: str) -> None:
    write_toml(text if text.startswith("[") else f"[sensors]\n{text}\n")
    assert message in refusal()


@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_cadence_for_an_unknown_sensor_is_refused(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "file":
        write_toml("[gap.desired]\nemitt = 3\n")
        assert "gap.desired (from config/build.toml): unknown sensor emitt" in refusal()
    else:
        monkeypatch.setenv("COVERAGE_GAP_DESIRED", '{"emitt": 3}')
        assert "COVERAGE_GAP_DESIRED (from the environment): unknown sensor emitt" in refusal()


def test_targets_are_known_by_their_content(tmp_path: Path) -> None:
    sites = tmp_path / "sites.geojson"
    words = []
    for content in ("one", "two", "one"):
        sites.write_text(content)
        words.append(load_settings(overrides={"targets": str(sites), "area": {"scope": "targets"}}).area_in_words())
    assert words[0] == words[2] != words[1]


# --- .env.example ---------------------------------------------------------------------------------------------------


def test_the_example_names_only_variables_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (PROJECT / ".env.example").read_text()
    names = set(re.findall(r"\bCOVERAGE_[A-Z_]+[A-Z]\b", text))
    known = {"COVERAGE_CONFIG"}
    for name, field in PlannerSettings.model_fields.items():
        known.add(f"COVERAGE_{name.upper()}")
        leaves = getattr(field.annotation, "model_fields", {})
        known |= {f"COVERAGE_{name}_{leaf.alias or key}".upper() for key, leaf in leaves.items()}
    assert names <= known
    assert {f"COVERAGE_TILES_{n}" for n in ("TABLE", "GEOM", "DATE", "SENSOR", "CLOUD", "SCENE_ID")} < names
    assert {f"COVERAGE_DB_{n}" for n in ("URL", "HOST", "PORT", "NAME", "USER", "PASSWORD", "SCHEMA", "SSLMODE")} < names


def test_the_example_loads_with_every_line_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"^# (COVERAGE_[A-Z_]+=\S*)", (PROJECT / ".env.example").read_text(), re.MULTILINE)
    Path(".env").write_text("\n".join(line for line in lines if not line.startswith("COVERAGE_CONFIG")))
    settings = load_settings()
    assert len(lines) > 15
    assert settings.db.host == "db.example.org"
    assert settings.tiles.scene_id == "scene_id"
    assert not any(name.startswith("COVERAGE_DB") for name in os.environ)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xef\xbb\xbfcloud_lt = 20\n", "begins with a byte order mark; save it as UTF-8"),
        ("cloud_lt = 20\n".encode("utf-16"), "begins with the mark of UTF-16; save it as UTF-8"),
        ("cloud_lt = 20\n".encode("utf-16-le"), "not valid TOML"),
        ("# ok\nnote = 'Z\xfcrich'\n".encode("latin-1"), "is not UTF-8: byte 0xfc in line 2; save it as UTF-8"),
        (b"\x00\x01\x02", "not valid TOML"),
        (b"note = " + b"[" * 100_000, "nested too deeply"),
    ],
    ids=["BOM", "UTF-16", "UTF-16 without a mark", "latin-1", "binary", "nested"],
)
def test_a_settings_file_of_other_bytes(content: bytes, said: str) -> None:
    Path("odd.toml").write_bytes(content)
    message = refusal(config="odd.toml")
    assert message.startswith("odd.toml ")
    assert said in message
    assert "\n" not in message


def test_a_folder_in_place_of_the_settings_file() -> None:
    Path("folder").mkdir()
    assert refusal(config="folder") == "the settings file folder is a folder; name the TOML file itself (--config or COVERAGE_CONFIG)"
    assert "empty text" in refusal(config=" ")


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfCOVERAGE_CLOUD_LT=20\n", "COVERAGE_NOTE=Z\xfcrich\n".encode("latin-1")])
def test_an_env_file_of_other_bytes_is_refused(content: bytes) -> None:
    """Its first variable would go unread without a word."""
    Path(".env").write_bytes(content)
    assert refusal().startswith(".env ")


@pytest.mark.parametrize("blank", ["", "   ", "\t"])
@pytest.mark.parametrize(
    "variable",
    [
        "COVERAGE_DATA",
        "COVERAGE_CLOUD_LT",
        "COVERAGE_GRID_RESOLUTION",
        "COVERAGE_GRID_MEMORY_MB",
        "COVERAGE_WINDOW_START",
        "COVERAGE_AREA_SCOPE",
        "COVERAGE_HOLDINGS_SOURCE",
        "COVERAGE_DB_PORT",
        "COVERAGE_TILES_TABLE",
        "COVERAGE_ORCHESTRATION_CRON",
        "COVERAGE_SCAN_CROSS_CHECK",
    ],
)
def test_a_setting_given_empty_is_refused(variable: str, blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty data root was the current folder."""
    monkeypatch.setenv(variable, blank)
    said = refusal()
    assert f"{variable} = {blank!r} (from the environment): is empty; give a value, or leave it out" in said


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_setting_that_may_be_left_out_is_none_where_it_is_empty(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml("[holdings]\npath = 'elsewhere.parquet'\n")
    names = ["TARGETS", "NOTE", "OUTPUT_ZARR", "OUTPUT_PARQUET_DIR", "HOLDINGS_PATH", "DB_URL", "DB_HOST", "DB_PASSWORD", "DB_SCHEMA"]
    for name in [*names, "DB_SSLMODE", "TILES_CLOUD", "TILES_SCENE_ID", "WINDOW_END", "GRID_EXTENT", "GRID_H3_RES", "CONFIG"]:
        monkeypatch.setenv(f"COVERAGE_{name}", blank)
    settings = load_settings()
    assert (settings.targets.path, settings.note, settings.output.zarr, settings.output.parquet_dir) == (None, None, None, None)
    assert (settings.holdings.path, settings.db.url, settings.db.host, settings.db.password) == (None, None, None, None)
    assert (settings.db.schema_name, settings.db.sslmode, settings.tiles.cloud, settings.tiles.scene_id) == (None, None, None, None)
    assert (settings.window.end, settings.grid.extent, settings.grid.h3_res) == (None, None, None)
    assert str(settings.store().zarr) == "data/coverage.zarr"


@pytest.mark.parametrize("place", ["/", "//", "/ ", "s3://", "s3:///", "file://", "file:///"])
@pytest.mark.parametrize("variable", ["COVERAGE_DATA", "COVERAGE_OUTPUT_ZARR", "COVERAGE_OUTPUT_PARQUET_DIR"])
def test_nothing_is_written_to_a_root(variable: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, place)
    said = refusal()
    assert variable in said
    assert "name a folder or an address such as s3://bucket/folder" in said


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "variable",
    [
        "COVERAGE_CLOUD_LT",
        "COVERAGE_GRID_RESOLUTION",
        "COVERAGE_GRID_MIN_FRACTION",
        "COVERAGE_AREA_COASTAL_MARGIN_KM",
        "COVERAGE_HOLDINGS_MIN_IOU",
        "COVERAGE_HOLDINGS_MATCH_TOLERANCE_SECONDS",
        "COVERAGE_SCAN_TIMEOUT_SECONDS",
        "COVERAGE_SCAN_RESUME_HOURS",
        "COVERAGE_ORCHESTRATION_RETRY_DELAY_SECONDS",
    ],
)
def test_numbers_are_finite(variable: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, number)
    assert f"{variable} = " in refusal()


@pytest.mark.parametrize(
    "text",
    [
        "grid = 5",
        "gird = 5",
        "[gird]\nresolution = 1",
        "[grid]\nresolutoin = 1",
        "[grid]\nresolution = 'fine'",
        "[grid]\nmemory_mb = -1",
        "[grid]\nextent = [1, 2, 3]",
        "[grid]\nextent = [nan, 45, 16, 56]",
        "[window]\nstart = 2025-03-01\nend = 2025-01-31",
        "[window]\nstart = 12",
        "[sensors]\nkeys = []",
        "[sensors]\nkeys = [1]",
        "[sensors]\nkeys = 'emit,,'\nsources = 3",
        "[gap.desired]\nemit = nan",
        'data = "a\\u0000b"',
        "data = 3",
        "[orchestration]\nmonths_per_run = 0",
        DECLARED.replace("nominal_revisit_days = 12", "nominal_revisit_days = inf"),
        DECLARED.replace("default_desired_per_month = 2", "default_desired_per_month = nan"),
        DECLARED.replace("reach = [-60, 60]", "reach = [nan, 60]"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(text: str) -> None:
    write_toml(text)
    said = refusal()
    assert "\n" not in said
    assert "pydantic" not in said
    assert said.startswith("wrong setting: ") or "sensors.declared" in said


def test_a_sensor_key_that_no_file_name_holds() -> None:
    write_toml(DECLARED.replace("my-radar", "r" * 300))
    said = refusal()
    assert "has 300 letters" in said
    assert "64 at most" in said
    assert len(said) < 700
    write_toml(DECLARED.replace("my-radar", "r" * 64))
    assert load_settings().sensors.keys == ["r" * 64, "emit"]
