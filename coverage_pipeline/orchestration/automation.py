"""When partitions are materialised without anyone asking: the trailing months once a month, and what follows from them."""

from __future__ import annotations

import datetime as dt
from typing import Any, NamedTuple

import dagster as dg

from coverage_pipeline.settings.model import OrchestrationSettings


class Automation(NamedTuple):
    """Conditions of the root assets and of those made from them."""

    root: dg.AutomationCondition[Any]
    downstream: dg.AutomationCondition[Any]


def automation_conditions(settings: OrchestrationSettings) -> Automation:
    """Roots: at every tick of the cron, the last closed months again, for catalogues publish late. The rest: as soon as what
    they are made from is new, whichever month that is.
    """
    # 31 days a month reach the start of the n-th last closed month, and never that of the one before it.
    window = dg.AutomationCondition.in_latest_time_window(dt.timedelta(days=31 * settings.trailing_months))
    in_window = dg.AutomationCondition.on_cron(settings.cron).replace(dg.AutomationCondition.in_latest_time_window(), window)
    eager = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())
    return Automation(
        root=in_window.with_label("monthly, the last closed months"),
        downstream=(eager & dg.AutomationCondition.all_deps_blocking_checks_passed()).with_label("when its sources are new"),
    )


def automation_sensor(settings: OrchestrationSettings) -> dg.AutomationConditionSensorDefinition:
    """The sensor that evaluates the conditions; on unless the settings say otherwise."""
    status = dg.DefaultSensorStatus.RUNNING if settings.automation else dg.DefaultSensorStatus.STOPPED
    return dg.AutomationConditionSensorDefinition(
        "monthly", target=dg.AssetSelection.all(), default_status=status, minimum_interval_seconds=60
    )
