"""Who looks at the page, told by a token or a proxy; and what each role may write, in the functions that write."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from coverage_dashboards.acts import annotate_request, cancel_request, flag_scenes, remove_area, save_area
from coverage_dashboards.people import NotAllowed, Person, named_by_proxy, of_claims, of_headers
from coverage_pipeline.demand.saved_targets import list_saved, save_target
from coverage_pipeline.requests.database import RequestDatabase
from coverage_pipeline.requests.flags import flag_for_request
from coverage_pipeline.requests.store import Request, RequestStore
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS
from coverage_pipeline.settings.access import AccessSettings
from coverage_pipeline.storage.store import Store

OIDC = AccessSettings(sign_in="oidc", issuer="https://id.example.org", client_id="planner", groups_claim="groups")
PROXY = AccessSettings(sign_in="proxy", groups_header="X-Forwarded-Groups", proxies=("10.0.0.0/8",))
CLAIMS = {"iss": "https://id.example.org", "aud": "planner", "sub": "1", "email": "ana@example.org", "groups": ["chiefs", 3]}


def test_a_token_names_a_person() -> None:
    found = of_claims(CLAIMS, OIDC)
    assert (found.name, found.groups) == ("ana@example.org", ("chiefs",))
    assert of_claims(CLAIMS | {"aud": ["other", "planner"], "iss": "https://id.example.org/"}, OIDC).name == "ana@example.org"
    # The provider's user information has neither issuer nor audience.
    assert of_claims({"sub": "1", "email": "ana@example.org"}, OIDC).groups == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example.org"}, {"aud": "another-page"}, {"aud": []}, {"email": None}, {"email": " "}, {"email": ["ana"]},
        {"email": "a\nb"}, {"email": "x" * 201}, {"email_verified": False}, {"email_verified": "false"}, {"email": "a\u202eb"},
    ],
)  # fmt: skip
def test_a_token_that_names_nobody_for_sure(changes: dict[str, Any]) -> None:
    with pytest.raises(NotAllowed):
        of_claims(CLAIMS | changes, OIDC)


def test_nobody_signed_in() -> None:
    for claims in (None, {}):
        with pytest.raises(NotAllowed, match="Nobody is signed in"):
            of_claims(claims, OIDC)


def headers(*pairs: tuple[str, str]) -> HTTPHeaders:
    made = HTTPHeaders()
    for name, value in pairs:
        made.add(name, value)
    return made


def test_only_the_proxy_is_believed() -> None:
    named = headers(("X-Forwarded-User", "ana"), ("X-Forwarded-Groups", "chiefs, eo"))
    assert named_by_proxy(named, "10.1.2.3", PROXY)
    assert of_headers(dict(named), PROXY).groups == ("chiefs", "eo")
    for peer in ("127.0.0.1", "192.168.0.1", "::1", "", None):
        assert not named_by_proxy(named, peer, PROXY)
    for doubtful in (
        headers(),
        headers(("X-Forwarded-User", "")),
        headers(("X-Forwarded-User", "ana"), ("X-Forwarded-User", "root")),
        headers(("X-Forwarded-User", "ana"), ("X-Forwarded-Groups", "a"), ("X-Forwarded-Groups", "chiefs")),
        headers(("X-Forwarded-User", "a" * 300)),
    ):
        assert not named_by_proxy(doubtful, "10.1.2.3", PROXY)


@given(st.dictionaries(st.text(max_size=10), st.one_of(st.none(), st.text(), st.integers(), st.lists(st.text())), max_size=4))
def test_odd_claims_are_refused_and_no_crash(claims: dict[str, Any]) -> None:
    try:
        found = of_claims(claims, OIDC)
    except NotAllowed:
        return
    assert found.name == claims["email"].strip()


# --- what is written


ROLES = {"reader": "rita", "planner": "pia", "admin": "ada"}


@pytest.fixture
def plan(tmp_path: Path) -> Any:
    requests = RequestStore(RequestDatabase(f"sqlite:///{tmp_path / 'requests.sqlite'}"))
    return SimpleNamespace(requests=requests, registry=dict(COVERAGE_SENSORS))


@pytest.fixture
def people(tmp_path: Path) -> Callable[[str], Person]:
    path = tmp_path / "users.toml"
    path.write_text("\n".join(f'"{name}" = "{role}"' for role, name in ROLES.items()))
    return lambda role: Person(ROLES[role], AccessSettings(sign_in="proxy", users=path))


def scenes(count: int = 2) -> pa.Table:
    rows = [
        {
            "sensor": "emit", "scene_key": f"EMIT_2025050{n}T160000_2512611_00{n}",
            "pass_time": dt.datetime(2025, 5, 6, 16, tzinfo=dt.UTC), "geometry": shapely.to_wkb(shapely.box(0, 0, 1, 1)),
        }
        for n in range(1, count + 1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def asked_by(plan: Any, who: str) -> Request:
    day = dt.date(2025, 5, 6)
    made = flag_for_request(shapely.box(0, 0, 1, 1), (day, day), "emit", "ingest", store=plan.requests, sensors=COVERAGE_SENSORS, who=who)
    return plan.requests.get(made)


def test_who_may_flag(plan: Any, people: Callable[[str], Person]) -> None:
    with pytest.raises(NotAllowed, match="rita has the role reader, and flagging scenes needs the role planner"):
        flag_scenes(plan, scenes(), people("reader"), "")
    assert plan.requests.all() == []
    for role in ("planner", "admin"):
        (made,) = flag_scenes(plan, scenes(), people(role), "")
        assert made.is_new
        assert plan.requests.get(made.id).who == ROLES[role]
        assert flag_scenes(plan, scenes(), people(role), "") == [(made.id, False)]
        plan.requests.move(plan.requests.get(made.id), "cancelled", who="x")


@pytest.mark.parametrize(("role", "own"), list(itertools.product(ROLES, [True, False])))
def test_who_may_change_a_request(plan: Any, people: Callable[[str], Person], role: str, own: bool) -> None:
    who = people(role)
    request = asked_by(plan, who.name if own else "somebody")
    if role == "admin" or (role == "planner" and own):
        request = annotate_request(plan, request, who, "for June")
        assert (request.note, cancel_request(plan, request, who, "not needed").state) == ("for June", "cancelled")
        assert plan.requests.get(request.id).history[-1].who == who.name
        return
    for act in (annotate_request, cancel_request):
        with pytest.raises(NotAllowed, match="needs the role"):
            act(plan, request, who, "x")
    assert (plan.requests.get(request.id).note, plan.requests.get(request.id).state) == ("", "requested")


@pytest.mark.parametrize(("role", "own"), list(itertools.product(ROLES, [True, False])))
def test_who_may_save_an_area_and_remove_it(tmp_path: Path, people: Callable[[str], Person], role: str, own: bool) -> None:
    plan: Any = SimpleNamespace(store=Store.below(tmp_path))
    who = people(role)
    if role in ("planner", "admin"):
        key = save_area(plan, shapely.box(0, 0, 1, 1), who, "Mine", "", " 2,5 ")
        assert [(one.id, one.who, one.desired) for one in list_saved(plan.store)] == [(key, who.name, 2.5)]
        remove_area(plan, key, who)
    else:
        with pytest.raises(NotAllowed, match="saving a target needs the role planner"):
            save_area(plan, shapely.box(0, 0, 1, 1), who, "Mine", "", "")
    assert list_saved(plan.store) == []
    key = save_target(plan.store, shapely.box(0, 0, 1, 1), "Theirs", who=who.name if own else "somebody")
    if role == "admin" or (role == "planner" and own):
        remove_area(plan, key, who)
        assert list_saved(plan.store) == []
        return
    with pytest.raises(NotAllowed, match="needs the role"):
        remove_area(plan, key, who)
    assert len(list_saved(plan.store)) == 1


def test_without_a_sign_in(plan: Any) -> None:
    """On this machine alone everybody may; on a page for reading nobody may."""
    flag_scenes(plan, scenes(), Person("me", AccessSettings()), "")
    with pytest.raises(NotAllowed, match="for reading only"):
        flag_scenes(plan, scenes(), Person("reader", AccessSettings(sign_in="read-only")), "")
    assert [request.who for request in plan.requests.all()] == ["me"]
