"""Who looks at the page, and what they may do.

A person's name and groups come from the session: from the identity token that Panel keeps in signed cookies, or from the header of a
trusted proxy, which reaches the session in a signed token of Bokeh's. The role is looked up in the users file whenever it is asked for.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import panel as pn
from tornado.httputil import HTTPHeaders

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.settings.access import AccessSettings, Role
from coverage_pipeline.settings.load import load_settings

LONGEST_NAME = 200
"""Characters of a name."""


class NotAllowed(PlannerError):
    """A person asked for what their role does not allow, or who they are is not known."""


@dataclass(frozen=True)
class Person:
    """Who looks at the page."""

    name: str
    access: AccessSettings
    groups: tuple[str, ...] = ()

    @property
    def role(self) -> Role:
        """What they may do now; raises ``SettingsError`` where the users file cannot be read."""
        match self.access.sign_in:
            case "off":
                return Role.ADMIN
            case "read-only":
                return Role.READER
            case _:
                return self.access.role_of(self.name, self.groups)

    def must_be(self, least: Role, to: str) -> None:
        """Pass where the role is at least that one; raises ``NotAllowed`` that says what was asked for (``to``) and who gives roles."""
        role = self.role
        if role >= least:
            return
        if self.access.sign_in == "read-only":
            raise NotAllowed(f"This page is for reading only: {to} is not possible here. Use a page on which you sign in.")
        raise NotAllowed(
            f"{self.name} has the role {role.name.lower()}, and {to} needs the role {least.name.lower()}: "
            "ask whoever runs this page for it."
        )


@cache
def access() -> AccessSettings:
    """The settings this process was started with; raises ``SettingsError``."""
    return load_settings(holdings=False).access


def person() -> Person:
    """Who looks at the page of this session; raises ``NotAllowed`` where nobody signed in who must have, ``SettingsError``."""
    settings = access()
    match settings.sign_in:
        case "off":  # only this machine reaches the page: the account it runs under
            return Person(_account(), settings)
        case "read-only":
            return Person("reader", settings)
        case "oidc":
            return of_claims(pn.state.user_info, settings)
        case "proxy":
            return of_headers(pn.state.headers, settings)


def of_claims(claims: Mapping[str, Any] | None, settings: AccessSettings) -> Person:
    """The person an identity token, or the provider's user information, tells of.

    Panel has fetched it from the provider itself, and keeps it encrypted in a signed cookie; what it does not check is whether the
    token was made by this provider and for this page (OpenID Connect Core 1.0, section 3.1.3.7, 2 and 3).
    """
    if not claims:
        raise NotAllowed("Nobody is signed in: load the page again to sign in.")
    issuer, audience = claims.get("iss"), claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if (issuer is not None and str(issuer).rstrip("/") != settings.issuer) or (
        audience is not None and settings.client_id not in audiences
    ):
        raise NotAllowed("The sign-in was made by another provider, or for another page: sign out, and sign in again.")
    if settings.name_claim == "email" and claims.get("email_verified") in (False, "false"):
        raise NotAllowed("The provider says that your e-mail address is not verified: verify it there, and sign in again.")
    name = _checked(claims.get(settings.name_claim), f"claim {settings.name_claim}")
    listed = claims.get(settings.groups_claim) if settings.groups_claim else None
    groups = [group for group in listed if isinstance(group, str)] if isinstance(listed, list) else []
    return Person(name, settings, tuple(groups))


def of_headers(headers: Mapping[str, str | list[str]], settings: AccessSettings) -> Person:
    """The person a proxy names in the headers of a request that came from it."""
    told = {name.lower(): value for name, value in headers.items()}
    name = told.get(settings.name_header.lower())
    groups = told.get(settings.groups_header.lower(), "") if settings.groups_header else ""
    listed = groups if isinstance(groups, list) else groups.split(",")
    return Person(_checked(name, f"header {settings.name_header}"), settings, tuple(group.strip() for group in listed if group.strip()))


def named_by_proxy(headers: HTTPHeaders, peer: str | None, settings: AccessSettings) -> bool:
    """Whether a request came from a trusted proxy that names one person."""
    if not settings.trusts(peer) or len(headers.get_list(settings.name_header)) != 1:
        return False
    if settings.groups_header and len(headers.get_list(settings.groups_header)) > 1:
        return False
    try:
        of_headers(dict(headers), settings)
    except NotAllowed:
        return False
    return True


def _checked(name: object, where: str) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise NotAllowed(f"The sign-in names nobody ({where}): ask whoever runs this page to correct it.")
    return name.strip()


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
