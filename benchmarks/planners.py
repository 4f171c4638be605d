"""Planners without a browser: sessions of the page over its websocket, that each change something every few seconds.

Twenty browsers on two cores would measure themselves. These speak Bokeh's protocol: they load the page, tell a size for the map as a
browser does, press the buttons of the layers, and read all that comes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

LAYERS = ("Available", "Acquired", "Gap")
_TOKEN = re.compile(r'"token":"([^"]+)"')
_LARGEST = 1 << 28


class Session:
    """One planner's page."""

    def __init__(self, socket: WebSocketClientConnection, document: Any) -> None:
        self.socket = socket
        self.received = 0
        self._numbers = itertools.count(1)
        models = list(_models(document))
        self._layers = next(id_ for id_, name, told in models if name.startswith("RadioButtonGroup") and told.get("value") in LAYERS)
        self._figure = next((id_ for id_, name, _ in models if name == "Figure"), None)

    @classmethod
    async def opened(cls, address: str) -> Session:
        """Load the page and open its session."""
        page = await AsyncHTTPClient().fetch(address, request_timeout=120)
        found = _TOKEN.search(page.body.decode())
        if found is None:
            raise RuntimeError(f"{address} has no token of a session")
        host = urlsplit(address).netloc
        request = HTTPRequest(f"ws://{host}/app/ws", headers={"Origin": f"http://{host}"})
        socket = await websocket_connect(request, subprotocols=["bokeh", found[1]], max_message_size=_LARGEST)
        await _read(socket)  # ACK
        await _send(socket, {"msgid": "0", "msgtype": "PULL-DOC-REQ"}, {})
        while True:
            header, content, _ = await _read(socket)
            if header["msgtype"] == "PULL-DOC-REPLY":
                return cls(socket, content)

    async def _change(self, model: str, **attributes: Any) -> None:
        events = [{"kind": "ModelChanged", "model": {"id": model}, "attr": name, "new": new} for name, new in attributes.items()]
        await _send(self.socket, {"msgid": str(next(self._numbers)), "msgtype": "PATCH-DOC"}, {"events": events})

    async def tell_size(self, width: int = 1000, height: int = 560) -> None:
        """What a browser tells once it has built the page: that it has, and the size of its map. Without it nothing is drawn."""
        ready = {"type": "event", "name": "document_ready", "values": {"type": "map"}}
        events = [{"kind": "MessageSent", "msg_type": "bokeh_event", "msg_data": ready}]
        await _send(self.socket, {"msgid": str(next(self._numbers)), "msgtype": "PATCH-DOC"}, {"events": events})
        if self._figure is not None:
            await self._change(self._figure, inner_width=width, inner_height=height)

    async def press(self, layer: str) -> None:
        """Choose a layer."""
        await self._change(self._layers, value=layer)

    async def read(self) -> None:
        """Read all that comes, until the socket is closed."""
        while True:
            message = await self.socket.read_message()
            if message is None:
                return
            self.received += len(message)

    def close(self) -> None:
        """Leave."""
        self.socket.close()


async def crowd(address: str, count: int, every: float, stop: asyncio.Event) -> int:
    """``count`` planners who each press a layer every so many seconds until told to stop; returns the bytes they were sent."""
    sessions = [await Session.opened(address) for _ in range(count)]
    readers = [asyncio.create_task(session.read()) for session in sessions]

    async def work(number: int, session: Session) -> None:
        await session.tell_size()
        await asyncio.sleep(every * number / count)
        for layer in itertools.cycle(LAYERS):
            if stop.is_set():
                return
            await session.press(layer)
            await asyncio.sleep(every)

    await asyncio.gather(*(work(number, session) for number, session in enumerate(sessions)))
    for session in sessions:
        session.close()
    await asyncio.gather(*readers)
    return sum(session.received for session in sessions)


async def come_and_go(address: str, count: int) -> None:
    """``count`` planners who load the page, look at each layer, and leave."""
    for _ in range(count):
        session = await Session.opened(address)
        reader = asyncio.create_task(session.read())
        await session.tell_size()
        for layer in LAYERS:
            await session.press(layer)
            await asyncio.sleep(0.1)
        session.close()
        await reader


async def _send(socket: WebSocketClientConnection, header: Any, content: Any) -> None:
    for fragment in (header, {}, content):
        await socket.write_message(json.dumps(fragment))


async def _read(socket: WebSocketClientConnection) -> tuple[Any, Any, int]:
    fragments = [await socket.read_message() for _ in range(3)]
    if None in fragments:
        raise ConnectionError("the server closed the session")
    header, _, content = (json.loads(fragment or "") for fragment in fragments)
    size = 0
    for _ in range(2 * header.get("num_buffers", 0)):
        size += len(await socket.read_message() or "")
    return header, content, size


def _models(told: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, type or name, and attributes of every model in a document's JSON."""
    if isinstance(told, dict):
        attributes = told.get("attributes")
        if "id" in told and isinstance(attributes, dict):
            yield told["id"], str(told["name"]), attributes
        for value in told.values():
            yield from _models(value)
    elif isinstance(told, list):
        for value in told:
            yield from _models(value)
