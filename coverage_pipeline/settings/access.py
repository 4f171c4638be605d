"""Who may see the page, and who may change something through it: ``[access]``, and what is checked of it before a page is served.

Panel has a sign-in of its own that is set by variables, and starts with some that protect nothing: of ``PANEL_BASIC_AUTH`` it takes the
path of a missing users file for everybody's password, lowers the case of a password, and compares both as plain text (read in Panel 1.10,
``panel/config.py`` and ``panel/auth.py``). Who sets one of them believes the page to be protected, so all of them are refused, and
``[access]`` is the one way: an OpenID provider, or a proxy that has signed people in. The sign-in itself is Panel's.
"""

from __future__ import annotations

import enum
import ipaddress
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from coverage_pipeline.catalog.providers import is_loopback
from coverage_pipeline.redaction import has_login
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.section import Section

SHORTEST_SECRET = 32
"""Characters of a cookie secret. Who guesses the secret can sign cookies in anybody's name; 32 is Tornado's advice."""

_PANEL = ("PANEL_BASIC", "PANEL_AUTH", "PANEL_OAUTH", "PANEL_COOKIE", "BOKEH_AUTH_MODULE", "BOKEH_COOKIE_SECRET")
_HOW = 'set [access] sign_in to "oidc" or "proxy" (docs/dashboard.md, "Who may do what")'


class Role(enum.IntEnum):
    """What a person may do; each may do what the ones before may."""

    NONE = 0
    """Not even see the page."""
    READER = 1
    """See everything and export it."""
    PLANNER = 2
    """Flag scenes as requests; cancel their own, and write notes to them."""
    ADMIN = 3
    """Change everybody's requests."""


class AccessSettings(Section):
    """``[access]``: who may see the page, and who may change something through it (``coverage-planner serve``)."""

    sign_in: Literal["off", "read-only", "oidc", "proxy"] = "off"
    """``off``: nobody signs in, and everybody may do everything; only for a page that this machine alone reaches. ``read-only``: nobody
    signs in, everybody sees everything and nobody changes anything. ``oidc``: people sign in at an OpenID provider. ``proxy``: a proxy in
    front of the page has signed them in, and says in a header who they are."""
    users: Path | None = None
    """TOML file of who may do what, a line each: ``"ada@example.org" = "planner"``, ``"@eo-team" = "reader"`` for a group. Roles: ``none``,
    ``reader``, ``planner``, ``admin``; of several the highest. Read again at every change, so a role that is taken away is gone at once."""
    default_role: Literal["none", "reader", "planner"] = "reader"
    """Role of a person who signed in and is not in the file."""
    address: str | None = None
    """Public address of the page's server, such as ``https://planner.example.org``; the provider sends people back to its ``/login``."""
    issuer: str | None = None
    """The OpenID provider: where ``/.well-known/openid-configuration`` is found."""
    client_id: str | None = None
    """What the provider calls this page."""
    client_secret: SecretStr | None = None
    """The provider's secret for this page; give it as ``COVERAGE_ACCESS_CLIENT_SECRET``."""
    cookie_secret: SecretStr | None = None
    """Signs the cookies of those who signed in, at least 32 random characters (``openssl rand -hex 32``); give it as
    ``COVERAGE_ACCESS_COOKIE_SECRET``."""
    name_claim: Annotated[str, Field(pattern=r"^[\w:/.-]{1,200}$")] = "email"
    """Claim that names a person. It must be one that nobody can choose: of ``email`` an address that the provider calls unverified is
    refused."""
    groups_claim: Annotated[str, Field(pattern=r"^[\w:/.-]{1,200}$")] | None = None
    """Claim that lists a person's groups."""
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    """What the provider is asked for."""
    proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    """Addresses or networks the proxy's requests come from; a request from elsewhere is refused, whatever its headers say."""
    name_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")] = "X-Forwarded-User"
    """Header in which the proxy names the person. The proxy must set or remove it in every request."""
    groups_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")] | None = None
    """Header in which the proxy lists the person's groups, with commas between."""

    @field_validator("address", "issuer")
    @classmethod
    def _address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        parts = urlsplit(address)
        if has_login(address) or parts.query or parts.fragment:
            raise ValueError("must be an address without login, query or fragment")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http(s) address")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("must be https: what is sent to it would be read on the way")
        return address.rstrip("/")

    @field_validator("proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            ipaddress.ip_network(proxy, strict=False)
        return proxies

    @property
    def signed_in(self) -> bool:
        """Whether people sign in, here or at a proxy."""
        return self.sign_in in ("oidc", "proxy")

    def trusts(self, peer: str | None) -> bool:
        """Whether an IP address is one of the proxies'."""
        try:
            address = ipaddress.ip_address(str(peer).partition("%")[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in ipaddress.ip_network(proxy, strict=False) for proxy in self.proxies)

    def role_of(self, name: str, groups: Iterable[str] = ()) -> Role:
        """What a person who signed in may do, as the users file says now; raises ``SettingsError`` where it cannot be read."""
        roles = read_users(self.users)
        keys = [f"@{group}" for group in groups] + ([] if name.startswith("@") else [name])
        return max((roles[key] for key in keys if key in roles), default=Role[self.default_role.upper()])


def read_users(path: Path | None) -> dict[str, Role]:
    """Role by name, or by ``@group``; raises ``SettingsError`` where the file is not there, not readable, or says something else."""
    if path is None:
        raise SettingsError("access.users is not set, so nobody could change anything: name the TOML file of who may do what")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"access.users: cannot read {path} ({error.strerror}): create it, or let the server's user read it") from None
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, tomllib.TOMLDecodeError) else "it is no text in UTF-8"
        raise SettingsError(f'access.users: {path} is not TOML ({why}): write a line such as "ada@example.org" = "planner"') from None
    roles = {}
    for name, role in table.items():
        if not name.strip() or not isinstance(role, str) or role.upper() not in Role.__members__:
            allowed = ", ".join(member.name.lower() for member in Role)
            raise SettingsError(f"access.users: {path}: {name[:80]!r} has no role: use one of {allowed}, in quotation marks")
        roles[name] = Role[role.upper()]
    return roles


def check_access(access: AccessSettings, environ: Mapping[str, str], listens_on: str = "127.0.0.1", hosts: Iterable[str] = ()) -> None:
    """Pass where the page is protected as it must be; raises ``SettingsError`` for everything else. No message shows a secret.

    ``listens_on`` is the address the server listens on, ``hosts`` are the further names that browsers call it by.
    """
    for name in sorted(environ):
        if name.startswith(_PANEL):
            why = ""
            if name == "PANEL_BASIC_AUTH":
                why = f", which takes the path of a missing users file{_shown_path(environ[name])} for everybody's password"
            raise SettingsError(
                f"{name} is a variable of Panel's own sign-in{why}; it is not used here, so it would protect nothing: unset it, and {_HOW}"
            )
    if access.sign_in == "off":
        elsewhere = [name for name in (listens_on, *hosts) if not is_loopback(name)]
        if elsewhere:
            raise SettingsError(
                f"the page would be reached at {elsewhere[0] or 'every address of this machine'}, where everybody could change requests: "
                f'{_HOW}; or to "read-only", where everybody may look'
            )
        return
    if not access.signed_in:
        return
    read_users(access.users)
    if access.sign_in == "proxy":
        if not access.proxies:
            raise SettingsError("access.proxies names no address, so every request would be refused: name the proxy's")
        return
    missing = [name for name in ("issuer", "client_id", "client_secret", "cookie_secret", "address") if getattr(access, name) is None]
    if missing:
        raise SettingsError(
            f'access.sign_in = "oidc" needs access.{", access.".join(missing)}: set {"it" if len(missing) == 1 else "them"}, too'
        )
    secret = access.cookie_secret.get_secret_value() if access.cookie_secret else ""
    if len(secret) < SHORTEST_SECRET:
        raise SettingsError(
            f"access.cookie_secret has only {len(secret)} characters, so others could sign cookies in anybody's name: set "
            f"COVERAGE_ACCESS_COOKIE_SECRET to at least {SHORTEST_SECRET} random characters (openssl rand -hex 32)"
        )


def _shown_path(value: str) -> str:
    """A path, for a message; nothing where the value may be a password that stands in a path's place."""
    path = Path(value)
    try:
        looks_like_one = path.suffix == ".json" or (path.is_absolute() and path.parent != Path("/") and path.parent.is_dir())
    except (OSError, ValueError):  # a name no file can have
        looks_like_one = False
    return f" ({value})" if looks_like_one else ""
