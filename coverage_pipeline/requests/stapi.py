"""Orders by STAPI: a request as its ``OrderPayload``, requests as STAPI-shaped GeoJSON, and a client that never orders twice.

The client is our own because the one of the specification's authors is not released; payloads and answers are stapi-pydantic's models.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urljoin, urlsplit

import shapely
from pydantic import ValidationError
from stapi_pydantic import Order, OrderParameters, OrderPayload, OrderStatus

from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.catalog.http import HttpSession
from coverage_pipeline.catalog.patience import Patience
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.requests.config import TaskingSettings
from coverage_pipeline.requests.errors import RequestError
from coverage_pipeline.requests.states import STAPI_STATES
from coverage_pipeline.requests.store import Request, RequestStore

_MOST_PAGES = 1000


class TaskingError(RequestError):
    """A provider of tasking could not be asked, or gave an answer that is none."""


def order_payload(request: Request) -> OrderPayload[OrderParameters]:
    """What is sent for a request: its place, its window as a closed interval with seconds, and its cloud as a CQL2 filter."""
    start = dt.datetime.combine(request.window_start, dt.time(), dt.UTC)
    end = dt.datetime.combine(request.window_end, dt.time(23, 59, 59), dt.UTC)
    content: dict[str, Any] = {
        "datetime": f"{start:%Y-%m-%dT%H:%M:%SZ}/{end:%Y-%m-%dT%H:%M:%SZ}",
        "geometry": request.geometry,
        "order_parameters": {},
    }
    if request.wanted_cloud is not None:
        content["filter"] = {"op": "<", "args": [{"property": "eo:cloud_cover"}, request.wanted_cloud]}
    return OrderPayload[OrderParameters].model_validate_json(json.dumps(content))


def as_feature_collection(requests: Sequence[Request]) -> dict[str, Any]:
    """Requests as GeoJSON in the shape of STAPI's orders; what is ours has the prefix ``planner:``."""
    return {"type": "FeatureCollection", "features": [_as_order(request) for request in requests]}


def _as_order(request: Request) -> dict[str, Any]:
    payload = order_payload(request).model_dump(mode="json", exclude_none=True)
    last = request.history[-1]
    codes = {"acquired": "completed", "closed": "completed", "cancelled": "user_cancelled", "not_collected": "cancelled"}
    known = {"rejected": "rejected", "expired": "expired"} | codes
    status = {"timestamp": last.time, "status_code": last.detail or known.get(request.state, "received"), "links": []}
    if last.reason:
        status["reason_text"] = last.reason
    properties: dict[str, Any] = {
        "product_id": request.sensor,
        "created": request.created,
        # A request that nobody ordered has no status of STAPI: its payload waits.
        "status": None if request.state == "requested" else status,
        "search_parameters": {name: payload[name] for name in ("datetime", "geometry", "filter") if name in payload},
        "opportunity_properties": {},
        "order_parameters": {},
        "planner:state": request.state,
        "planner:kind": request.kind,
        "planner:who": request.who,
        "planner:note": request.note,
        "planner:scenes": list(request.scenes),
        "planner:provider": request.provider,
        "planner:order_number": request.order_number,
        "planner:history": [
            {"time": row.time, "state": row.state, "detail": row.detail, "who": row.who, "reason": row.reason, "evidence": row.evidence}
            for row in request.history
        ],
    }
    return {
        "type": "Feature",
        "stapi_type": "Order",
        "stapi_version": "0.1.0",
        "id": request.order_number or request.id,
        "geometry": request.geometry,
        "properties": properties,
        "links": [],
    }


class StapiClient:
    """Orders at one provider. The token goes to the endpoint's host alone; redirects to another are refused."""

    def __init__(self, host: str, settings: TaskingSettings, patience: Patience | None = None) -> None:
        self.host = host
        self.settings = settings
        self._patience = patience or Patience()
        profile = ProviderProfile(requests_per_second=5)
        self._session = HttpSession(urlsplit(settings.endpoint).netloc, profile, self._patience, self._failed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._session.__exit__(kind, error, trace)

    def _failed(self, kind: type[CatalogError], message: str) -> CatalogError:
        return kind(f"tasking at {self.host}: the provider {message}")

    def _headers(self) -> dict[str, str] | None:
        if self.settings.token_env is None:
            return None
        token = os.environ.get(self.settings.token_env)
        if not token:
            raise TaskingError(f"tasking at {self.host}: the environment has no {self.settings.token_env}, which token_env names")
        return {"Authorization": f"Bearer {token}"}

    def product(self, sensor: str) -> str:
        """The provider's product id of a sensor."""
        return self.settings.products.get(sensor, sensor)

    def order(self, request: Request) -> Order[OrderStatus]:
        """Order what a request asks for; where an order of the same product, place and window is there already, that one.

        Raises ``TaskingError``: after a time-out it says whether the order was found there; it is never sent a second time.
        """
        earlier = self._find(request)
        if earlier is not None:
            return earlier
        address = f"{self.settings.endpoint}/products/{quote(self.product(request.sensor), safe='')}/orders"
        body = order_payload(request).model_dump(mode="json", exclude_none=True)
        try:
            answer = self._session.fetch(address, doing=f"ordering request {request.id}", body=body, headers=self._headers(), tries=1)
        except CatalogError as error:
            if error.status is not None:  # it answered, and refused
                raise TaskingError(str(error)) from None
            try:
                arrived = self._find(request)
            except TaskingError:
                unsure = "whether the order arrived is not known: ask again (requests order), nothing is sent twice"
                raise TaskingError(f"{error}; {unsure}") from None
            if arrived is None:
                raise TaskingError(f"{error}; the order did not arrive: ask again (requests order)") from None
            return arrived
        return self._order_of(answer.content)

    def orders(self) -> Iterator[Order[OrderStatus]]:
        """All orders that the provider lists, page by page; raises ``TaskingError``."""
        address: str | None = f"{self.settings.endpoint}/orders?limit=100"
        for _ in range(_MOST_PAGES):
            if address is None:
                return
            content = self._get(address, "listing the orders")
            features = content.get("features") if isinstance(content, dict) else None
            if not isinstance(features, list):
                raise TaskingError(f'tasking at {self.host}: the list of orders is none; check endpoint in [tasking."{self.host}"]')
            yield from (self._order_of(feature) for feature in features)
            links = content.get("links") or []
            following = next((link.get("href") for link in links if isinstance(link, dict) and link.get("rel") == "next"), None)
            address = None if following is None else urljoin(address, str(following))
            if address is not None and urlsplit(address).netloc != urlsplit(self.settings.endpoint).netloc:
                raise TaskingError(f"tasking at {self.host}: the next page of orders is at another host, which is not asked")
        raise TaskingError(f"tasking at {self.host}: the list of orders has no end")

    def statuses(self, order_number: str) -> list[OrderStatus]:
        """The history of an order, oldest first; raises ``TaskingError``."""
        content = self._get(f"{self.settings.endpoint}/orders/{quote(order_number, safe='')}/statuses", f"giving order {order_number}")
        values = content.get("statuses") if isinstance(content, dict) else None
        try:
            found = [OrderStatus.model_validate(value) for value in values] if isinstance(values, list) else []
        except ValidationError:
            found = []
        if not found:
            raise TaskingError(f"tasking at {self.host}: order {order_number} has no status")
        return sorted(found, key=lambda status: status.timestamp)

    def _find(self, request: Request) -> Order[OrderStatus] | None:
        """An order of the same product, window and place."""
        wanted = order_payload(request)
        place = shapely.geometry.shape(request.geometry)
        for order in self.orders():
            asked = order.properties.search_parameters
            same = order.properties.product_id == self.product(request.sensor) and asked.datetime == wanted.datetime
            there = shapely.normalize(shapely.geometry.shape(asked.geometry.model_dump()))
            if same and shapely.equals_exact(there, shapely.normalize(place), 1e-7):
                return order
        return None

    def _get(self, address: str, doing: str) -> Any:
        try:
            return self._session.fetch(address, doing=doing, headers=self._headers()).content
        except CatalogError as error:
            raise TaskingError(str(error)) from None

    def _order_of(self, content: Any) -> Order[OrderStatus]:
        try:
            return Order[OrderStatus].model_validate(content)
        except ValidationError as error:
            raise TaskingError(f"tasking at {self.host}: an order is none by STAPI ({error.error_count()} errors)") from None


def send_request(request: Request, client: StapiClient, store: RequestStore, *, who: str) -> Request:
    """Order a request and record its number; raises ``TaskingError``, and then the request is as it was."""
    if request.kind != "task":
        raise RequestError(f"request {request.id} is to {request.kind}: only task requests are ordered; backlog exports scenes")
    order = client.order(request)
    status = order.properties.status
    state = STAPI_STATES.get(str(status.status_code), "ordered")
    moved = request
    if state != "ordered":  # the number is kept even of what is refused at once
        moved = store.move(moved, "ordered", who=who, provider=client.host, order_number=order.id, evidence={"order": order.id})
    return store.move(
        moved,
        state,
        who=who,
        detail=str(status.status_code),
        reason=status.reason_text or "",
        provider=client.host,
        order_number=order.id,
        evidence={"order": order.id},
    )


def poll_request(request: Request, client: StapiClient, store: RequestStore, *, who: str) -> Request:
    """Add what the provider says of an ordered request since it was last asked; raises ``TaskingError``."""
    if request.order_number is None:
        raise RequestError(f"request {request.id} has no order number: order it first")
    told = {(row.detail, row.evidence.get("at")) for row in request.history}
    for status in client.statuses(request.order_number):
        code, when = str(status.status_code), status.timestamp.isoformat()
        state = STAPI_STATES.get(code)
        known = any(detail == code and at in (None, when) for detail, at in told)
        if state is None or known or (request.state == state and request.history[-1].detail == code):
            continue
        if request.state not in ("ordered", "requested"):
            break
        request = store.move(request, state, who=who, detail=code, reason=status.reason_text or "", evidence={"at": when})
    return request
