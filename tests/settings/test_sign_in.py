"""Variables that ask for a sign-in: the page is protected wholly, or the server does not start."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coverage_pipeline.cli.app import app
from coverage_pipeline.settings.sign_in import PROVIDERS, check_sign_in
from coverage_pipeline.settings.sources import SettingsError

SECRET = "0123456789abcdef0123456789abcdef"
KEY = base64.urlsafe_b64encode(bytes(32)).decode()
OAUTH = {
    "PANEL_OAUTH_PROVIDER": "github",
    "PANEL_OAUTH_KEY": "id",
    "PANEL_OAUTH_SECRET": "hidden",
    "PANEL_OAUTH_ENCRYPTION": KEY,
    "PANEL_COOKIE_SECRET": SECRET,
}


@pytest.fixture(autouse=True)
def _no_sign_in_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PANEL_", "BOKEH_")):
            monkeypatch.delenv(name)


def users(tmp_path: Path, text: str = '{"ana": "let me in"}') -> str:
    path = tmp_path / "users.json"
    path.write_text(text)
    return str(path)


def test_nobody_asked_for_protection() -> None:
    check_sign_in({"PATH": "/bin", "PANEL_NUM_THREADS": "4"})


def test_whole_protection_is_let_through(tmp_path: Path) -> None:
    check_sign_in({"PANEL_BASIC_AUTH": users(tmp_path), "PANEL_COOKIE_SECRET": SECRET})
    check_sign_in({"PANEL_BASIC_AUTH": users(tmp_path), "BOKEH_COOKIE_SECRET": SECRET})
    check_sign_in(OAUTH)
    check_sign_in({"PANEL_OAUTH_PROVIDER": "pam", "PANEL_COOKIE_SECRET": SECRET})


def test_the_providers_are_panel_s() -> None:
    auth = pytest.importorskip("panel.auth")
    assert set(PROVIDERS) == set(auth.AUTH_PROVIDERS)


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in OAUTH.items() if key != name}


HALF: dict[str, tuple[Mapping[str, str], str]] = {
    "empty": ({"PANEL_BASIC_AUTH": ""}, "PANEL_BASIC_AUTH is set and empty"),
    "empty provider": ({**OAUTH, "PANEL_OAUTH_PROVIDER": " "}, "PANEL_OAUTH_PROVIDER is set and empty"),
    "empty cookie secret": ({**OAUTH, "PANEL_COOKIE_SECRET": "", "BOKEH_COOKIE_SECRET": SECRET}, "PANEL_COOKIE_SECRET is set and empty"),
    "misspelt": ({"PANEL_AUTH_USERS": "/srv/users.json"}, "PANEL_AUTH_USERS is no variable of Panel"),
    "misspelt oauth": ({**OAUTH, "PANEL_OAUTH_ENCRYPTION_KEY": KEY}, "PANEL_OAUTH_ENCRYPTION_KEY is no variable of Panel"),
    "a secret alone": (
        {"PANEL_COOKIE_SECRET": SECRET},
        "PANEL_COOKIE_SECRET is set, but neither PANEL_BASIC_AUTH nor PANEL_OAUTH_PROVIDER",
    ),
    "no provider": (without("PANEL_OAUTH_PROVIDER"), "PANEL_COOKIE_SECRET is set, but neither"),
    "no cookie secret": (without("PANEL_COOKIE_SECRET"), "PANEL_OAUTH_PROVIDER needs a secret to sign the cookies"),
    "no key": (without("PANEL_OAUTH_KEY"), "PANEL_OAUTH_PROVIDER github needs PANEL_OAUTH_KEY"),
    "no secret": (without("PANEL_OAUTH_SECRET"), "github needs PANEL_OAUTH_SECRET"),
    "no encryption": (without("PANEL_OAUTH_ENCRYPTION"), "github needs PANEL_OAUTH_ENCRYPTION"),
    "short encryption": ({**OAUTH, "PANEL_OAUTH_ENCRYPTION": "abc="}, "PANEL_OAUTH_ENCRYPTION is not 32 bytes in url-safe base64"),
    "unknown provider": (
        {**OAUTH, "PANEL_OAUTH_PROVIDER": "githup"},
        "PANEL_OAUTH_PROVIDER is no provider that Panel knows: use one of auth0",
    ),
    "generic without addresses": (
        {**OAUTH, "PANEL_OAUTH_PROVIDER": "generic"},
        "generic needs PANEL_OAUTH_TOKEN_URL, PANEL_OAUTH_AUTHORIZE",
    ),
    "guests": ({**OAUTH, "PANEL_OAUTH_GUEST_ENDPOINTS": "/app"}, "PANEL_OAUTH_GUEST_ENDPOINTS is no Python list"),
    "parameters": ({**OAUTH, "PANEL_OAUTH_EXTRA_PARAMS": "tenant"}, "PANEL_OAUTH_EXTRA_PARAMS is no Python dict"),
    "expiry": ({**OAUTH, "PANEL_OAUTH_EXPIRY": "soon"}, "PANEL_OAUTH_EXPIRY must be a number of days"),
    "weak": ({**OAUTH, "PANEL_COOKIE_SECRET": "short"}, "PANEL_COOKIE_SECRET has only 5 characters"),
    "auth module": ({"BOKEH_AUTH_MODULE": "/nowhere/auth.py"}, "BOKEH_AUTH_MODULE names no file"),
}


@pytest.mark.parametrize("case", HALF)
def test_half_a_protection_does_not_start(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables, says = HALF[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("the server was started"))
    result = CliRunner().invoke(app, ["serve"], catch_exceptions=False)
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert says in said
    for name, value in variables.items():
        if name.endswith(("SECRET", "ENCRYPTION", "KEY")) and len(value) > 5:
            assert value not in said, "a secret was printed"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("ana: secret", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "names no user"),
        ('["ana"]', "names no user"),
        ('"secret"', "names no user"),
        ('{"ana": ""}', "has a user without a name or a password that is no text"),
        ('{"ana": null}', "has a user without a name or a password that is no text"),
        ('{"": "secret"}', "has a user without a name or a password that is no text"),
    ],
)
def test_a_users_file_that_lets_nobody_or_everybody_in_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = users(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        check_sign_in({"PANEL_BASIC_AUTH": path, "PANEL_COOKIE_SECRET": SECRET})
    assert f"PANEL_BASIC_AUTH: the users file {path} {says}" in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_password_in_place_of_a_file_is_never_printed(tmp_path: Path) -> None:
    """Panel takes a value that names no file for everybody's password."""
    for value in ("hunter2", "hunter2/with/slashes", "/hunter2", "x" * 5000, "a\0b"):
        with pytest.raises(SettingsError, match="PANEL_BASIC_AUTH: there is no users file") as error:
            check_sign_in({"PANEL_BASIC_AUTH": value, "PANEL_COOKIE_SECRET": SECRET})
        assert value not in str(error.value)
    with pytest.raises(SettingsError, match="PANEL_BASIC_AUTH: there is no users file"):  # a folder is no file
        check_sign_in({"PANEL_BASIC_AUTH": str(tmp_path), "PANEL_COOKIE_SECRET": SECRET})


def test_the_two_kinds_of_sign_in_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="PANEL_BASIC_AUTH and PANEL_OAUTH_PROVIDER are both set"):
        check_sign_in({**OAUTH, "PANEL_BASIC_AUTH": users(tmp_path)})


@pytest.mark.parametrize("secret", [{}, {"PANEL_COOKIE_SECRET": SECRET}], ids=["without a cookie secret", "with one"])
def test_serve_does_not_start_where_the_users_file_is_missing(tmp_path: Path, secret: dict[str, str]) -> None:
    """Case 25, through the real command: Panel would let everybody in whose password is the file's path."""
    missing = tmp_path / "users.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PANEL_BASIC_AUTH": str(missing), **secret}
    command = [sys.executable, "-m", "coverage_pipeline", "serve", "--port", "5999"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().replace("\n", " ") == (
        f"PANEL_BASIC_AUTH: there is no users file {missing}, and Panel would take the variable's value for everybody's password: "
        "create that file, a JSON object of user names and passwords, or unset PANEL_BASIC_AUTH"
    )
