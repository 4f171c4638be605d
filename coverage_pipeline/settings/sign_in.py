"""The environment variables by which Panel asks for a sign-in, checked before a page is served.

Panel starts with variables that protect nothing: it takes the path of a missing users file for everybody's password, and an empty
variable for no sign-in at all. Who sets one of them believes the page to be protected, so ``check_sign_in`` refuses everything that
would protect it only in part. Read in the source of Panel 1.10: ``panel/config.py``, ``panel/auth.py``, ``panel/command/serve.py``.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from coverage_pipeline.settings.sources import SettingsError

PROVIDERS = (
    "auth0", "azure", "azurev2", "bitbucket", "generic", "google", "github", "gitlab", "okta", "password", "auth_code", "pam",
)  # fmt: skip
"""Values of PANEL_OAUTH_PROVIDER that Panel knows (``AUTH_PROVIDERS`` in ``panel/auth.py``)."""

SHORTEST_SECRET = 32
"""Characters of a cookie secret. Who guesses the secret can sign cookies in anybody's name; 32 is Tornado's advice."""

_OAUTH = {
    "PROVIDER", "KEY", "SECRET", "ENCRYPTION", "EXPIRY", "REDIRECT_URI", "JWT_USER", "REFRESH_TOKENS", "EXTRA_PARAMS", "GUEST_ENDPOINTS",
    "OPTIONAL", "SCOPE", "TOKEN_URL", "AUTHORIZE_URL", "USER_URL", "LOGOUT_URL",
}  # fmt: skip
_KNOWN = {"PANEL_BASIC_AUTH", "PANEL_COOKIE_SECRET", "PANEL_COOKIE_PATH"} | {f"PANEL_OAUTH_{name}" for name in _OAUTH}
_PREFIXES = ("PANEL_BASIC", "PANEL_AUTH", "PANEL_OAUTH", "PANEL_COOKIE")
_COOKIE = "set PANEL_COOKIE_SECRET to at least 32 random characters (openssl rand -hex 32)"


def check_sign_in(environ: Mapping[str, str]) -> None:
    """Pass where the variables protect the page wholly, or none of them is set; raises ``SettingsError`` for all between.

    No message shows a value that may be a secret.
    """
    meant = sorted(name for name in environ if name.startswith(_PREFIXES))
    for name in meant:
        if name not in _KNOWN:
            raise SettingsError(
                f"{name} is no variable of Panel, so it protects nothing: unset it, or use {', '.join(sorted(_near(name)))}"
            )
        if not environ[name].strip():
            raise SettingsError(
                f"{name} is set and empty, and Panel would serve the page as if it were not set: give it a value, or unset it"
            )
    if "BOKEH_AUTH_MODULE" in environ and not Path(environ["BOKEH_AUTH_MODULE"]).is_file():
        raise SettingsError("BOKEH_AUTH_MODULE names no file: correct the path, or unset the variable")
    basic, provider = environ.get("PANEL_BASIC_AUTH"), environ.get("PANEL_OAUTH_PROVIDER")
    if basic is None and provider is None:
        if meant:
            raise SettingsError(
                f"{meant[0]} is set, but neither PANEL_BASIC_AUTH nor PANEL_OAUTH_PROVIDER, so the page would be open to everybody: "
                f"set one of the two, or unset {', '.join(meant)}"
            )
        return
    if basic is not None and provider is not None:
        raise SettingsError("PANEL_BASIC_AUTH and PANEL_OAUTH_PROVIDER are both set, and Panel obeys only one of them: unset one")
    setting = "PANEL_BASIC_AUTH" if basic is not None else "PANEL_OAUTH_PROVIDER"
    if basic is not None:
        _check_users(basic)
    else:
        _check_provider(str(provider), environ)
    secret = environ.get("PANEL_COOKIE_SECRET", environ.get("BOKEH_COOKIE_SECRET", ""))
    if not secret:
        raise SettingsError(f"{setting} needs a secret to sign the cookies of those who signed in: {_COOKIE}")
    if len(secret) < SHORTEST_SECRET:
        name = "PANEL_COOKIE_SECRET" if "PANEL_COOKIE_SECRET" in environ else "BOKEH_COOKIE_SECRET"
        raise SettingsError(f"{name} has only {len(secret)} characters, so others could sign cookies in anybody's name: {_COOKIE}")


def _near(name: str) -> set[str]:
    """The variables that may have been meant."""
    family = next(prefix for prefix in _PREFIXES if name.startswith(prefix))
    if family == "PANEL_OAUTH":
        return {"PANEL_OAUTH_PROVIDER", "PANEL_OAUTH_KEY", "PANEL_OAUTH_SECRET", "PANEL_OAUTH_ENCRYPTION"}
    return {"PANEL_COOKIE_SECRET"} if family == "PANEL_COOKIE" else {"PANEL_BASIC_AUTH", "PANEL_OAUTH_PROVIDER"}


_USERS = "write a JSON object of user names and passwords into it, or unset PANEL_BASIC_AUTH"


def _check_users(value: str) -> None:
    path = Path(value)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a name no file can have
        is_file = False
    if not is_file:
        # A password that somebody set in place of a file must not be printed.
        looks_like_a_file = path.suffix == ".json" or (path.is_absolute() and path.parent != Path("/") and path.parent.is_dir())
        named = f" {value}" if looks_like_a_file else ""
        raise SettingsError(
            f"PANEL_BASIC_AUTH: there is no users file{named}, and Panel would take the variable's value for everybody's password: "
            "create that file, a JSON object of user names and passwords, or unset PANEL_BASIC_AUTH"
        )
    try:
        users: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"PANEL_BASIC_AUTH: cannot read the users file {value} ({error.strerror}): let the server's user read it"
        ) from None
    except (ValueError, RecursionError):
        raise SettingsError(f"PANEL_BASIC_AUTH: the users file {value} is not JSON, so nobody could sign in: {_USERS}") from None
    if not isinstance(users, dict) or not users:
        raise SettingsError(f"PANEL_BASIC_AUTH: the users file {value} names no user: {_USERS}")
    if not all(name.strip() and isinstance(password, str) and password.strip() for name, password in users.items()):
        raise SettingsError(f"PANEL_BASIC_AUTH: the users file {value} has a user without a name or a password that is no text: {_USERS}")


def _check_provider(value: str, environ: Mapping[str, str]) -> None:
    provider = value.lower()
    if provider not in PROVIDERS:
        raise SettingsError(f"PANEL_OAUTH_PROVIDER is no provider that Panel knows: use one of {', '.join(PROVIDERS)}")
    if provider == "pam":
        return
    needed = ["PANEL_OAUTH_KEY", *([] if provider == "auth_code" else ["PANEL_OAUTH_SECRET"]), "PANEL_OAUTH_ENCRYPTION"]
    if provider == "generic":
        needed += ["PANEL_OAUTH_TOKEN_URL", "PANEL_OAUTH_AUTHORIZE_URL", "PANEL_OAUTH_USER_URL"]
    given = _literal("PANEL_OAUTH_EXTRA_PARAMS", dict, environ)
    if missing := [name for name in needed if name not in environ and name.removeprefix("PANEL_OAUTH_") not in given]:
        raise SettingsError(f"PANEL_OAUTH_PROVIDER {provider} needs {', '.join(missing)}: set {'it' if len(missing) == 1 else 'them'}, too")
    try:
        key = base64.urlsafe_b64decode(environ["PANEL_OAUTH_ENCRYPTION"].encode("ascii"))
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise SettingsError("PANEL_OAUTH_ENCRYPTION is not 32 bytes in url-safe base64: make one with panel oauth-secret")
    if find_spec("cryptography") is None:
        raise SettingsError("PANEL_OAUTH_ENCRYPTION needs the package cryptography: install it")
    _literal("PANEL_OAUTH_GUEST_ENDPOINTS", list, environ)
    try:
        days = float(environ.get("PANEL_OAUTH_EXPIRY", "1"))
    except ValueError:
        days = math.nan
    if not 0 < days < math.inf:
        raise SettingsError("PANEL_OAUTH_EXPIRY must be a number of days above 0")


def _literal(name: str, kind: type, environ: Mapping[str, str]) -> Any:
    """The value of a variable that Panel reads as a Python literal; an empty one of the kind where it is not set."""
    if name not in environ:
        return kind()
    try:
        value: Any = ast.literal_eval(environ[name])
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        value = None
    if not isinstance(value, kind):
        raise SettingsError(f"{name} is no Python {kind.__name__}: correct it, or unset it")
    return value
