"""A secret that is planted in an address is nowhere to be seen: in no message, report, log or traceback."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from coverage_pipeline.catalog.doctor import examine
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.demand.errors import LocationsError
from coverage_pipeline.demand.targets import fetch_targets
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.holdings.config import TilesSettings
from coverage_pipeline.holdings.errors import HoldingsUnavailable
from coverage_pipeline.holdings.sources.file import FileHoldings
from coverage_pipeline.holdings.sources.postgis import PostgisHoldings
from coverage_pipeline.redaction import RedactingFilter, has_login, public_address, redact
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource, SensorError
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.errors import StoreError
from coverage_pipeline.storage.store import Store
from coverage_pipeline.storage.tables import read_parquet

MARK = "S3cr3tMark"
"""Stands in every planted secret; where it is to be seen, so is the secret."""

# Half of a secret before MARK and half behind it, so that a cut in either place is found out.
ODD = st.text(st.sampled_from("abXY09-_.~!*'();:@&=+$,/?#[]%^|{}\\"), max_size=6)
SECRETS = st.builds(lambda before, behind: f"{before}{MARK}{behind}{MARK}", ODD, ODD)
ESCAPED = SECRETS.map(lambda secret: quote(secret, safe=""))
SCHEMES = st.sampled_from(["https", "http", "postgresql", "postgresql+psycopg2", "s3", "gs", "az", "ftp", "sftp", "hdfs", "redis"])
HOSTS = st.sampled_from(["example.org", "127.0.0.1:5432", "[::1]:8080", "bucket", "db"])
PATHS = st.sampled_from(["", "/", "/eo", "/a/b/holdings.parquet", "/S2B_MSIL2A_20250101T101010_N0511_R022_T33UUP_20250101T120000.SAFE"])
KEYS = st.sampled_from(
    ["X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token", "sig", "token", "access_token", "key", "password", "x"]
)


@st.composite
def addresses(draw: st.DrawFn) -> str:
    """An address with a secret in its user info, query, fragment or path."""
    scheme, host, path = draw(SCHEMES), draw(HOSTS), draw(PATHS)
    match draw(st.sampled_from(["password", "spoilt password", "user", "query", "two", "fragment", "token in path", "web token"])):
        case "password":
            return f"{scheme}://reader:{draw(ESCAPED)}@{host}{path}"
        case "spoilt password":  # nobody has escaped it
            return f"{scheme}://reader:{draw(SECRETS)}@{host}{path}"
        case "user":
            return f"{scheme}://{draw(ESCAPED)}@{host}{path}"
        case "query":
            return f"{scheme}://{host}{path}?{draw(KEYS)}={draw(ESCAPED)}"
        case "two":
            return f"{scheme}://me:{draw(ESCAPED)}@{host}{path}?a=1&{draw(KEYS)}={draw(ESCAPED)}"
        case "fragment":
            return f"{scheme}://{host}{path}#{draw(KEYS)}={draw(ESCAPED)}"
        case "token in path":
            return f"{scheme}://{host}/a9{MARK}Qx7Tk2LmPz/file.parquet"
        case _:
            return f"{scheme}://{host}/eyJhbGciOiJIUzI1.{MARK}.{MARK}/file.parquet"


SENTENCES = st.sampled_from(
    [
        "{}",
        "holdings file {} is not there; set COVERAGE_HOLDINGS_PATH",
        "cannot read '{}': [Errno 5] it is broken",
        'cannot read "{}", which is wrong',
        "[Errno 2] No such file: ({})",
        "<{}> said no: 403\nand the next line",
        "first https://example.org/docs, then {}.",
    ]
)


@given(addresses(), SENTENCES)
@example(f"postgresql://reader:pa/{MARK}@db/eo", "{}")
@example(f"postgresql://reader:pa@{MARK}@db/eo", "{}")
@example(f"postgresql://reader:pa?{MARK}@db/eo", "cannot read '{}': broken")
@example(f"https://example.org/a?sig=a@{MARK}", "{}")
@example(f"https://example.org/a?sig=a'{MARK}", "cannot read '{}': broken")
def test_no_secret_of_an_address_is_shown(address: str, sentence: str) -> None:
    assert MARK not in public_address(address)
    text = sentence.format(address)
    assert MARK not in redact(text, address)
    assume(not any(mark in address for mark in "\"'<>`"))  # quoted in a text, nothing tells where such an address ends
    assert MARK not in redact(text)
    assert MARK not in str(PlannerError(text))


@given(addresses())
def test_redacting_twice_changes_nothing(address: str) -> None:
    once = redact(f"cannot read {address}: no")
    assert redact(once) == once
    assert public_address(public_address(address)) == public_address(address)


@given(addresses())
@example(f"https://reader:{MARK}:0?{MARK}@example.org")
def test_what_a_library_quotes_in_pieces_is_hidden_where_the_address_is_known(address: str) -> None:
    _, _, rest = address.partition("://")
    pieces = [rest, f"/{rest.partition('/')[2]}", f"?{rest.partition('?')[2]}"]
    login, has_user, behind = rest.rpartition("@")
    if has_user and has_login(address) and "?" not in behind and "#" not in behind:
        pieces += [login, login.partition(":")[2]]
    for piece in pieces:
        assert MARK not in redact(f"HTTPConnectionPool(host='h', port=80): Max retries exceeded with url: {piece} (Caused by X)", address)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://example.org/data/holdings.parquet", "https://example.org/data/holdings.parquet"),
        ("https://example.org/data/holdings.parquet?X-Amz-Signature=abc&x=1", "https://example.org/data/holdings.parquet?…"),
        ("postgresql://reader:secret@db.example.org:5432/eo", "postgresql://db.example.org:5432/eo"),
        ("s3://key:secret@bucket/coverage", "s3://bucket/coverage"),
        ("simplecache::https://me:pw@example.org/f?sig=1", "simplecache::https://example.org/f?…"),
        ("/data#2/run?x/a@b", "/data#2/run?x/a@b"),  # a path of this machine, in which these are letters
        ("file:///data#2/a?b", "file:///data#2/a?b"),
        ("memory://bucket/planner", "memory://bucket/planner"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
    ],
)
def test_what_is_no_secret_stays(address: str, shown: str) -> None:
    assert public_address(address) == shown
    assert redact(f"cannot read {address}: no") == f"cannot read {shown}: no"


@pytest.mark.parametrize(
    "text",
    [
        "the holdings database refused the connection; check COVERAGE_DB_USER, COVERAGE_DB_PASSWORD, COVERAGE_DB_NAME",
        "emit 2025-01: stac.example.org (emit-l2a) gave an incomplete answer (1001 announced, 500 received); try again later",
        "no such setting; did you mean COVERAGE_DATA?",
        "write postgresql://user:password@host:5432/name",
        'check endpoint in [[sensors.sources.emit]] or set features = ["fields"] in [providers."stac.example.org:8080"]',
        "dashboard: http://127.0.0.1:5006/app (Ctrl-C stops it)",
    ],
)
def test_our_own_sentences_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "text",
    [
        f"S3FileSystem({{'key': 'AKIA{MARK}', 'secret': 'a b{MARK}', 'token': \"{MARK}\", 'anon': False}})",
        f"connect(host=db password={MARK} user=reader)",
        f"connect(host=db password='two words {MARK}')",
        f"Authorization: Bearer {MARK}.{MARK}",
        f"{{'Authorization': 'Basic {MARK}=='}}",
        f"aws_secret_access_key = {MARK}",
        f"COVERAGE_HOLDINGS_PASSWORD = '{MARK}' (from the environment): no such setting",
        f"reader:{MARK}@db.example.org/eo",
        f"postgresql://reader:two words{MARK}@db/eo",
        f"Max retries exceeded with url: /a/b?sig={MARK}&x=1 (Caused by ConnectTimeoutError)",
    ],
)
def test_what_its_name_says_is_secret_is_hidden(text: str) -> None:
    assert MARK not in redact(text)
    assert MARK not in str(PlannerError(text))


# In the settings


@settings(deadline=None, max_examples=20)
@given(addresses())
@example(f"https://reader::{MARK}':{MARK}@example.org")  # regression: what stood behind the quotation mark was repeated
@example(f"https://reader:\"{MARK}':{MARK}@example.org")
def test_no_setting_repeats_an_address_that_it_refuses_or_takes(address: str) -> None:
    for section, names in PLACES.items():
        for name in names:
            said = _refusal({section: {name: address}} if name else {section: address})
            assert MARK not in said, (section, name)
    source = {"kind": "ftp", "endpoint": address, "collection_id": "x"}
    others: list[dict[str, Any]] = [{"providers": {address: {"page_size": 0}}}, {"sensors": {"sources": {"emit": [source]}}}]
    for overrides in others:
        said = _refusal(overrides)
        assert said
        assert MARK not in said


PLACES = {
    "db": ("url", "host", "port", "name", "user", "schema", "hosst"),
    "data": ("",),
    "output": ("zarr", "parquet_dir"),
    "tiles": ("table", "scene_id", "tabel"),
    "holdings": ("path", "source", "paht"),
    "grid": ("rule", "resolution"),
    "sensors": ("keys",),
    "window": ("start",),
}


def _refusal(overrides: dict[str, Any]) -> str:
    """The traceback of a refusal; empty where the settings are taken."""
    try:
        load_settings(overrides=overrides, environment=False)
    except SettingsError as error:
        return _traceback(error)
    return ""


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["host", "name", "user", "schema"]), addresses())
def test_a_whole_address_is_no_name_of_a_database(part: str, address: str) -> None:
    with pytest.raises(SettingsError, match=rf"db\.{part} \(from the command line\): must be a "):
        load_settings(overrides={"db": {part: address}}, environment=False)


@settings(deadline=None, max_examples=50)
@given(SECRETS)
@example(f"a@{MARK}")
@example(f"a/{MARK}")
def test_a_password_that_is_not_escaped_is_refused_or_wholly_the_password(secret: str) -> None:
    """No part of it may be taken for the host or the database, which are shown."""
    overrides = {"db": {"url": f"postgresql://reader:{secret}@db.example.org/eo"}}
    said = _refusal(overrides)
    assert MARK not in said
    if said:
        assert "db.url" in said
    else:
        loaded = load_settings(overrides=overrides, environment=False)
        assert PostgisHoldings(loaded.db, TilesSettings()).name == "table tiles of eo on db.example.org"
        assert MARK not in repr(loaded)


@pytest.mark.parametrize("setting", ["data", "output.zarr", "output.parquet_dir"])
def test_a_place_to_write_to_holds_no_credentials(setting: str) -> None:
    section, _, name = setting.partition(".")
    address = f"s3://key:{MARK}@bucket/coverage"
    with pytest.raises(SettingsError, match=f"{setting}.*AWS_SECRET_ACCESS_KEY") as refused:
        load_settings(overrides={section: {name: address} if name else address}, environment=False)
    assert MARK not in _traceback(refused.value)


# Where files are read


@pytest.fixture
def closed() -> str:
    """Host and port where nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


SIGNED = ["http://{}/h.parquet?X-Amz-Signature=" + MARK, "http://me:" + MARK + "@{}/h.geojson", "http://{}/h.gpkg?sig=" + MARK + "#" + MARK]


@pytest.mark.parametrize("address", SIGNED)
def test_a_signed_link_of_holdings_is_in_no_error(address: str, closed: str, caplog: pytest.LogCaptureFixture) -> None:
    source = FileHoldings(address.format(closed), TilesSettings())
    assert MARK not in source.name
    with caplog.at_level(logging.DEBUG), pytest.raises(HoldingsUnavailable, match="COVERAGE_HOLDINGS_PATH") as refused:
        source.timeless(None)
    assert closed in str(refused.value)
    assert MARK not in _traceback(refused.value) + caplog.text


@pytest.mark.parametrize("address", SIGNED)
def test_a_signed_link_of_targets_is_in_no_error(address: str, closed: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(LocationsError, match="COVERAGE_TARGETS") as refused:
        fetch_targets(address.format(closed))
    assert MARK not in _traceback(refused.value) + caplog.text


def test_credentials_in_the_address_of_a_store_are_in_no_error(tmp_path: Path) -> None:
    store = Store.below(f"memory://key:{MARK}@bucket/coverage")
    with pytest.raises(StoreError) as refused:
        read_parquet(store.root / "a.parquet")
    assert MARK not in _traceback(refused.value)


@pytest.mark.parametrize("kind", ["stac", "static", "geoparquet", "cmr"])
def test_the_key_of_an_endpoint_is_in_no_check_of_the_doctor(kind: str, closed: str, caplog: pytest.LogCaptureFixture) -> None:
    source = AvailableSource(kind, f"http://{closed}/v1?token={MARK}", "emit")  # type: ignore[arg-type]
    options = ScanOptions(patience=Patience(0.5, 0, 0.01, 5))
    with caplog.at_level(logging.DEBUG, logger="coverage_pipeline"):
        checks = list(examine(COVERAGE_SENSORS["emit"], source, options))
    assert checks[-1].verdict in ("failed", "wrong")
    assert MARK not in "".join(check.said for check in checks) + caplog.text


def test_credentials_of_an_endpoint_are_refused_though_not_escaped() -> None:
    for login in (f"me:{MARK}", f"me:a/{MARK}", f"me:a@{MARK}", MARK):
        with pytest.raises(SensorError, match="credentials do not belong in an address") as refused:
            AvailableSource("geoparquet", f"https://{login}@example.org/v1", "emit")
        assert MARK not in str(refused.value)


def test_the_logs_of_http_libraries_are_redacted(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("urllib3.connectionpool", "urllib3.connection"):
        logger = logging.getLogger(name)
        assert any(isinstance(one, RedactingFilter) for one in logger.filters)
        with caplog.at_level(logging.DEBUG, logger=name):
            logger.warning("Failed to parse headers (url=%s): %s", f"https://example.org:443/a?sig={MARK}", "why")
            logger.debug('%s://%s:%s "%s %s %s" %s', "https", "example.org", 443, "GET", f"/a?sig={MARK}", "HTTP/1.1", 200)
    assert "Failed to parse headers" in caplog.text
    assert MARK not in caplog.text


def _traceback(error: BaseException) -> str:
    """As it is printed, with all that it came from."""
    return "".join(traceback.format_exception(error))
