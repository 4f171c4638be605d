"""Orders at a real STAPI server: created once, polled, rejected, completed, cancelled, unreachable, and never sent twice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shapely
from stapi_pydantic import OrderPayload

from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.requests.config import TaskingSettings
from coverage_pipeline.requests.errors import RequestError
from coverage_pipeline.requests.flags import flag_for_request
from coverage_pipeline.requests.stapi import StapiClient, TaskingError, as_feature_collection, order_payload, poll_request, send_request
from coverage_pipeline.requests.store import Request, RequestStore
from tests.requests.stapi_server import StapiServer, stapi_server

pytestmark = pytest.mark.slow
WINDOW = (dt.date(2099, 3, 1), dt.date(2099, 3, 31))


@pytest.fixture
def server() -> Iterator[StapiServer]:
    with stapi_server() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> RequestStore:
    return RequestStore.at(tmp_path / "requests.sqlite")


def flagged(store: RequestStore, west: float = 9.0, **more: Any) -> Request:
    return store.get(flag_for_request(shapely.box(west, 47, west + 1, 48), WINDOW, "emit", "task", store=store, **more))


def client_of(server: StapiServer, seconds: float = 5.0, **more: Any) -> StapiClient:
    return StapiClient("stapi.test", TaskingSettings(endpoint=server.address, **more), Patience(seconds, 0, 0, 60, 10))


def test_the_payload_is_a_closed_interval_with_seconds(store: RequestStore) -> None:
    content = order_payload(flagged(store, wanted_cloud=20.0)).model_dump(mode="json", exclude_none=True)
    assert content["datetime"].replace("+00:00", "Z") == "2099-03-01T00:00:00Z/2099-03-31T23:59:59Z"
    assert content["order_parameters"] == {}
    assert content["filter"]["args"] == [{"property": "eo:cloud_cover"}, 20.0]
    assert issubclass(type(order_payload(flagged(store))), OrderPayload)


def test_an_order_is_created_once_and_polled_to_its_end(server: StapiServer, store: RequestStore) -> None:
    one = flagged(store)
    with client_of(server) as client:
        one = send_request(one, client, store, who="ann")
        assert (one.state, one.order_number, one.provider, one.history[-1].detail) == ("ordered", "order-1", "stapi.test", "received")
        again = client.order(one)
        assert (again.id, server.created) == ("order-1", 1)
        for code in ("accepted", "scheduled"):
            server.say("order-1", code)
        one = poll_request(one, client, store, who="ann")
        assert [row.detail for row in one.history] == ["", "received", "accepted", "scheduled"]
        assert poll_request(one, client, store, who="ann") == one  # nothing new
        server.say("order-1", "completed")
        one = poll_request(one, client, store, who="ann")
    assert (one.state, one.history[-1].detail) == ("acquired", "completed")


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("rejected", "rejected"),
        ("cancelled", "not_collected"),
        ("failed", "not_collected"),
        ("user_cancelled", "cancelled"),
        ("expired", "expired"),
    ],
)
def test_what_the_provider_says_becomes_our_state(code: str, state: str, server: StapiServer, store: RequestStore) -> None:
    with client_of(server) as client:
        one = send_request(flagged(store), client, store, who="ann")
        server.say("order-1", code, "clouds, everywhere")
        one = poll_request(one, client, store, who="ann")
    assert (one.state, one.history[-1].detail, one.history[-1].reason) == (state, code, "clouds, everywhere")


def test_a_time_out_is_looked_for_and_nothing_is_sent_twice(server: StapiServer, store: RequestStore) -> None:
    server.sleep_after_create = 3.0
    with client_of(server, seconds=0.7) as client:
        one = send_request(flagged(store), client, store, who="ann")
    assert (one.state, one.order_number, server.created) == ("ordered", "order-1", 1)


def test_an_order_on_a_later_page_is_found(server: StapiServer, store: RequestStore) -> None:
    server.page = 2
    with client_of(server) as client:
        requests = [flagged(store, west) for west in (1.0, 3.0, 5.0, 7.0, 9.0)]
        for one in requests:
            client.order(one)
        assert client.order(requests[4]).id == "order-5"
        assert len(list(client.orders())) == server.created == 5


def test_a_provider_that_is_down_leaves_the_request_as_it_was(server: StapiServer, store: RequestStore) -> None:
    one = flagged(store)
    gone = StapiServer(address="http://127.0.0.1:9")
    with client_of(gone) as client, pytest.raises(TaskingError, match=r"stapi\.test.*could not be reached"):
        send_request(one, client, store, who="ann")
    assert store.get(one.id).state == "requested"


def test_a_product_that_is_none_is_refused_and_said(server: StapiServer, store: RequestStore) -> None:
    one = flagged(store)
    with client_of(server, products={"emit": "no such"}) as client, pytest.raises(TaskingError, match="404"):
        send_request(one, client, store, who="ann")
    assert server.created == 0
    assert store.get(one.id).state == "requested"


def test_the_token_comes_from_the_environment_and_is_never_shown(
    server: StapiServer, store: RequestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = flagged(store)
    with client_of(server, token_env="STAPI_TOKEN_OF_TEST") as client, pytest.raises(TaskingError, match="STAPI_TOKEN_OF_TEST"):
        client.order(one)
    monkeypatch.setenv("STAPI_TOKEN_OF_TEST", "s3cr3t-word")
    with client_of(server, token_env="STAPI_TOKEN_OF_TEST") as client:
        client.order(one)
        assert set(server.tokens) == {"Bearer s3cr3t-word"}
        with pytest.raises(TaskingError) as error:
            client.statuses("none")
    assert "s3cr3t-word" not in str(error.value)


def test_only_task_requests_are_ordered(server: StapiServer, store: RequestStore) -> None:
    one = store.get(flag_for_request(shapely.box(9, 47, 10, 48), WINDOW, "emit", "ingest", store=store))
    with client_of(server) as client, pytest.raises(RequestError, match="ingest"):
        send_request(one, client, store, who="ann")


def test_the_export_has_the_shape_of_orders(server: StapiServer, store: RequestStore) -> None:
    from stapi_pydantic import Order, OrderStatus

    with client_of(server) as client:
        send_request(flagged(store), client, store, who="ann")
    (feature,) = as_feature_collection(store.all())["features"]
    assert Order[OrderStatus].model_validate(feature).id == "order-1"


@pytest.mark.parametrize("wrong", ["ftp://x.org", "https://user:pass@x.org", "https://x.org?key=1", "x.org"])
def test_an_endpoint_that_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"address|credentials"):
        TaskingSettings(endpoint=wrong)
