"""The web server of the dashboard: Panel's own, with a Content-Security-Policy and a check of the Host header on every answer.

``coverage-planner serve`` starts it: ``python -m coverage_dashboards.server --port 5006``. Panel's command line has no place for
either, so this is a subclass of its ``serve``.

The policy is as tight as Panel allows. Bokeh compiles the code of ``CustomJSHover`` with ``new Function`` (``'unsafe-eval'``), Panel
loads its components as modules from ``blob:`` addresses (own ones it fetches from there, too), and both set styles in elements
(``'unsafe-inline'`` for styles alone). The scripts of the page as the server sends it, into which no text from outside goes, carry a
nonce that is new for every answer (the module loader takes it from there for its import maps). So text that gets into the page later
cannot run: neither ``<script>`` nor ``onerror=``. The login page and error pages have no nonce: what they repeat of an address cannot
run either. No other host is allowed for anything.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bokeh.settings import settings as bokeh_settings
from panel.command.serve import Serve
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import Application, OutputTransform, RequestHandler

from coverage_dashboards import oidc
from coverage_dashboards.people import access, named_by_proxy
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.settings.access import AccessSettings, check_access
from coverage_pipeline.settings.sources import SettingsError

APP = Path(__file__).with_name("app.py")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 compared, never bound

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9._-]*[a-z0-9])?)(?::([0-9]{1,5}))?", re.ASCII)
_SCRIPT = re.compile(rb"<script(?=[\s>])", re.IGNORECASE)
_PAGE = f"/{APP.stem}"

SECURITY_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def allowed_hosts(address: str, port: int, more: Iterable[str] = ()) -> frozenset[str]:
    """Hosts, each with its port, that a request may name: this machine's, the address that is listened on, and those given.

    A page of another site whose name was made to point to this machine (DNS rebinding) names its own host, and is refused.
    Raises ``SettingsError`` for a name that is no host.
    """
    own = [f"{name}:{port}" for name in LOOPBACK]
    if address not in _ANY_ADDRESS:
        own.append(f"{_bracketed(address)}:{port}")
    given = []
    for name in more:
        match = _HOST.fullmatch(name.strip().lower())
        if match is None:
            raise SettingsError(f"--allow-host {name!r} is no host: give a name such as planner.example.org, or one with a port")
        given.append(f"{match[1]}:{match[3] or port}")
        if match[3] is None:  # behind a proxy the browser names no port
            given += [f"{match[1]}:80", f"{match[1]}:443"]
    return frozenset(host.lower() for host in (*own, *given))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def host_of(request: HTTPServerRequest) -> str | None:
    """The host and port that a request names, in lower case; None where it names none, or more than one."""
    given = request.headers.get_list("Host")
    match = _HOST.fullmatch(given[0].strip().lower()) if len(given) == 1 else None
    if match is None:
        return None
    return f"{match[1]}:{match[3] or (443 if request.protocol == 'https' else 80)}"


class _ForeignHost(Matcher):
    """Matches every request that names a host which is not allowed."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """No arguments for the handler, or None: the request goes to the handlers behind."""
        host = host_of(request)
        if host is None or host not in self._allowed:
            return {}
        if host.startswith("["):
            # Panel takes what follows the first colon for the port (``panel.io.location``), which an address of IPv6 breaks.
            request.host = f"localhost:{host.rpartition(':')[2]}"
        return None


class _Unnamed(Matcher):
    """Matches every request that does not come from a trusted proxy which says who asks."""

    def __init__(self, settings: AccessSettings) -> None:
        self._settings = settings

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """No arguments for the handler, or None: the request goes to the handlers behind."""
        return None if named_by_proxy(request.headers, request.remote_ip, self._settings) else {}


class _Refused(RequestHandler):
    """Refuses a request, of a page, a file or a websocket, before anything of the application sees it."""

    def initialize(self, status: int, why: str) -> None:
        """What the answer is."""
        self._status, self._why = status, why

    def prepare(self) -> None:
        self.set_status(self._status)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(self._why)


_FOREIGN = {
    "status": 421,
    "why": "This server does not answer to that host name. Use http://127.0.0.1 with its port, or start it with --allow-host.\n",
}
_UNNAMED = {"status": 403, "why": "Nobody is signed in. Open this page through the proxy that signs people in.\n"}


def content_security_policy(nonce: str | None, host: str | None) -> str:
    """The policy for an answer: ``nonce`` is that of the page's own scripts, ``host`` the one whose websocket it may open."""
    sockets = f" ws://{host} wss://{host}" if host else ""
    own = f" 'nonce-{nonce}'" if nonce else ""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' blob: 'unsafe-eval'{own}",
            "script-src-attr 'none'",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            f"connect-src 'self' blob:{sockets}",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "object-src 'none'",
        ]
    )


def _security_headers(allowed: frozenset[str]) -> type[OutputTransform]:
    class SecurityHeaders(OutputTransform):
        """Sets the headers of every answer: pages, files and errors."""

        def __init__(self, request: HTTPServerRequest) -> None:
            host = host_of(request)
            self._host = host if host in allowed else None
            self._is_page = request.path.rstrip("/") == _PAGE

        def transform_first_chunk(
            self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
        ) -> tuple[int, HTTPHeaders, bytes]:
            nonce = None
            if self._is_page and status_code == 200 and finishing and headers.get("Content-Type", "").startswith("text/html"):
                nonce = secrets.token_urlsafe(16)
                chunk = _SCRIPT.sub(f'<script nonce="{nonce}"'.encode(), chunk)
                if "Content-Length" in headers:
                    headers["Content-Length"] = str(len(chunk))
                headers.pop("Etag", None)  # of the text without the nonce
            headers["Content-Security-Policy"] = content_security_policy(nonce, self._host)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            if "Server" in headers:
                del headers["Server"]
            return status_code, headers, chunk

    return SecurityHeaders


def protect(application: Application, allowed: frozenset[str], settings: AccessSettings) -> None:
    """Add the headers, and the checks of the Host header and of the proxy's, to a Tornado application."""
    application.add_transform(_security_headers(allowed))
    rules = [Rule(_ForeignHost(allowed), _Refused, _FOREIGN)]
    if settings.sign_in == "proxy":
        rules.append(Rule(_Unnamed(settings), _Refused, _UNNAMED))
    application.default_router.add_rules(rules)
    # These rules come first: the ones there match everything.
    of_router = application.default_router.rules
    of_router[:] = of_router[-len(rules) :] + of_router[: -len(rules)]


class ProtectedServe(Serve):  # type: ignore[misc]
    """Panel's ``serve`` with the protection of this module."""

    def __init__(self, parser: argparse.ArgumentParser, more_hosts: Sequence[str]) -> None:
        super().__init__(parser)
        self._more_hosts = more_hosts

    def customize_kwargs(self, args: argparse.Namespace, server_kwargs: dict[str, Any]) -> Any:
        """Called by Bokeh before it makes the server. Sessions are signed: the token of a session holds the headers of the request for
        the page, and one that a browser could make up could name anybody. The key is this process's, for no session outlives it.
        """
        kwargs = super().customize_kwargs(args, server_kwargs)
        return kwargs | {"sign_sessions": True, "secret_key": secrets.token_bytes(32)}

    def customize_server(self, server: Any) -> Any:
        """Called by Bokeh when the server is bound to its port and before it answers."""
        server = super().customize_server(server)
        allowed = allowed_hosts(server.address or "", server.port, self._more_hosts)
        application = server._tornado
        protect(application, allowed, access())
        application.websocket_origins.clear()  # Bokeh's own reading of hosts knows no IPv6
        application.websocket_origins.update(allowed)
        server.io_loop.add_callback(_answers, server.address or "", server.port)
        return server


def _answers(address: str, port: int) -> None:
    """Print where the page is; called by the loop, so when it answers.

    What is there by now stays for as long as the server: garbage is looked for among the sessions' own objects alone. Panel looks for it
    some seconds after each session ended, and everybody waits meanwhile: 0.3 s of 0.37 s went to modules (measured with six pages).
    """
    gc.collect()
    gc.freeze()
    host = "localhost" if address in _ANY_ADDRESS else _bracketed(address)
    sys.stdout.write(f"dashboard: http://{host}:{port}{_PAGE}  (Ctrl-C stops it)\n")
    sys.stdout.flush()


def sign_in_options(settings: AccessSettings) -> list[str]:
    """Options of ``panel serve`` by which people sign in, or a proxy says who they are; raises ``SettingsError``."""
    if settings.sign_in == "oidc":
        return oidc.panel_options(settings)
    if settings.sign_in == "proxy":
        named = [settings.name_header, *([settings.groups_header] if settings.groups_header else [])]
        normal = list(HTTPHeaders(dict.fromkeys(named, "")))
        return ["--include-headers", *normal, "--include-cookies", "none"]
    return []


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the dashboard until it is stopped."""
    parser = argparse.ArgumentParser(prog="python -m coverage_dashboards.server", description=__doc__)
    parser.add_argument("--port", type=int, default=5006)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--allow-host", action="append", default=[], metavar="HOST[:PORT]")
    asked = parser.parse_args(arguments)
    try:
        check_access(access(), os.environ, asked.address, asked.allow_host)
        if bokeh_settings.allowed_ws_origin():
            raise SettingsError("BOKEH_ALLOW_WS_ORIGIN would open the page's websocket to other sites: unset it, and use --allow-host")
        allowed_hosts(asked.address, asked.port, asked.allow_host)
        sign_in = sign_in_options(access())
    except PlannerError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    of_panel = argparse.ArgumentParser()
    command = ProtectedServe(of_panel, asked.allow_host)
    options = [str(APP), "--port", str(asked.port), "--address", asked.address, "--warm", "--websocket-compression-level", "1"]
    options += sign_in
    command.invoke(of_panel.parse_args(options))


if __name__ == "__main__":
    main()
