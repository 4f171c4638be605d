"""Commands about targets: check a file, and show what each target has and lacks."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from coverage_pipeline.cli.console import ConfigOption, command_settings, exit_codes, printable_text
from coverage_pipeline.months import Month

targets_app = typer.Typer(help="The areas that planners care about.", no_args_is_help=True)
_MOST_SHOWN = 50


@targets_app.command("check")
def check(
    file: Annotated[str | None, typer.Argument(help="File or URL of targets; default COVERAGE_TARGETS.")] = None,
    config: ConfigOption = None,
) -> None:
    """Read a file of targets and name every row that cannot be used, and every target too large for a sensor.

    Without a file: those of the settings, and those that planners saved on the page.

    Exit code 2 where a row cannot be used.

    [bold]Example[/bold]

      coverage-planner targets check sites.geojson
    """
    from coverage_pipeline.demand.errors import LocationsError
    from coverage_pipeline.demand.saved_targets import saved_targets
    from coverage_pipeline.demand.target_size import too_large
    from coverage_pipeline.demand.targets import checked_targets, target_source

    with exit_codes():
        settings = command_settings(config)
        source = file or target_source(settings)
        saved = None if file else saved_targets(settings.store())
        if source is None and not (saved is not None and len(saved)):
            raise LocationsError("no targets: name a file, or set COVERAGE_TARGETS or targets.table")
        known = settings.registry()
        targets, problems = checked_targets(source, known, settings.groups(), saved)
        out = Console()
        out.print(
            f"{printable_text(targets.source)}: {len(targets):,} targets, {targets.table['area_km2'].sum():,.0f} km\u00b2", soft_wrap=True
        )
        if len(targets):
            out.print(_by_group(targets.table))
        for sensor in settings.chosen_sensors():
            large = targets.table["id"][too_large(targets, sensor)].to_list()
            if large:
                some = printable_text(", ".join(large[:5]) + (f" and {len(large) - 5} more" if len(large) > 5 else ""))
                out.print(f"too large for one pass of {sensor.key} (swath {sensor.swath_km:g} km): {some}", soft_wrap=True)
        for problem in problems:
            out.print(f"[red]cannot be used:[/red] {printable_text(problem)}", soft_wrap=True)
    if problems:
        raise typer.Exit(2)


@targets_app.command("show")
def show(
    sensor: Annotated[str, typer.Argument(help="Sensor key, for example landsat-8-9.")],
    month: Annotated[str, typer.Argument(help="YYYY-MM.")],
    config: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every target; else the first 50 by what they lack.")] = False,
) -> None:
    """What each target has of a sensor in a month, what it lacks, and what to do.

    [bold]Example[/bold]

      coverage-planner targets show landsat-8-9 2025-03
    """
    from coverage_pipeline.demand.target_schema import TARGET_STATS_SCHEMA, TargetStatsMetadata
    from coverage_pipeline.demand.targets import load_targets
    from coverage_pipeline.grid.daymask import UNKNOWN
    from coverage_pipeline.sensors.registry import resolve_sensors
    from coverage_pipeline.storage.tables import read_parquet

    with exit_codes():
        settings = command_settings(config)
        chosen = resolve_sensors([sensor], settings.registry())[0]
        store = settings.store()
        table, stored = read_parquet(store.target_stats(chosen.key, Month.parse(month)), TARGET_STATS_SCHEMA.names)
        made = TargetStatsMetadata.of(stored)
        targets = load_targets(store)
        if targets.digest != made.targets_digest:
            typer.echo("the targets changed since these statistics were made; build them again (coverage-planner build)", err=True)

    def days(mask: int) -> str:
        return "?" if mask & int(UNKNOWN) else str(mask.bit_count())

    names = dict(zip(targets.table["id"], targets.table["name"], strict=True))
    rows = sorted(table.to_pylist(), key=lambda row: (-row["deficit"], row["target"]))
    shown = Table(title=f"{chosen.title or chosen.key}, {month}: catalogue {made.scan_status}, holdings {made.holdings_status}")
    for title in ("target", "clear", "held clear", "desired", "missing", "to download", "action"):
        shown.add_column(title, justify="left" if title in ("target", "action") else "right")
    for row in rows if everything else rows[:_MOST_SHOWN]:
        missing, ingestable = ("?" if row[name] < 0 else str(row[name]) for name in ("deficit", "ingestable"))
        name = printable_text(names.get(row["target"], row["target"]))
        action = f"{row['action']} (too large for one pass)" if row["too_large"] else row["action"]
        shown.add_row(name, days(row["clear_days"]), days(row["held_clear_days"]), f"{row['desired']:g}", missing, ingestable, action)
    Console().print(shown)
    if len(rows) > _MOST_SHOWN and not everything:
        typer.echo(f"and {len(rows) - _MOST_SHOWN} more (--all)")


@targets_app.command("saved")
def saved(config: ConfigOption = None) -> None:
    """List the targets that planners saved on the page.

    [bold]Example[/bold]

      coverage-planner targets saved
    """
    from coverage_pipeline.demand.saved_targets import list_saved

    with exit_codes():
        found = list_saved(command_settings(config).store())
    if not found:
        typer.echo("no target is saved: draw or upload an area on the page, then choose Save as a target")
        return
    shown = Table()
    for title in ("id", "name", "group", "desired a month", "km\u00b2", "saved by", "on"):
        shown.add_column(title, justify="right" if title in ("desired a month", "km\u00b2") else "left")
    for one in found:
        desired = "the sensor's" if one.desired is None else f"{one.desired:g}"
        columns = (one.id, one.name, one.group or "(none)", desired, f"{one.area_km2:,.0f}", one.who, one.saved_at[:10])
        shown.add_row(*(printable_text(text) for text in columns))
    Console().print(shown)


@targets_app.command("remove")
def remove(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of a saved target, as `targets saved` lists it.")],
    config: ConfigOption = None,
) -> None:
    """Remove a target that was saved on the page; from the next build on it counts no more.

    [bold]Example[/bold]

      coverage-planner targets remove saved-1a2b3c4d
    """
    from coverage_pipeline.demand.saved_targets import remove_saved

    with exit_codes():
        remove_saved(command_settings(config).store(), key)
    typer.echo(f"{printable_text(key)} is removed; what was built before stays as it is until the next build")


def _by_group(table: object) -> Table:
    """Number, area and wishes of each group of targets."""
    shown = Table()
    for title in ("group", "targets", "km\u00b2", "seasons", "desired a month"):
        shown.add_column(title, justify="left" if title in ("group", "seasons") else "right")
    for group, rows in table.groupby("group", sort=True):  # type: ignore[attr-defined]
        wishes = sorted({f"{value:g}" for value in rows["desired"].dropna()}) or ["the sensor's"]
        seasons = sorted({season or "all year" for season in rows["season"]})
        columns = (str(group) or "(none)", f"{len(rows):,}", f"{rows['area_km2'].sum():,.0f}", ", ".join(seasons), ", ".join(wishes))
        shown.add_row(*(printable_text(text) for text in columns))
    return shown
