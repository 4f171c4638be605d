"""Signing in at a real OpenID provider, or at a proxy, on a page that is really served."""

from __future__ import annotations

import base64
import json
import re
import secrets
import socket
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from oidc_provider_mock import User, run_server_in_thread

from tests.dashboards.browsing import caption, expect, look, serve
from tests.dashboards.planning_world import PlanningWorld, planning_world

pytestmark = [pytest.mark.service, pytest.mark.timeout(300), pytest.mark.slow]

COOKIE_SECRET, CLIENT_SECRET = secrets.token_hex(32), secrets.token_hex(8)
PEOPLE = [User(sub=name, claims={"email": f"{name}@example.org", "groups": groups}) for name, groups in
          (("rita", []), ("pia", []), ("ada", ["chiefs"]), ("gone", []))]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlanningWorld]:
    with planning_world(tmp_path_factory.mktemp("world")) as made:
        (made.folder / "users.toml").write_text('"pia@example.org" = "planner"\n"@chiefs" = "admin"\n"gone@example.org" = "none"\n')
        yield made


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with run_server_in_thread(user_claims=PEOPLE) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def signed_page(world: PlanningWorld, provider: str) -> Iterator[str]:
    told = {
        "COVERAGE_ACCESS_SIGN_IN": "oidc", "COVERAGE_ACCESS_ISSUER": provider, "COVERAGE_ACCESS_CLIENT_ID": "planner",
        "COVERAGE_ACCESS_CLIENT_SECRET": CLIENT_SECRET, "COVERAGE_ACCESS_COOKIE_SECRET": COOKIE_SECRET,
        "COVERAGE_ACCESS_ADDRESS": "http://127.0.0.1:{port}", "COVERAGE_ACCESS_USERS": str(world.folder / "users.toml"),
        "COVERAGE_ACCESS_GROUPS_CLAIM": "groups", "COVERAGE_ACCESS_SCOPES": '["openid", "email", "groups"]',
    }  # fmt: skip
    log = world.folder / "signed.log"
    yield from serve(world.folder / "data" / "coverage.zarr", log, **world.environment, **told)
    said = log.read_text()
    assert COOKIE_SECRET not in said
    assert CLIENT_SECRET not in said


@pytest.fixture(scope="module")
def proxied_page(world: PlanningWorld) -> Iterator[str]:
    told = {"COVERAGE_ACCESS_SIGN_IN": "proxy", "COVERAGE_ACCESS_USERS": str(world.folder / "users.toml")}
    yield from serve(world.folder / "data" / "coverage.zarr", world.folder / "proxied.log", **world.environment, **told)


def without_the_providers_stylesheet(page: Any) -> None:
    """Its own page asks for one from the internet; ours may not."""
    page.context.route("https://cdn.jsdelivr.net/npm/@picocss/**", lambda route: route.fulfill(body="", content_type="text/css"))


def sign_in(page: Any, address: str, name: str) -> None:
    without_the_providers_stylesheet(page)
    page.goto(address)
    page.locator(f'button[value="{name}"]').or_(page.get_by_role("button", name=name, exact=True)).first.click()


def flag(page: Any, note: str) -> None:
    expect(page.get_by_role("row").filter(has_text="EMIT_20250506").first).to_be_visible()
    page.get_by_label("Note of the request").fill(note)
    page.get_by_role("button", name="Flag 1 scene as requests").click()


def test_a_reader_reads_and_a_planner_writes(page: Any, signed_page: str, world: PlanningWorld) -> None:
    sign_in(page, f"{signed_page}?sensors=emit&room=backlog", "rita")
    expect(page.locator(".who")).to_have_text("rita@example.org (reader)")
    assert page.url.startswith(f"{signed_page}?"), page.url  # what the address asked for is kept through the sign-in
    flag(page, "by a reader")
    expect(page.get_by_text("rita@example.org has the role reader, and flagging scenes needs the role planner")).to_be_visible()
    assert "by a reader" not in [one.note for one in world.requests.all()]
    look(page, "signed_in_reader")
    page.get_by_role("link", name="Sign out").click()
    expect(page.get_by_role("heading", name="You are signed out")).to_be_visible()
    look(page, "signed_out")
    assert "user" not in {cookie["name"] for cookie in page.context.cookies()}
    sign_in(page, f"{signed_page}?sensors=emit&room=backlog", "pia")
    flag(page, "by a planner")
    expect(page.get_by_text("1 request is recorded")).to_be_visible()
    (made,) = [one for one in world.requests.all() if one.note == "by a planner"]
    assert made.who == "pia@example.org"
    # Another's request is an admin's to cancel.
    page.get_by_role("tab", name="Requests", exact=True).click()
    page.get_by_role("row").filter(has_text="well pads").first.press("Enter")
    page.get_by_role("button", name="Cancel the request").click()
    expect(page.get_by_text("cancelling a request of ana needs the role admin")).to_be_visible()
    page.context.clear_cookies()
    sign_in(page, f"{signed_page}?room=requests", "ada")
    expect(page.locator(".who")).to_have_text("ada@example.org (admin)")
    page.get_by_role("row").filter(has_text="by a planner").first.press("Enter")
    page.get_by_role("button", name="Cancel the request").click()
    expect(page.get_by_text("It is cancelled.")).to_be_visible()
    assert world.requests.get(made.id).history[-1].who == "ada@example.org"


def test_cookies_are_the_servers_own_and_for_this_site(page: Any, signed_page: str) -> None:
    sign_in(page, f"{signed_page}?theme=dark", "rita")
    expect(caption(page)).to_be_visible()
    look(page, "signed_in_dark")
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies() if cookie["name"] in ("user", "id_token", "access_token")}
    assert set(cookies) == {"user", "id_token", "access_token"}
    for cookie in cookies.values():
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Lax"
        assert "rita" not in cookie["value"]
    page.context.add_cookies([cookies["user"] | {"value": cookies["user"]["value"][:-4] + "0000"}])
    page.goto(signed_page)
    expect(page.get_by_text("planner", exact=False).first).to_be_visible()
    assert "/oauth2/authorize" in page.url  # a cookie that was changed is none


def test_who_has_no_role_sees_no_coverage(page: Any, signed_page: str) -> None:
    sign_in(page, signed_page, "gone")
    expect(page.get_by_role("heading", name="This page is not open to you")).to_be_visible()
    expect(page.get_by_text("gone@example.org has the role none, and this page needs the role reader")).to_be_visible()
    look(page, "no_role")
    assert caption(page).count() == 0
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []


def test_a_sign_in_that_is_denied_or_made_up(page: Any, signed_page: str) -> None:
    where = signed_page.removesuffix("/app")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{where}/login?error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E", timeout=20)
    body = refused.value.read().decode()
    assert refused.value.code == 401
    assert "The sign-in failed" in body
    assert "<script" not in body
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{where}/login?code=stolen&state=made-up", timeout=20)
    assert refused.value.code == 401
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{where}/login?next=https://evil.example.org/", timeout=20)
    assert refused.value.code == 400


def answer(address: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(address, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def token_of(text: str) -> str:
    found = re.search(r'"token":"([^"]+)"', text)
    assert found is not None
    return found[1]


def forged(token: str, name: str) -> str:
    """The token of a session with another name in its headers, as a browser could make it up; the signature is the old one."""
    core, mark, signature = token.partition(".")
    told = json.loads(base64.urlsafe_b64decode(core + "=" * (-len(core) % 4)))
    payload = json.loads(zlib.decompress(base64.urlsafe_b64decode(told["__bk__zlib_"] + "=" * (-len(told["__bk__zlib_"]) % 4))))
    payload["headers"]["X-Forwarded-User"] = name
    told["__bk__zlib_"] = base64.urlsafe_b64encode(zlib.compress(json.dumps(payload).encode())).decode().rstrip("=")
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=") + mark + signature


def first_frame(address: str, token: str, name: str | None) -> bytes:
    """What the server's websocket sends first; empty where it refuses or closes."""
    host, port = address.removeprefix("http://").removesuffix("/app").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        lines = [
            "GET /app/ws HTTP/1.1", f"Host: {host}:{port}", f"Origin: http://{host}:{port}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Protocol: bokeh, {token}",
            *([f"X-Forwarded-User: {name}"] if name else []),
        ]  # fmt: skip
        client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        said, ends = b"", time.monotonic() + 20
        while time.monotonic() < ends and not said.partition(b"\r\n\r\n")[2]:
            got = client.recv(65536)
            if not got:
                break
            said += got
        head_said, _, body = said.partition(b"\r\n\r\n")
        return body if b" 101 " in head_said.split(b"\r\n")[0] else b""


def test_a_proxy_says_who_it_is(proxied_page: str) -> None:
    status, said = answer(proxied_page)
    assert (status, "Nobody is signed in" in said) == (403, True)
    assert answer(proxied_page, X_Forwarded_User="")[0] == 403
    status, said = answer(proxied_page, X_Forwarded_User="pia@example.org", Cookie="_oauth2_proxy=of-the-proxy", Authorization="Bearer xyz")
    assert status == 200
    token = token_of(said)
    # ACK is the first thing a session says; a close frame begins with 0x88.
    assert b"ACK" in first_frame(proxied_page, token, "pia@example.org")
    token = token_of(answer(proxied_page, X_Forwarded_User="rita@example.org")[1])
    assert b"ACK" not in first_frame(proxied_page, token, None)
    assert b"ACK" not in first_frame(proxied_page, forged(token, "ada@example.org"), "rita@example.org")
    assert b"ACK" in first_frame(proxied_page, token, "rita@example.org")


def test_what_the_proxy_keeps_to_itself_is_not_in_the_page(proxied_page: str) -> None:
    said = answer(proxied_page, X_Forwarded_User="pia@example.org", Cookie="_oauth2_proxy=of-the-proxy", Authorization="Bearer xyz")[1]
    core = token_of(said).partition(".")[0]
    told = json.loads(base64.urlsafe_b64decode(core + "=" * (-len(core) % 4)))
    packed = told["__bk__zlib_"]
    payload = json.loads(zlib.decompress(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4))))
    assert payload["headers"] == {"X-Forwarded-User": "pia@example.org"}
    assert payload["cookies"] == {}


def test_a_page_behind_a_proxy_in_a_browser(page: Any, proxied_page: str, world: PlanningWorld, tmp_path: Path) -> None:
    page.context.set_extra_http_headers({"X-Forwarded-User": "pia@example.org"})
    page.goto(f"{proxied_page}?sensors=emit&room=backlog")
    expect(page.locator(".who")).to_have_text("pia@example.org (planner)")
    flag(page, "through the proxy")
    expect(page.get_by_text("1 request is recorded")).to_be_visible()
    (made,) = [one for one in world.requests.all() if one.note == "through the proxy"]
    assert made.who == "pia@example.org"
    # The role is taken away while the page is open.
    (world.folder / "users.toml").write_text('"@chiefs" = "admin"\n')
    page.get_by_label("Note of the request").fill("too late")
    page.get_by_role("button", name="Flag 1 scene as requests").click()
    expect(page.get_by_text("pia@example.org has the role reader")).to_be_visible()
    assert "too late" not in [one.note for one in world.requests.all()]
