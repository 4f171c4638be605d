"""Requests of the demo, in different states: asked for, ordered, withdrawn, and one that the simulated archive settles."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import shapely

from coverage_pipeline.demo.targets import SITES
from coverage_pipeline.months import UTC, Month
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.requests.backlog_schema import BACKLOG_SCHEMA
from coverage_pipeline.requests.database import RequestDatabase
from coverage_pipeline.requests.flags import flag_for_request
from coverage_pipeline.requests.store import Request, RequestStore
from coverage_pipeline.sensors.registry import CoverageSensor
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.storage.tables import read_parquet

_WHO = "demo planner"


def write_requests(settings: PlannerSettings) -> list[Request]:
    """Record the demo's requests and settle them by its evidence; returns them as they then are."""
    store = RequestStore(RequestDatabase(settings.request_database()))
    registry = settings.registry()
    month = settings.months()[-1]
    next_year = dt.datetime.now(UTC).year + 1
    window = (dt.date(next_year, 3, 1), dt.date(next_year, 4, 30))
    fires = [site for site in SITES if site.group == "fire"]

    def flag(sensor: str, at: int, note: str) -> Request:
        place = shapely.Point(fires[at].lon, fires[at].lat)
        made = flag_for_request(place, window, sensor, "task", store=store, sensors=registry, who=_WHO, note=f"{fires[at].name}: {note}")
        return store.get(made)

    flag("emit", 0, "before the season")
    store.move(flag("enmap", 1, "with the field campaign"), "ordered", who=_WHO, order_number="DEMO-0815", evidence={"order": "DEMO-0815"})
    store.move(flag("prisma", 2, "twice by mistake"), "cancelled", who=_WHO, reason="EnMAP is enough")
    scenes = _first_scenes(settings, registry["sentinel-2"], month)
    if scenes.num_rows:
        row = scenes.slice(0, 1).to_pylist()[0]
        days = (month.start.date(), month.end.date() - dt.timedelta(days=1))
        flag_for_request(
            shapely.from_wkb(row["geometry"]), days, "sentinel-2", "ingest", store=store, sensors=registry, who=_WHO,
            note="first of the backlog", scenes=[row["scene_key"]],
        )  # fmt: skip
    planner = Planner.from_settings(settings)
    for sensor in planner.spec.sensors:
        planner.settled(sensor, month)
    return store.all()


def _first_scenes(settings: PlannerSettings, sensor: CoverageSensor, month: Month) -> pa.Table:
    table, _ = read_parquet(settings.store().backlog(sensor.key, month), BACKLOG_SCHEMA.names)
    return table.filter(table["rank"].is_valid())
