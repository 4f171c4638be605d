"""What can be chosen, addresses from strangers, and the words around the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards import words
from coverage_dashboards.choices import Choices, View, address_of, aggregations_of, metrics_of
from coverage_dashboards.fields import Field, Limits, Share
from coverage_pipeline.cube.dataset import open_coverage
from coverage_pipeline.cube.schema import ACTIONS, METRICS
from coverage_pipeline.months import Month
from tests.cubes import JANUARY, cube_spec, known_fields, make_cube, write_partition
from tests.dashboards.cubes import NOTE, build_cube

MONTHS = tuple(Month(2025, k) for k in range(1, 8))
CHOICES = Choices(("emit", "landsat-8-9", "prisma", "sentinel-2"), MONTHS, frozenset({"prisma"}), frozenset({"sentinel-2"}))


def field(metric="scenes_count", known=(6, 6), months=6, unit="scenes a month", limits=None):
    values = np.zeros((1800, 3600), np.float32)
    shares = {a: Share(10, 0.2) for a in ACTIONS}
    return Field(metric, values, np.zeros(1, np.uint8), months, known, limits or Limits(0, 4), unit, shares)


def test_the_first_view_is_the_specifications():
    view = CHOICES.first_view()
    assert view == View("available", "scenes_count", ("emit",), Month(2025, 1), Month(2025, 6), "rate", Month(2025, 1))
    assert Choices(("a", "b"), MONTHS[:2], frozenset(), frozenset()).first_view().sensors == ("a",)


def test_a_sensor_shows_only_the_layers_it_has(tmp_path):
    choices = Choices.of(open_coverage(build_cube(tmp_path / "coverage.zarr", 20.0, 2)))
    assert choices.sensors_of("scenes_count") == ["emit", "landsat-8-9", "sentinel-2"]
    assert choices.sensors_of("held_count") == ["emit", "landsat-8-9", "prisma"]
    assert choices.sensors_of("deficit") == list(choices.sensors)
    assert choices.lacks("prisma", "unmet_supply") == "PRISMA has no public catalogue"
    assert choices.lacks("prisma", "ingestable_observations") == "PRISMA has no public catalogue"
    assert choices.sensors_of("action") == choices.sensors_of("priority_score") == list(choices.sensors)
    assert words.left_out(choices, "held_count") == "Sentinel-2 is not in our holdings."


def test_actions_have_no_mean():
    assert aggregations_of("action") == ["recent", "worst", "scrub"]
    assert aggregations_of("deficit") == ["rate", "total", "recent", "worst", "scrub"]


@pytest.mark.parametrize("metric", list(METRICS))
def test_an_address_gives_the_view_it_was_made_of(metric):
    sensor = CHOICES.sensors_of(metric)[-1]
    view = View(METRICS[metric].layer, metric, (sensor,), MONTHS[1], MONTHS[4], "scrub", MONTHS[2])
    asked = {k: [v.encode()] for k, v in address_of(view).items()}
    assert CHOICES.from_address(asked) == (view, [])


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"layer": "everything"}, ["layer"]),
        ({"metric": "__class__"}, ["metric"]),
        ({"layer": "gap", "metric": "held_count"}, ["metric"]),
        ({"metric": "action", "agg": "rate"}, ["aggregation"]),
        ({"sensors": "emit,<script>alert(1)</script>"}, ["sensors"]),
        ({"sensors": "prisma"}, ["sensors"]),
        ({"t0": "2025-06", "t1": "2025-02"}, ["window"]),
        ({"t0": "1999-01"}, ["window"]),
        ({"t0": "2025-01-01T00:00"}, ["window"]),
        ({"month": "2025-07"}, ["month"]),
        ({"sensors": "emit" * 1000}, ["sensors"]),
        ({"utm_source": "mail"}, []),
    ],
)
def test_what_the_cube_does_not_have_is_left_out_and_told(asked, refused):
    view, told = CHOICES.from_address({k: [v.encode()] for k, v in asked.items()})
    assert told == refused
    assert view.metric in metrics_of(view.layer)
    assert view.sensors
    assert view.first <= view.month <= view.last


@given(
    st.dictionaries(
        st.sampled_from(["layer", "metric", "sensors", "t0", "t1", "agg", "month"]),
        st.lists(st.binary(max_size=30), max_size=2),
    )
)
def test_no_address_does_harm(asked):
    view, told = CHOICES.from_address(asked)
    assert CHOICES.settled(view) == view
    assert set(told) <= {"layer", "metric", "sensors", "window", "aggregation", "month"}


def test_changing_the_layer_keeps_what_fits():
    view = View("acquired", "scenes_count", ("sentinel-2", "emit"), MONTHS[0], MONTHS[1], "rate", MONTHS[5])
    settled = CHOICES.settled(view)
    assert (settled.metric, settled.sensors, settled.month) == ("held_count", ("emit",), MONTHS[1])


def test_the_caption_says_what_is_shown_and_how_much_of_it_is_known():
    view = CHOICES.first_view()
    assert words.caption(view, field()) == (
        "Available · Scenes · rate (mean month) · EMIT (ISS) · January to June 2025 · known in all 6 of 6 months"
    )
    assert words.caption(view, field(known=(3, 6))).endswith("between 3 and 6 of 6 months known")
    assert words.known_in_words((4, 4), 6) == "known in 4 of 6 months"
    assert words.known_in_words((0, 0), 6) == "not known in any month"
    assert words.window_in_words(Month(2024, 11), Month(2025, 2)) == "November 2024 to February 2025"


def test_the_legend_names_unit_unknown_and_scope():
    told = words.legend(field(), Limits(0, 4, above=True), "", 24, dark=False)
    assert "Scenes (scenes a month)" in told
    assert "≥ 4" in told
    assert "not known" in told
    assert "out of scope" not in told
    gap = words.legend(field("deficit", unit="clear observations"), Limits(0, 2), "", 24, dark=True)
    assert "out of scope" in gap
    age = words.legend(field("days_since_last_held", unit="days"), Limits(0, 800), "", 18, dark=True)
    assert "never held within 18 months" in age


def test_the_action_legend_says_what_to_do():
    told = words.legend(field("action", unit=""), Limits(-0.5, 6.5), "", 24, dark=False)
    for name, text in words.ACTION_WORDS.items():
        assert f"<b>{words.ACTION_TITLES[name]}</b>: {text}" in told
    assert "20 % of the area in scope, 10 cells" in told
    assert set(words.ACTION_WORDS) == set(ACTIONS)


def test_shares_never_call_something_nothing():
    assert [words.percent(p) for p in (0, 0.0001, 0.22, 0.999, 1)] == ["0 %", "under 1 %", "22 %", "over 99 %", "100 %"]


def test_nothing_known_says_what_was_not_looked_up(tmp_path):
    ds = open_coverage(build_cube(tmp_path / "coverage.zarr", 20.0, 2))
    ds["scan_status"][:] = 0
    view = Choices.of(ds).first_view()
    assert words.nothing_known(view, ds) == (
        "Nothing is known here yet: the catalogue of EMIT (ISS) has not been scanned (January to February 2025)."
    )


def test_nothing_known_of_what_needs_both_names_the_one_that_lacks(tmp_path):
    path = make_cube(tmp_path / "coverage.zarr", cube_spec(["emit"], [JANUARY]))
    view = View("gap", "ingestable_observations", ("emit",), JANUARY, JANUARY, "rate", JANUARY)
    write_partition(path, "emit", JANUARY, known_fields(ingestable_days=1 << 31), holdings="off")
    said = words.nothing_known(view, open_coverage(path))
    assert said == "Nothing is known here yet: the holdings of EMIT (ISS) could not be reached (January 2025)."
    write_partition(path, "emit", JANUARY, known_fields(ingestable_days=1 << 31), scan="not_scanned")
    assert "the catalogue of EMIT (ISS) has not been scanned" in words.nothing_known(view, open_coverage(path))
    write_partition(path, "emit", JANUARY)
    write_partition(path, "emit", JANUARY, gap=False)
    stale = words.nothing_known(replace(view, metric="deficit"), open_coverage(path))
    assert "the gap of EMIT (ISS) has not been made since its coverage changed" in stale


def test_a_zero_of_a_provisional_month_is_said_to_be_no_known_none():
    some, all_of = replace(field(), provisional=2), replace(field(months=1, known=(1, 1)), provisional=1)
    assert words.none_found(field()) == ""
    assert words.none_found(some) == "none found yet; the scan of 2 of 6 months is provisional"
    assert words.none_found(all_of) == "none found yet; the scan is provisional"
    assert "0: none found yet; the scan of 2 of 6 months is provisional" in words.legend(some, Limits(0, 4), "", 24, dark=False)
    assert words.hover_words(all_of, "", False)["none"] == words.none_found(all_of)
    assert words.caption(CHOICES.first_view(), some).endswith("known in all 6 of 6 months · the scan of 2 of 6 months is provisional")
    cloud = field("mean_scene_cloud_pct", unit="%")
    assert words.beside_in_words(cloud) == "no scenes of known cloud"  # scenes there may be
    assert words.beside_in_words(replace(cloud, provisional=6)) == (
        "no scenes of known cloud: none found yet; the scans of all months are provisional"
    )


def test_where_an_archive_cannot_be_asked_task_does_not_say_that_no_scene_exists():
    alone = replace(field("action", unit=""), without_catalogue=("prisma",), sensors=1)
    assert words.action_words("task", alone) == (
        "we hold too few, the sensor can be pointed (PRISMA: from our holdings alone, the archive cannot be asked)"
    )
    both = replace(alone, sensors=2)
    assert words.action_words("task", both).startswith("none exists, the sensor can be pointed (PRISMA: from our holdings alone")
    assert words.action_words("task", both) in words.legend(both, Limits(-0.5, 6.5), "", 24, dark=False)
    assert f"Task: {words.action_words('task', alone)}" in words.hover_words(alone, "", False)["actions"]
    assert words.action_words("none", alone) == words.ACTION_WORDS["none"]


def test_labels_of_sensors_are_text_and_none_hides_another():
    choices = Choices(("emit", "e\u202emit", "emit\u200b"), MONTHS, frozenset(), frozenset())
    labels = choices.labels_of("scenes_count")
    assert labels == {"EMIT (ISS)": "emit", "emit (2: emit)": "e\u202emit", "emit (3: emit)": "emit\u200b"}


def test_a_view_of_another_cube_is_settled_within_this_one():
    view = View("available", "scenes_count", ("emit", "gone"), Month(2020, 1), Month(2030, 1), "rate", Month(2021, 1))
    settled = CHOICES.settled(view)
    assert (settled.first, settled.last, settled.month, settled.sensors) == (MONTHS[0], MONTHS[-1], MONTHS[0], ("emit",))


def test_simulated_data_are_said_to_be():
    assert words.is_simulated({"comment": NOTE})
    assert not words.is_simulated({})
    assert words.simulated({"comment": "simulated data: <b>"}) == '<b>Simulated data</b><span class="rest"> – &lt;b&gt;</span>'
