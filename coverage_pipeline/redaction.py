"""Foreign text made safe to show: addresses and texts without the secrets in them, on one line, without control characters.

This is the one place that decides which part of an address people may see.

An address can hold a secret in its user info (``postgresql://user:password@host``), behind its ``?`` or ``#`` (a signed link), and in its
path (a token as a folder's name). ``redact`` also takes out ``name=value`` pairs and headers whose name says that the value is secret.
Every ``PlannerError`` redacts its message, so that a new message needs no thought. Where a library's error may repeat an address,
raise ``from None``: a traceback prints the library's words as they are.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import unquote, unquote_plus, urlsplit

HIDDEN = "…"
"""Stands where a secret stood."""

_URL = re.compile(
    r"""(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*:)?//
    (?P<rest>(?:[^\s'"<>`]|['"](?![\s,;:.)\]}]|$))+)""",
    re.VERBOSE,
)
"""An address within a text. A quotation mark belongs to it unless it ends a quotation."""
_PASSWORD_WITH_SPACE = re.compile(
    r"""(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*:)//[^\s/?#@:\[\]'"]*:(?!\d*(?:[/?#\s,;:.)\]}'"]|$))
    (?P<password>[^\n@]{0,300})@(?P<rest>[^\s'"<>`]*)""",
    re.VERBOSE,
)
"""An address whose password has a space: ``scheme://user:two words@host``. A port is no password."""
_LOGIN = re.compile(r"(?<![\w@])[^\s/@:'\"=(]+:(?!//)[^\s@'\"]+@(?=[\w\[…])")
"""``user:password@host`` without a scheme."""
_QUERY = re.compile(r"\?[\w.%~\-\[\]$]+=(?:[^\s'\"<>`]|['\"](?![\s,;:.)\]}]|$))*")
"""What follows the ``?`` of an address without host, as HTTP libraries quote it."""
_NAMED = re.compile(
    r"""(?P<name>(?P<quote>['"]?)(?:[\w.\-]*(?:secret|passw(?:or)?d|passwd|\bpwd|token|signature|credential|api_?key|access_?key|account_?key|
        authorization|session_?id)[\w.\-]*|\b(?:sig|key|pass|auth|sas|cookie))(?P=quote))
    (?P<between>\s*=\s*|(?<=['"])\s*:\s*|(?<=[Aa]uthorization):\s*)
    (?P<value>(?:Bearer|Basic|Digest|AWS4-HMAC-SHA256)\s+[^\s'"]+|'[^']*'|"[^"]*"|[^\s'"&,;)}\]]+)""",
    re.VERBOSE | re.IGNORECASE,
)
"""``password=…``, ``'secret': '…'``, ``Authorization: Bearer …``."""
_TRAILING = re.compile(r"[:;,.)\]}…]*$")
_TOKEN = re.compile(r"eyJ[\w-]{8,}\.[\w.-]+|[^/;]*\b(?:sig|signature|token|hmac|secret|key|password|hdnts|hdnea)=[^/]*", re.IGNORECASE)
"""A path segment that is a web token, or holds a signature by name."""
_RUN = re.compile(r"[A-Za-z0-9]{20,}")
_LONGEST_NAME = 200_000
_EXAMPLE = "user:password"
"""What messages show people how to write an address with."""
_FILES = ("file:", "local:")


def public_address(address: object) -> str:
    """An address as people may see it: without user info, query and fragment, and without the tokens in its path.

    A path without a scheme is a path on this machine, where ``?``, ``#`` and ``@`` are letters like others; so it stays as it is, unless
    it is an address whose scheme somebody forgot.
    """
    text = str(address)
    parts = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//", text)
    if parts is None:
        return redact(text)
    return _public(text[: parts.end() - 2], text[parts.end() :])


def redact(text: object, *addresses: object) -> str:
    """A text without the secrets in it: those of every address that stands in it, and those that their names give away.

    ``addresses`` are those that the text may quote in pieces, such as the path and query of a signed link, or half a password. Whatever
    in them is secret is taken out wherever it stands.
    """
    words = str(text)[:_LONGEST_NAME]
    for address in addresses:
        for secret in secrets_of(address):
            words = _without(words, secret)
        login = _login_of(address)
        if login and ":" in login:  # a user's name is a word that other words may hold
            words = re.sub(rf"(?<!\w){re.escape(login.partition(':')[0])}(?!\w)", HIDDEN, words) if login[0] != ":" else words
    words = _PASSWORD_WITH_SPACE.sub(_after_password, words)
    words = _URL.sub(_shown, words)
    words = _QUERY.sub(lambda match: f"?{HIDDEN}{_trailing(match[0])}", words)
    words = _NAMED.sub(lambda match: f"{match['name']}{match['between']}{_hidden_value(match['value'])}", words)
    return _LOGIN.sub(lambda match: match[0] if match[0] == f"{_EXAMPLE}@" else f"{HIDDEN}@", words)


def secrets_of(address: object) -> list[str]:
    """The parts of an address that no text may repeat, longest first, as they are written and decoded."""
    secrets: set[str] = set()
    if login := _login_of(address):
        user, colon, password = login.partition(":")
        secrets |= {login, *re.split(r"[:@/?#]", password if colon else user), password}
    _, separator, rest = str(address).partition("//")
    if separator:
        tails = [tail for mark in "?#" if (tail := rest.partition(mark)[2])]
        values = [pair.partition("=")[2] for tail in tails for pair in re.split(r"[&;#?]", tail)]
        secrets |= {*tails, *(value for value in values if len(value) > 5)}  # shorter ones, such as ``f=json``, are words
        secrets |= {segment for segment in re.split(r"[/?#]", rest)[1:] if _is_token(segment)}
    spelt = {form for part in secrets for form in (part, unquote(part), unquote_plus(part))}
    return sorted((part for part in spelt if part.strip()), key=len, reverse=True)


def has_login(address: object) -> bool:
    """Whether an address has user info, be it spoilt by an ``@`` or a ``/`` that is not escaped."""
    return _login_of(address) is not None


def _login_of(address: object) -> str | None:
    """The user info of an address; None where there is none. An ``@`` in a path is a letter like others."""
    text = str(address)
    mark = re.search(r"//", text)
    if mark is None:
        before, _, _ = text.rpartition("@")
        return before if ":" in before and not re.search(r"\s", before.partition(":")[0]) else None
    if text[: mark.start()].lower().endswith(_FILES):
        return None
    rest = text[mark.end() :]
    place = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host, colon, port = place.rpartition(":")
    no_host = not port.isdecimal() or ":" in host  # a host has one colon, before its port
    spoilt = "@" in rest and bool(colon) and no_host and not place.startswith("[")
    return rest.rpartition("@")[0] if "@" in place or spoilt else None


class RedactingFilter(logging.Filter):
    """Takes the secrets out of a library's log messages: urllib3 quotes whole addresses in its warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true; the record is changed."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        record.msg, record.args = redact(text), None
        return True


_filter = RedactingFilter()


def quiet_about_secrets(*loggers: str) -> None:
    """Let the named loggers redact what they say. Calling this again changes nothing."""
    for name in loggers:
        logging.getLogger(name).addFilter(_filter)  # the same object is added once


def _shown(match: re.Match[str]) -> str:
    rest, end = match["rest"], _trailing(match["rest"])
    return _public(match["scheme"] or "", rest[: len(rest) - len(end)]) + end


def _after_password(match: re.Match[str]) -> str:
    """The address from its host on, if it is sure where that is."""
    login = match[0].partition("//")[2].rpartition("@")[0]
    if login == _EXAMPLE:
        return match[0]
    if re.search(r"[?#]", match["password"]):
        return f"{match['scheme']}//{HIDDEN}"
    return f"{match['scheme']}//{match['rest']}"


def _trailing(text: str) -> str:
    """Punctuation at the end of an address in a sentence, which belongs to the sentence."""
    match = _TRAILING.search(text)
    end = match[0] if match else ""
    return end if not (end.startswith("]") and "[" in text) else ""


def _public(scheme: str, rest: str) -> str:
    """What may be seen of an address; ``rest`` is what follows the ``//``."""
    if scheme.lower() in _FILES:
        return f"{scheme}//{rest}"
    marks = [at for mark in "?#" if (at := rest.find(mark)) >= 0]
    shown, cut = (rest[: min(marks)], rest[min(marks) :]) if marks else (rest, "")
    if "@" in cut:  # the mark may stand within a password, and then what precedes it is the password's first part
        return f"{scheme}//{HIDDEN}"
    if shown.startswith(f"{_EXAMPLE}@"):
        return f"{scheme}//{rest}"
    if "@" in shown:
        login, _, shown = shown.rpartition("@")
        if "/" in login or login == HIDDEN:
            shown = f"{HIDDEN}@{shown}"  # a password with a slash, or a path with an @
    host, slash, path = shown.partition("/")
    name, colon, port = host.rpartition(":")
    if colon and not host.endswith("]") and port and not port.isdecimal():  # user:password of an address that was cut
        host = HIDDEN if not name.startswith("[") else host
    path = "/".join(HIDDEN if _is_token(segment) else segment for segment in path.split("/"))
    return f"{scheme}//{host}{slash}{path}" + (f"{cut[0]}{HIDDEN}" if len(cut) > 1 else cut)


def _is_token(segment: str) -> bool:
    """Whether a path segment looks like a secret. Scene ids do not: they are short runs of capitals and digits between underscores."""
    if _TOKEN.fullmatch(segment):
        return True
    for run in _RUN.findall(segment):
        lower, upper, digit = (re.search(kind, run) is not None for kind in ("[a-z]", "[A-Z]", "[0-9]"))
        hexadecimal = len(run) >= 32 and digit and re.fullmatch(r"[0-9a-f]+|[0-9A-F]+", run) is not None
        if hexadecimal or (lower and upper and digit):
            return True
    return False


def _hidden_value(value: str) -> str:
    quote = value[0] if value[:1] in ("'", '"') else ""
    return f"{quote}{HIDDEN}{quote}"


def _without(text: str, secret: str) -> str:
    if len(secret) > 3:
        return text.replace(secret, HIDDEN)
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)  # a short one is a part of many words


def host_of(address: object) -> str:
    """Host (and port) of an address, for messages; empty where there is none."""
    try:
        parts = urlsplit(str(address))
        return parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""


def printable(text: object, longest: int = 500) -> str:
    """Foreign text on one line, without control characters (nor those that turn the writing direction), cut where it gets long."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in str(text)[: 20 * longest]).split())
    return flat if len(flat) <= longest else f"{flat[:longest]}…"


def excerpt(text: object) -> str:
    """``printable`` for an answer of a provider, which may be a whole page."""
    return printable(text, 200)


def error_words(error: BaseException, longest: int = 300) -> str:
    """An error of a library on one line; its class where it says nothing."""
    return printable(error, longest) or type(error).__name__
