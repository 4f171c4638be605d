"""What is set of a provider is checked, and what is known of one is what it was recorded to say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from coverage_pipeline.catalog.providers import (
    LOOPBACK,
    PROVIDERS,
    UNKNOWN,
    ProviderError,
    ProviderProfile,
    overridden,
    profile_of,
)
from coverage_pipeline.catalog.sources.base import Window, WindowCount
from coverage_pipeline.catalog.sources.stac import StacSource
from coverage_pipeline.cli.app import app
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.sources import SettingsError
from tests.catalog.test_doctor import CDSE, DLR, EARTH_SEARCH, PC, QUICK, Recorded, collection, landing_page, recorded
from tests.shared_data import shared_data

EOAPI, LANDSATLOOK = "stac.eoapi.dev", "landsatlook.usgs.gov"
RECORDED = (PC, EARTH_SEARCH, CDSE, DLR, EOAPI, LANDSATLOOK)


def source_at(endpoint: str, **changes: Any) -> AvailableSource:
    return AvailableSource(**{"kind": "stac", "endpoint": endpoint, "collection_id": "scenes", **changes})


# A profile


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"page_size": 0}, ["page_size 0", "1..10000"]),
        ({"page_size": 10_001}, ["page_size 10001"]),
        ({"requests_per_second": 0}, ["requests_per_second 0", "> 0"]),
        ({"requests_per_second": float("nan")}, ["requests_per_second nan"]),
        ({"requests_per_second": 1001}, ["requests_per_second 1001"]),
        ({"parallel": 0}, ["parallel 0", "1..32"]),
        ({"parallel": 33}, ["parallel 33"]),
        ({"throttle_statuses": (200, 429)}, ["throttle_statuses [200]", "400..599"]),
        ({"features": ("fields", "telepathy")}, ["unknown features telepathy", "fields, sort, query, filter"]),
        ({"window_hours": 0.5}, ["window_hours 0.5", "1..8784"]),
        ({"window_hours": float("inf")}, ["window_hours inf"]),
    ],
)
def test_a_profile_refuses_what_cannot_be(values: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ProviderError) as raised:
        ProviderProfile(**values)
    for name in names:
        assert name in str(raised.value)


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PROVIDERS[PC].sources["features"] = "elsewhere"  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"pagesize": 5}, ["no such setting pagesize", "page_size", "requests_per_second"]),
        ({"sources": {}}, ["no such setting sources"]),
        ({"page_size": "many"}, ["page_size", "integer"]),
        ({"page_size": 0}, ["page_size 0"]),
        ({"features": ["fields", "telepathy"]}, ["features.1", "'fields'"]),
        ({"features": "fields"}, ["features"]),
        ({"method": "PUT"}, ["method", "'POST'"]),
        ({"parallel": 2.5}, ["parallel"]),
    ],
)
def test_an_override_names_what_is_wrong_with_it(changes: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ProviderError) as raised:
        overridden("stac.example.org", changes)
    for name in ("stac.example.org", *names):
        assert name in str(raised.value)


def test_an_override_changes_what_it_names_and_keeps_the_rest() -> None:
    changed = overridden(EARTH_SEARCH, {"page_size": 50, "features": ["fields"], "requests_per_second": None})
    known = PROVIDERS[EARTH_SEARCH]
    assert changed == replace(known, page_size=50, features=("fields",), requests_per_second=None)
    assert changed.throttle_statuses == (403, 429)
    assert overridden("stac.example.org", {"page_size": 50}) == replace(UNKNOWN, page_size=50)
    assert overridden("127.0.0.1:8080", {"parallel": 1}) == replace(LOOPBACK, parallel=1)
    assert overridden("stac.example.org", {}) == UNKNOWN


def test_the_profile_of_a_source() -> None:
    for host, profile in PROVIDERS.items():
        assert profile_of(source_at(f"https://{host}/v1")) == profile
    for host in ("127.0.0.1:8080", "127.3.2.1", "localhost", "localhost:80", "[::1]:8080"):
        assert profile_of(source_at(f"http://{host}")) == LOOPBACK, host
    for host in ("stac.example.org", "127.0.0.1.example.org", "localhost.example.org", "10.0.0.1"):
        assert profile_of(source_at(f"https://{host}")) == UNKNOWN, host
    set_otherwise = {EARTH_SEARCH: ProviderProfile(page_size=7, parallel=1)}
    source = source_at(f"https://{EARTH_SEARCH}/v1")
    assert profile_of(source, set_otherwise) == set_otherwise[EARTH_SEARCH]
    assert profile_of(replace(source, page_size=9), set_otherwise) == ProviderProfile(page_size=9, parallel=1)
    assert profile_of(replace(source, page_size=9)).page_size == 9
    assert profile_of(source_at("https://stac.example.org"), set_otherwise) == UNKNOWN


# Its settings


def test_a_profile_is_set_in_the_file_and_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("build.toml").write_text('[providers."stac.example.org"]\npage_size = 50\nfeatures = ["fields"]\n')
    profiles = load_settings("build.toml").scan_options().providers
    assert profiles == {"stac.example.org": ProviderProfile(page_size=50, features=("fields",))}
    monkeypatch.setenv("COVERAGE_PROVIDERS", json.dumps({"stac.example.org": {"page_size": 60}, EARTH_SEARCH: {"parallel": 1}}))
    profiles = load_settings("build.toml").scan_options().providers
    assert profiles["stac.example.org"].page_size == 60
    assert profiles[EARTH_SEARCH] == replace(PROVIDERS[EARTH_SEARCH], parallel=1)


@pytest.mark.parametrize(
    ("file", "environment", "names"),
    [
        ('[providers."stac.example.org"]\npage_size = 0\n', None, ["build.toml", "providers", "stac.example.org", "page_size 0"]),
        ('[providers."stac.example.org"]\npagesize = 5\n', None, ["build.toml", "providers", "no such setting pagesize", "page_size"]),
        ('[providers."stac.example.org"]\nmethod = "PUT"\n', None, ["build.toml", "providers", "method", "POST"]),
        ("[providers]\nparallel = 5\n", None, ["build.toml", "providers", "parallel"]),
        ("", '{"stac.example.org": {"page_size": 0}}', ["COVERAGE_PROVIDERS", "stac.example.org", "page_size 0"]),
        ("", '{"stac.example.org": {"pagesize": 5}}', ["COVERAGE_PROVIDERS", "no such setting pagesize"]),
        ("", "stac.example.org", ["COVERAGE_PROVIDERS", "not JSON"]),
    ],
)
def test_a_wrong_profile_ends_with_2_and_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, file: str, environment: str | None, names: list[str]
) -> None:
    Path("build.toml").write_text(file)
    if environment is not None:
        monkeypatch.setenv("COVERAGE_PROVIDERS", environment)
    with pytest.raises(SettingsError):
        load_settings("build.toml")
    for command in (["doctor"], ["scan", "emit", "2025-01"]):
        result = CliRunner().invoke(app, [*command, "--config", "build.toml"], catch_exceptions=False)
        assert result.exit_code == 2
        words = " ".join(result.output.split())
        for name in names:
            assert name in words
    assert [path.name for path in Path.cwd().iterdir()] == ["build.toml"]


# Against what was recorded


def claims(host: str) -> set[str]:
    """The extensions of item-search that a recorded landing page claims."""
    return {uri.rpartition("#")[2] for uri in landing_page(host)[1]["conformsTo"] if "/item-search#" in uri}


@pytest.mark.parametrize("host", RECORDED)
def test_what_a_profile_trusts_is_claimed(host: str) -> None:
    profile = PROVIDERS.get(host, UNKNOWN)
    assert set(profile.features) <= claims(host)
    assert any(uri.endswith("/item-search") for uri in landing_page(host)[1]["conformsTo"])


def test_what_is_not_claimed_is_not_trusted() -> None:
    assert "filter" not in claims(EARTH_SEARCH) | set(PROVIDERS[EARTH_SEARCH].features)  # it takes one, and ignores it
    assert "query" not in claims(DLR) | set(PROVIDERS[DLR].features)


@pytest.mark.filterwarnings("ignore::pystac_client.warnings.PystacClientWarning")  # Landsatlook names no method
@pytest.mark.parametrize("host", RECORDED)
def test_the_right_search_link_is_found_in_a_recorded_landing_page(host: str) -> None:
    """By type: DLR has one for HTML, too, at another address. What the query is, is in the body, or added to what the address has."""
    api = Recorded(host, "scenes", [])
    with recorded(api):
        profile = replace(PROVIDERS.get(host, UNKNOWN), requests_per_second=None)
        for method in ("POST", "GET"):
            source = StacSource(source_at(api.endpoint), replace(profile, method=method), QUICK, "test 2025-01")  # type: ignore[arg-type]
            link = source.open().get_search_link()
            assert link is not None
            recorded_link = next(link for link in landing_page(host)[1]["links"] if link["rel"] == "search" and "json" in link["type"])
            assert link.absolute_href == recorded_link["href"].replace(f"https://{host}", api.address)
            january = Month(2025, 1)
            asked = source.total(Window(january.start, january.end, 10), None)
            assert asked == 0
            assert urlsplit(link.absolute_href).path.endswith(api.paths[-1])
            assert str(api.searches[-1]["limit"]) == "10"
            assert "2025-01-01T00:00:00Z/2025-02-01T00:00:00Z" in api.searches[-1]["datetime"]
            if host == DLR and method == "GET":
                assert api.searches[-1]["f"] == "application/geo+json"  # what the link's address had stays


@pytest.mark.parametrize("host", [PC, EARTH_SEARCH, DLR, LANDSATLOOK])
def test_registered_collections_are_among_the_recorded_children(host: str) -> None:
    children = {urlsplit(link["href"]).path.rpartition("/")[2] for link in landing_page(host)[1]["links"] if link["rel"] == "child"}
    for sensor in COVERAGE_SENSORS.values():
        for source in sensor.available_sources:
            if source.provider == host:
                assert source.collection_id in children


def test_recorded_collections_have_the_registry_s_ids_and_platforms() -> None:
    seen = 0
    for path in sorted((shared_data() / "api").glob("collection__*.json")):
        _, host, name = path.stem.split("__")
        found = collection(host, name)
        sources = [
            (sensor, source)
            for sensor in COVERAGE_SENSORS.values()
            for source in sensor.available_sources
            if source.provider == host and source.collection_id == found["id"]
        ]
        assert sources, path.name
        for sensor, source in sources:
            seen += 1
            assert set(source.platforms) <= {platform.lower() for platform in found["summaries"]["platform"]}
            begin = found["extent"]["temporal"]["interval"][0][0][:7]
            assert sensor.first_month is not None
            assert begin <= str(sensor.first_month)
    assert seen == 3


def test_a_search_of_a_recorded_api_gives_pages() -> None:
    """Each recorded API is searched as a scan does it, by either method."""
    for host in (PC, EARTH_SEARCH, CDSE, DLR):
        api = Recorded(host, "scenes", [])
        with recorded(api):
            profile = replace(PROVIDERS[host], requests_per_second=None)
            source = StacSource(source_at(api.endpoint), profile, QUICK, "test 2025-01")
            january = Month(2025, 1)
            assert list(source.pages(Window(january.start, january.end, 10), None, WindowCount())) == [[]]
            assert api.searches[-1]["fields"] in (
                "-assets",
                {"excludes": ["assets"], "includes": []},
                {"exclude": ["assets"], "include": []},
            )
