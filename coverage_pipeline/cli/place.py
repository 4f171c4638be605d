"""The command that says what there is of a place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from coverage_pipeline.cli.console import BBoxOption, ConfigOption, command_settings, console, exit_codes, parsed_bbox, printable_text

if TYPE_CHECKING:
    import shapely

    from coverage_pipeline.demand.place import PlaceReport

_MOST_SCENES = 40


def place(
    lon: Annotated[float | None, typer.Option(help="Longitude, degrees.")] = None,
    lat: Annotated[float | None, typer.Option(help="Latitude, degrees.")] = None,
    radius_km: Annotated[float | None, typer.Option("--radius-km", help="Radius about the point; default 1 km.")] = None,
    file: Annotated[str | None, typer.Option(help="A file with the outline: all its areas together.")] = None,
    bbox: BBoxOption = None,
    sensors: Annotated[str | None, typer.Option(help="Sensor keys, comma-separated; default those of the settings.")] = None,
    start: Annotated[str | None, typer.Option(help="First month or day; default the window's.")] = None,
    end: Annotated[str | None, typer.Option(help="Last month or day; default the window's.")] = None,
    form: Annotated[Literal["table", "json"], typer.Option("--format", help="What is printed.")] = "table",
    config: ConfigOption = None,
) -> None:
    """What scenes of a place exist, which of them are held, what is missing, and what to do.

    [bold]Examples[/bold]

      coverage-planner place --lon 9.4 --lat 47.6 --radius-km 5

      coverage-planner place --bbox 9,47,10,48 --sensors landsat-8-9 --start 2025-03 --format json

      coverage-planner place --file lake.geojson
    """
    from coverage_pipeline.demand.place import place as place_of

    with exit_codes():
        shape, radius = _outline(lon, lat, radius_km, file, parsed_bbox(bbox))
        settings = command_settings(config, sensors=sensors, start=start, end=end)
        chosen = settings.chosen_sensors()
        registry = settings.registry()
        report = place_of(
            shape,
            settings.window.start,
            settings.window.last_day(),
            chosen,
            store=settings.store(),
            desired={sensor.key: settings.desired().for_sensor(sensor.key, registry) for sensor in chosen},
            cloud_lt=settings.cloud_lt,
            radius_km=radius,
        )
        if form == "json":
            content = {"area_km2": report.area_km2, "months": [month.as_json() for month in report.months]}
            typer.echo(json.dumps(content, indent=1, allow_nan=False))
        else:
            _print(report, radius)


def _outline(
    lon: float | None, lat: float | None, radius_km: float | None, file: str | None, bbox: tuple[float, float, float, float] | None
) -> tuple[shapely.Geometry, float]:
    import shapely

    from coverage_pipeline.demand.errors import LocationsError
    from coverage_pipeline.demand.place import DEFAULT_RADIUS_KM
    from coverage_pipeline.demand.targets import fetch_targets, targets_union
    from coverage_pipeline.geometry.bbox import split_bbox

    given = [lon is not None or lat is not None, file is not None, bbox is not None]
    if sum(given) != 1 or (lon is None) != (lat is None):
        raise LocationsError("name one place: --lon with --lat, or --file, or --bbox")
    if file is not None:
        return targets_union(fetch_targets(file)), radius_km or 0.0
    if bbox is not None:
        return shapely.union_all([shapely.box(*part) for part in split_bbox(bbox)]), radius_km or 0.0
    if radius_km is None:
        console.print(f"no --radius-km: a circle of {DEFAULT_RADIUS_KM:g} km about the point")
        radius_km = DEFAULT_RADIUS_KM
    return shapely.Point(lon, lat), radius_km


def _print(report: PlaceReport, radius: float) -> None:
    out = Console()
    middle = report.geometry.representative_point()
    about = f", grown by {radius:g} km" if radius else ""
    out.print(f"Place of {report.area_km2:,.1f} km² about {middle.y:.3f}, {middle.x:.3f} (lat, lon){about}")
    table = Table()
    for title in ("sensor", "month", "days listed", "clear", "held", "held clear", "wanted", "missing", "action"):
        table.add_column(title, justify="left" if title in ("sensor", "month", "action") else "right")
    for one in report.months:
        days = (one.available_days, one.clear_days, one.held_days, one.held_clear_days)
        counts = ["?" if part is None else str(len(part)) for part in days]
        table.add_row(one.sensor, one.month.key, *counts, f"{one.desired:g}", "?" if one.deficit is None else str(one.deficit), one.action)
    out.print(table)
    for one in report.months:
        out.print(f"{one.sensor} {one.month}: {printable_text(one.why)} {printable_text(one.known)}", soft_wrap=True)
    scenes = [(one, scene) for one in report.months for scene in one.scenes if scene.clear is not False and scene.held is not True]
    if scenes:
        out.print("Scenes that are not held whole and may be clear (cloud is the scene's, not the place's):")
    for one, scene in scenes[:_MOST_SCENES]:
        cloud = "cloud not known" if scene.cloud_cover is None else f"cloud {scene.cloud_cover:.0f} %"
        words = f"{one.sensor} {one.month}-{scene.day:02} {scene.scene_key}, {cloud}, covers {100 * scene.share:.0f} %"
        out.print(f"  {printable_text(words)}: {printable_text(scene.item_href or 'no link')}", soft_wrap=True)
    if len(scenes) > _MOST_SCENES:
        out.print(f"  and {len(scenes) - _MOST_SCENES} more (--format json has all)")
