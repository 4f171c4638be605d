"""Who may see the page: it is protected as the settings say, or the server does not start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from coverage_pipeline.cli.app import app
from coverage_pipeline.settings.access import AccessSettings, Role, check_access, read_users
from coverage_pipeline.settings.load import load_settings
from coverage_pipeline.settings.sources import SettingsError

SECRET = "0123456789abcdef0123456789abcdef"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PANEL_", "BOKEH_", "COVERAGE_ACCESS_")):
            monkeypatch.delenv(name)


def users(tmp_path: Path, text: str = '"ana@example.org" = "planner"\n"@chiefs" = "admin"\n"gone" = "none"\n') -> Path:
    path = tmp_path / "users.toml"
    path.write_text(text)
    return path


def oidc(tmp_path: Path, **changes: Any) -> AccessSettings:
    given: dict[str, Any] = {
        "sign_in": "oidc", "users": users(tmp_path), "address": "https://planner.example.org", "issuer": "https://id.example.org",
        "client_id": "planner", "client_secret": SecretStr("hush"), "cookie_secret": SecretStr(SECRET),
    }  # fmt: skip
    return AccessSettings(**(given | changes))


def test_a_page_of_this_machine_needs_no_sign_in() -> None:
    for address in ("127.0.0.1", "localhost", "::1", "[::1]", "127.0.0.2"):
        check_access(AccessSettings(), {"PATH": "/bin", "PANEL_NUM_THREADS": "4"}, address, ["localhost:8080"])


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "", "10.0.0.7", "planner.example.org"])
def test_a_page_that_others_reach_asks_for_one(address: str) -> None:
    with pytest.raises(SettingsError, match="access"):
        check_access(AccessSettings(), {}, address)
    check_access(AccessSettings(sign_in="read-only"), {}, address)


def test_another_name_for_the_page_asks_for_one_too() -> None:
    """A proxy on this machine passes on what comes from elsewhere."""
    with pytest.raises(SettingsError, match=r"reached at planner\.example\.org"):
        check_access(AccessSettings(), {}, "127.0.0.1", ["planner.example.org"])


def test_whole_protection_is_let_through(tmp_path: Path) -> None:
    check_access(oidc(tmp_path), {}, "0.0.0.0", ["planner.example.org"])
    check_access(AccessSettings(sign_in="proxy", users=users(tmp_path)), {}, "0.0.0.0")


@pytest.mark.parametrize("name", ["issuer", "client_id", "client_secret", "cookie_secret", "address"])
def test_a_provider_without_what_it_needs(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match=f"access.{name}: set it"):
        check_access(oidc(tmp_path, **{name: None}), {})


def test_a_short_cookie_secret_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="16 characters") as error:
        check_access(oidc(tmp_path, cookie_secret=SecretStr(SECRET[:16])), {})
    assert SECRET[:16] not in str(error.value)


@pytest.mark.parametrize("name", ["PANEL_BASIC_AUTH", "PANEL_OAUTH_PROVIDER", "PANEL_COOKIE_SECRET", "PANEL_AUTH", "BOKEH_AUTH_MODULE"])
def test_panels_own_sign_in_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is a variable of Panel") as error:
        check_access(AccessSettings(), {name: "s3cret-value"})
    assert "s3cret-value" not in str(error.value)
    assert ("missing users file" in str(error.value)) == (name == "PANEL_BASIC_AUTH")


def test_the_file_that_panel_was_to_read_is_named_and_a_password_is_not(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing users file \(.*users\.json\) for everybody"):
        check_access(AccessSettings(), {"PANEL_BASIC_AUTH": str(tmp_path / "users.json")})
    for password in ("hunter2", "/hunter2", "a/b hunter2", "hunter2\0"):
        with pytest.raises(SettingsError) as error:
            check_access(AccessSettings(), {"PANEL_BASIC_AUTH": password})
        assert "hunter2" not in str(error.value)


def test_a_users_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, why in ((None, "is not set"), (tmp_path / "none.toml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError, match=why):
            check_access(oidc(tmp_path, users=path), {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"ana": "let me in"}', "is not TOML"), ('ana = "boss"', "has no role"), ("ana = 3", "has no role"),
        ('"" = "admin"', "has no role"),
        ('[ana]\nrole = "admin"', "has no role"), ('ana = "admin"\nana = "reader"', "is not TOML"),
    ],
)  # fmt: skip
def test_a_users_file_that_says_something_else(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        read_users(users(tmp_path, text))


def test_a_users_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    path.write_bytes(b'"\xe9" = "admin"')
    with pytest.raises(SettingsError, match="UTF-8"):
        read_users(path)


def test_roles_of_a_person_and_of_groups(tmp_path: Path) -> None:
    access = oidc(tmp_path)
    assert access.role_of("ana@example.org") is Role.PLANNER
    assert access.role_of("ana@example.org", ["chiefs", "others"]) is Role.ADMIN
    assert access.role_of("bob@example.org") is Role.READER
    assert access.role_of("gone") is Role.NONE
    assert access.role_of("gone", ["chiefs"]) is Role.ADMIN
    assert oidc(tmp_path, default_role="none").role_of("bob@example.org") is Role.NONE
    # A name that looks like a group's is none, and names are told apart by every character.
    assert access.role_of("@chiefs") is Role.READER
    assert access.role_of("ANA@example.org") is Role.READER


def test_a_role_that_is_taken_away_is_gone_at_once(tmp_path: Path) -> None:
    access = oidc(tmp_path)
    assert access.role_of("ana@example.org") is Role.PLANNER
    users(tmp_path, '"ana@example.org" = "reader"')
    assert access.role_of("ana@example.org") is Role.READER
    (tmp_path / "users.toml").unlink()
    with pytest.raises(SettingsError, match="cannot read"):
        access.role_of("ana@example.org")


@given(name=st.text(max_size=30), groups=st.lists(st.text(max_size=10), max_size=3), default=st.sampled_from(["none", "reader", "planner"]))
def test_nobody_gets_more_than_the_file_and_the_default_give(name: str, groups: list[str], default: Any, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "roles"
    folder.mkdir(exist_ok=True)
    access = AccessSettings(sign_in="proxy", users=users(folder), default_role=default)
    role = access.role_of(name, groups)
    if name not in {"ana@example.org", "gone"} and "chiefs" not in groups:
        assert role is Role[default.upper()]


def test_proxies_are_addresses_or_networks() -> None:
    access = AccessSettings(proxies=("10.1.0.0/16", "::1", "127.0.0.1"))
    for peer in ("10.1.2.3", "::1", "127.0.0.1", "::ffff:127.0.0.1", "::1%lo"):
        assert access.trusts(peer), peer
    for peer in ("10.2.0.1", "127.0.0.2", "", None, "unix:", "::2", "not an address"):
        assert not access.trusts(peer), peer
    with pytest.raises(ValidationError):
        AccessSettings(proxies=("everywhere",))


@pytest.mark.parametrize("address", ["http://planner.example.org", "ftp://x.org", "https://me:pass@x.org", "https://x.org?a=1", "planner"])
def test_an_address_that_others_could_read_along(address: str) -> None:
    for name in ("address", "issuer"):
        with pytest.raises(ValidationError):
            AccessSettings(**{name: address})  # type: ignore[arg-type]
    assert AccessSettings(issuer="http://localhost:9000/").issuer == "http://localhost:9000"


@pytest.mark.parametrize("name", ["client_secret", "cookie_secret"])
def test_secrets_belong_into_the_environment(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "build.toml"
    config.write_text(f'[access]\n{name} = "top-secret-text"\n')
    with pytest.raises(SettingsError, match=f"COVERAGE_ACCESS_{name.upper()}") as error:
        load_settings(config)
    assert "top-secret-text" not in str(error.value)
    config.write_text("")
    monkeypatch.setenv(f"COVERAGE_ACCESS_{name.upper()}", "top-secret-text")
    settings = load_settings(config)
    assert getattr(settings.access, name).get_secret_value() == "top-secret-text"
    assert "top-secret-text" not in repr(settings)


def test_a_misspelt_secret_is_not_shown(tmp_path: Path) -> None:
    config = tmp_path / "build.toml"
    config.write_text('[access]\ncookie_secrte = "top-secret-text"\n')
    with pytest.raises(SettingsError, match="cookie_secrte") as error:
        load_settings(config)
    assert "top-secret-text" not in str(error.value)


def test_serve_refuses_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PANEL_BASIC_AUTH", str(tmp_path / "users.json"))
    for command in (["serve"], ["demo", "--root", str(tmp_path / "demo")]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2
        assert "PANEL_BASIC_AUTH" in result.output
    assert not (tmp_path / "demo").exists()
    monkeypatch.delenv("PANEL_BASIC_AUTH")
    result = CliRunner().invoke(app, ["serve", "--address", "0.0.0.0"])
    assert result.exit_code == 2
    assert "sign_in" in result.output


def test_the_server_itself_refuses_too(tmp_path: Path) -> None:
    """Whoever starts it by hand."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COVERAGE_ACCESS_SIGN_IN": "proxy"}
    command = [sys.executable, "-m", "coverage_dashboards.server", "--port", "0"]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert (ended.returncode, "access.users is not set" in ended.stderr) == (2, True), ended.stderr
