"""Sign-in at an OpenID provider: Panel's own handler, told by our settings where the provider is, with stricter cookies.

Panel's generic handler does the code flow. Authlib has more (it checks the signature of the token) but no client for Tornado; as the
token comes from the provider's own address over TLS its signature need not be checked (OpenID Connect Core 1.0, section 3.1.3.7, 6).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from panel.auth import AUTH_PROVIDERS, GenericLoginHandler

from coverage_pipeline.settings.access import AccessSettings
from coverage_pipeline.settings.sources import SettingsError

PATIENCE_SECONDS = 15
DAYS_SIGNED_IN = 1
_PAGES = Path(__file__).parent
_NEEDED = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint")


def discovered(issuer: str) -> dict[str, str]:
    """The provider's addresses, as its discovery document tells them; raises ``SettingsError`` where it does not."""
    place = f"{issuer}/.well-known/openid-configuration"
    try:
        answer = requests.get(place, timeout=PATIENCE_SECONDS, allow_redirects=False, headers={"Accept": "application/json"})
        answer.raise_for_status()
        told = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise SettingsError(
            f"access.issuer: cannot read {place} ({type(error).__name__}): correct access.issuer, or wait until the provider answers"
        ) from None
    if not isinstance(told, dict) or str(told.get("issuer")).rstrip("/") != issuer:
        raise SettingsError(f"access.issuer: {place} is the document of another provider: set access.issuer to the name it gives itself")
    secure = urlsplit(issuer).scheme == "https"
    for name in _NEEDED:
        parts = urlsplit(str(told.get(name) or ""))
        if not parts.hostname or parts.scheme not in (("https",) if secure else ("http", "https")):
            raise SettingsError(f"access.issuer: {place} gives no usable {name}, which a sign-in needs")
    return {name: told[name] for name in _NEEDED}


class SignIn(GenericLoginHandler):  # type: ignore[misc]
    """Panel's handler of ``/login``. Its cookies say neither that they are for https alone nor that other sites may not send them."""

    secure = True

    def set_secure_cookie(self, name: str, value: str | bytes, **options: Any) -> None:
        """As Tornado's, with ``Secure`` and ``SameSite``. Lax: the provider's redirect must carry the cookie of the state."""
        super().set_secure_cookie(name, value, **(options | {"secure": self.secure, "samesite": "Lax"}))


def panel_options(settings: AccessSettings) -> list[str]:
    """Options of ``panel serve`` for this provider, of settings that were checked (``check_access``); asks the provider for its addresses.

    They never stand on a command line: secrets are among them.
    """
    if settings.cookie_secret is None or settings.client_secret is None or settings.issuer is None:
        raise SettingsError("access: issuer, client_secret and cookie_secret are needed for a sign-in")
    told = discovered(settings.issuer)
    SignIn.secure = urlsplit(settings.address or "").scheme == "https"
    AUTH_PROVIDERS["generic"] = SignIn
    secret = settings.cookie_secret.get_secret_value()
    extra = {
        "AUTHORIZE_URL": told["authorization_endpoint"],
        "TOKEN_URL": told["token_endpoint"],
        "USER_URL": told["userinfo_endpoint"],
        "USER_KEY": settings.name_claim,
        "scope": list(settings.scopes),
    }
    return [
        f"--cookie-secret={secret}",
        "--oauth-provider=generic",
        f"--oauth-key={settings.client_id}",
        f"--oauth-secret={settings.client_secret.get_secret_value()}",
        f"--oauth-redirect-uri={settings.address}/login",
        f"--oauth-extra-params={extra!r}",
        f"--oauth-encryption-key={derived_key(secret)}",
        f"--oauth-expiry-days={DAYS_SIGNED_IN}",
        f"--logout-template={_PAGES / 'signed_out.html'}",
        f"--oauth-error-template={_PAGES / 'sign_in_failed.html'}",
    ]


def derived_key(secret: str) -> str:
    """A key of 32 bytes for what stands in the cookies, in url-safe base64 (as Fernet takes it), from the secret that signs them."""
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), b"contents of the cookies", hashlib.sha256)).decode()
