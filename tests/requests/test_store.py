"""The request store: states, conflicts, upgrades and failures, on SQLite and on PostgreSQL."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from coverage_pipeline.requests.database import RequestDatabase
from coverage_pipeline.requests.errors import RequestConflict, RequestError, RequestStoreError
from coverage_pipeline.requests.states import STAPI_STATES, STATES, TRANSITIONS, require_transition
from coverage_pipeline.requests.store import NewRequest, RequestStore
from tests.services import PostgisServer, postgis  # noqa: F401 a fixture

SQUARE = '{"type":"Polygon","coordinates":[[[9,47],[10,47],[10,48],[9,48],[9,47]]]}'
FORMER_TABLE = """CREATE TABLE requests (id TEXT PRIMARY KEY, created TEXT NOT NULL, sensor TEXT NOT NULL, kind TEXT NOT NULL,
window_start TEXT NOT NULL, window_end TEXT NOT NULL, geometry TEXT NOT NULL)"""
FORMER_ROW = ("0123456789abcdef", "2025-06-01T00:00:00+00:00", "emit", "task", "2025-07-01", "2025-07-31", SQUARE)


def wanted(number: int = 1) -> NewRequest:
    return NewRequest(f"{number:016x}", "emit", "task", dt.date(2025, 7, 1), dt.date(2025, 7, 31), SQUARE, who="ann", note="please")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.service)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'deeper' / 'requests.sqlite'}"
        return
    server: PostgisServer = request.getfixturevalue("postgis")
    name = server.create_database(extension=False)
    yield f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/{name}"


def store_at(url: str) -> RequestStore:
    return RequestStore(RequestDatabase(url))


def test_what_was_given_up_may_be_asked_for_again(url: str) -> None:
    """Regression: it was taken for the request that was there, cancelled as it was, and nobody asked for anything."""
    store = store_at(url)
    first = store.add(wanted())
    store.move(store.get(first.id), "cancelled", who="ann", reason="not now")
    second = store.add(wanted())
    assert (second.is_new, second.id == first.id) == (True, False)
    assert store.add(wanted()) == (second.id, False)
    store.move(store.move(store.get(second.id), "ordered", who="ann"), "not_collected", who="stapi")
    third = store.add(wanted())
    assert third.is_new
    assert [store.get(one.id).state for one in (first, second, third)] == ["cancelled", "not_collected", "requested"]
    store.move(store.move(store.get(third.id), "acquired", who="evidence"), "closed", who="evidence")
    assert store.add(wanted()) == (third.id, False)


def test_a_request_goes_through_its_states_and_keeps_its_history(url: str) -> None:
    store = store_at(url)
    assert store.add(wanted()).is_new
    assert not store_at(url).add(wanted()).is_new  # the same again
    one = store.get("00000000")
    assert (one.state, one.who, one.note, one.version) == ("requested", "ann", "please", 1)
    one = store.move(one, "ordered", who="bob", order_number="N1", provider="stapi.example.org", evidence={"order": "N1"})
    one = store.move(one, "ordered", who="bob", detail="scheduled")
    one = store.move(one, "acquired", who="evidence", evidence={"scene_keys": ["s1"]})
    one = store.move(one, "closed", who="evidence", evidence={"holdings": ["h1"]})
    assert [row.state for row in one.history] == ["requested", "ordered", "ordered", "acquired", "closed"]
    assert [row.number for row in one.history] == [1, 2, 3, 4, 5]
    assert one.history[-1].evidence == {"holdings": ["h1"]}
    assert (one.order_number, one.provider, one.version) == ("N1", "stapi.example.org", 5)
    with pytest.raises(RequestError, match="closed: cancelled cannot follow"):
        store.move(one, "cancelled", who="ann")
    assert [one.id for one in store_at(url).all(states=["closed"])] == ["0000000000000001"]
    assert store_at(url).all(states=["requested"]) == store_at(url).all(sensor="enmap") == store_at(url).all(who="bob") == []


def test_of_two_who_change_one_at_once_one_is_told(url: str) -> None:
    store, other = store_at(url), store_at(url)
    store.add(wanted())
    mine, theirs = store.get("0" * 15 + "1"), other.get("0" * 15 + "1")
    other.move(theirs, "cancelled", who="bob")
    with pytest.raises(RequestConflict, match=r"changed by bob .*now cancelled.*after ann read it"):
        store.move(mine, "ordered", who="ann")
    with pytest.raises(RequestConflict):
        store.annotate(mine, "late", who="ann")
    assert [row.state for row in store.get("0").history] == ["requested", "cancelled"]


def test_many_writers_at_once_lose_nothing(url: str) -> None:
    def work(number: int) -> None:
        store = store_at(url)
        store.add(wanted(number))
        store.add(wanted(99))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(1, 13)))
    found = store_at(url).all()
    assert len(found) == 13
    assert all(len(one.history) == 1 for one in found)


@pytest.mark.parametrize("state", STATES)
def test_every_transition_is_in_the_table_alone(state: str) -> None:
    for after in STATES:
        if after in TRANSITIONS[state]:  # type: ignore[index]
            require_transition("r", state, after)  # type: ignore[arg-type]
        else:
            with pytest.raises(RequestError, match="cannot follow"):
                require_transition("r", state, after)  # type: ignore[arg-type]


def test_every_code_of_stapi_has_a_state() -> None:
    from stapi_pydantic import OrderStatusCode

    assert {code.value for code in OrderStatusCode} <= set(STAPI_STATES)
    assert STAPI_STATES["cancelled"] == "not_collected"  # by the provider
    assert STAPI_STATES["user_cancelled"] == "cancelled"


def former(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(FORMER_TABLE)
        names = ("id", "created", "sensor", "kind", "window_start", "window_end", "geometry")
        table = sa.table("requests", *(sa.column(name) for name in names))
        connection.execute(sa.insert(table).values(dict(zip(names, FORMER_ROW, strict=True))))
    engine.dispose()


def test_the_table_of_the_first_versions_is_upgraded_and_keeps_its_rows(url: str) -> None:
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    former(url)
    (one,) = store_at(url).all()
    assert (one.id, one.sensor, one.state, one.who) == ("0123456789abcdef", "emit", "requested", "")
    assert one.history[0].time == "2025-06-01T00:00:00+00:00"
    assert store_at(url).move(one, "cancelled", who="ann").state == "cancelled"


def _open(url: str) -> int:
    return len(store_at(url).all())


def test_processes_that_start_at_once_upgrade_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'requests.sqlite'}"
    former(url)
    with multiprocessing.get_context("forkserver").Pool(3) as pool:
        assert pool.map(_open, [url] * 6) == [1] * 6


def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    store_at(url).add(wanted())
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE request_schema SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(RequestStoreError, match=r"schema 9999.*upgrade this one"):
        store_at(url).all()
    with pytest.raises(RequestStoreError, match="9999"):
        store_at(url).add(wanted(2))


def test_a_locked_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coverage_pipeline.requests import database

    monkeypatch.setattr(database, "_WAIT_SECONDS", 0.2)
    path = tmp_path / "requests.sqlite"
    store = RequestStore.at(path)
    store.add(wanted())
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RequestStoreError, match=r"locked.*nothing was written.*another program holds it"):
            store.add(wanted(2))
    assert store.add(wanted(2)).is_new


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    store = RequestStore.at(path)
    store.add(wanted())
    sa.event.listen(store.database._engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))
    big = NewRequest("f" * 16, "emit", "task", dt.date(2025, 7, 1), dt.date(2025, 7, 2), SQUARE, note="x" * 200_000)
    with pytest.raises(RequestStoreError, match=r"full.*nothing was written; make room"):
        store.add(big)
    assert [one.id for one in RequestStore.at(path).all()] == ["0000000000000001"]


def test_a_database_that_is_down_is_named_without_its_password() -> None:
    store = store_at("postgresql://ann:s3cr3t-word@127.0.0.1:9/none")
    with pytest.raises(RequestStoreError, match="cannot read the requests") as error:
        store.all()
    assert "s3cr3t-word" not in str(error.value)


@pytest.mark.parametrize("wrong", ["", "mysql://a@b/c", "sqlite://", "requests.sqlite"])
def test_an_address_that_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(RequestStoreError, match=r"requests\.url"):
        store_at(wrong)


def test_an_id_that_is_none_or_several_is_refused(tmp_path: Path) -> None:
    store = RequestStore.at(tmp_path / "requests.sqlite")
    store.add(wanted(1))
    store.add(wanted(2))
    for text in ("", "zz", "00"):
        with pytest.raises(RequestError, match="requests list"):
            store.get(text)
