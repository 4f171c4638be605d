"""What the catalogues of the tests share: a real HTTP server on loopback, and how it answers, badly where it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body."""


class AnswerHandler(BaseHTTPRequestHandler):
    """Sends answers as they are, and says nothing of it."""

    def log_message(self, *_: Any) -> None:
        pass

    def send(self, answer: Answer | None) -> None:
        """Send it, with the length of the body unless the answer claims another; None hangs up."""
        if answer is None:
            self.close_connection = True
            self.connection.close()
            return
        status, headers, content = answer
        with suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)


@contextmanager
def on_loopback(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of loopback until the end of the block; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
