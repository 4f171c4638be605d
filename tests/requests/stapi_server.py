"""A real STAPI server (stapi-fastapi) on loopback with orders in memory, and the faults that a provider may have."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from returns.maybe import Maybe, Nothing, Some
from returns.result import ResultE, Success
from stapi_fastapi.models.product import Product
from stapi_fastapi.routers.product_router import ProductRouter
from stapi_fastapi.routers.root_router import RootRouter
from stapi_pydantic import (
    Order,
    OrderParameters,
    OrderPayload,
    OrderProperties,
    OrderSearchParameters,
    OrderStatus,
    OrderStatusCode,
    Provider,
    ProviderRole,
    Queryables,
)

from coverage_pipeline.demo.stac_server import free_port


@dataclass
class StapiServer:
    """What the server holds, and what it is told to do wrong."""

    address: str = ""
    orders: dict[str, Order[OrderStatus]] = field(default_factory=dict)
    statuses: dict[str, list[OrderStatus]] = field(default_factory=dict)
    created: int = 0
    """POSTs that made an order."""
    sleep_after_create: float = 0.0
    """Seconds that an answer to a POST waits, after the order was made."""
    page: int = 100
    tokens: list[str | None] = field(default_factory=list)
    """Authorization header of every request."""

    def say(self, order: str, code: str, text: str | None = None) -> None:
        """Add a status to an order."""
        self.statuses[order].append(OrderStatus.new(OrderStatusCode(code), None, text))


def _app(server: StapiServer) -> FastAPI:
    async def get_orders(token: str | None, limit: int, request: Request) -> ResultE[tuple[list[Any], Maybe[str], Maybe[int]]]:
        begin, size = int(token or 0), min(limit, server.page)
        values = list(server.orders.values())
        more = Some(str(begin + size)) if begin + size < len(values) else Nothing
        return Success((values[begin : begin + size], more, Some(len(values))))

    async def get_order(order_id: str, request: Request) -> ResultE[Maybe[Any]]:
        return Success(Maybe.from_optional(server.orders.get(order_id)))

    async def get_statuses(order_id: str, token: str | None, limit: int, request: Request) -> ResultE[Maybe[tuple[list[Any], Maybe[str]]]]:
        found = server.statuses.get(order_id)
        return Success(Nothing if found is None else Some((found, Nothing)))

    async def create(router: ProductRouter, payload: OrderPayload[Any], request: Request) -> ResultE[Order[OrderStatus]]:
        server.created += 1
        name = f"order-{server.created}"
        status = OrderStatus.new(OrderStatusCode.received)
        properties = OrderProperties[OrderStatus](
            product_id=router.product.id,
            created=dt.datetime.now(dt.UTC),
            status=status,
            search_parameters=OrderSearchParameters(datetime=payload.datetime, geometry=payload.geometry, filter=payload.filter),
            opportunity_properties={},
            order_parameters={},
        )
        server.orders[name] = Order[OrderStatus](id=name, geometry=payload.geometry, properties=properties)
        server.statuses[name] = [status]
        await asyncio.sleep(server.sleep_after_create)
        return Success(server.orders[name])

    provider = Provider(name="Test", description="", roles=[ProviderRole.producer], url="https://example.org")
    product = Product(
        id="emit", title="EMIT", description="", license="proprietary", keywords=[], providers=[provider], links=[],
        conformsTo=["https://geojson.org/schema/Polygon.json", "https://geojson.org/schema/MultiPolygon.json"],
        create_order=create, queryables=Queryables, opportunity_properties=dict, order_parameters=OrderParameters,
    )  # type: ignore[arg-type] # fmt: skip
    root = RootRouter(get_orders=get_orders, get_order=get_order, get_order_statuses=get_statuses)
    root.add_product(product)
    app = FastAPI()

    @app.middleware("http")
    async def note(request: Request, call_next: Any) -> Any:
        server.tokens.append(request.headers.get("authorization"))
        return await call_next(request)

    app.include_router(root, prefix="")
    return app


@contextmanager
def stapi_server() -> Iterator[StapiServer]:
    """The server, in a thread of its own."""
    server = StapiServer()
    port = free_port()
    server.address = f"http://127.0.0.1:{port}"
    running = uvicorn.Server(uvicorn.Config(_app(server), host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        thread.join(0.02)
        assert thread.is_alive(), "the STAPI server did not start"
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join(10)
