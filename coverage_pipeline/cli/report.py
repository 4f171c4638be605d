"""Commands that report: the figures of a month, and what changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from coverage_pipeline.cli.console import ConfigOption, command_settings, exit_codes, printable_text
from coverage_pipeline.months import Month

if TYPE_CHECKING:
    from coverage_pipeline.settings.model import PlannerSettings


def report(
    month: Annotated[str | None, typer.Option(help="YYYY-MM; default the window's last.")] = None,
    group: Annotated[str | None, typer.Option(help="A group of targets; default all.")] = None,
    sensors: Annotated[str | None, typer.Option(help="Sensor keys, comma-separated.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write one self-contained page with map and charts.")] = None,
    config: ConfigOption = None,
) -> None:
    """The figure to report: what has what is wanted of it, what is missing, and what is not known, with the trend and what changed.

    [bold]Examples[/bold]

      coverage-planner report --month 2025-06

      coverage-planner report --group crops --html crops.html
    """
    from coverage_pipeline.demand.changes import states_of, target_history
    from coverage_pipeline.demand.report import change_words, closing_words, make_report
    from coverage_pipeline.demand.targets import load_targets

    with exit_codes():
        settings = command_settings(config, sensors=sensors)
        store, months = settings.store(), settings.months()
        wanted = months[-1] if month is None else Month.parse(month)
        made = make_report(settings.chosen_sensors(), months, wanted, store, group, settings.chosen_groups())
        out = Console()
        out.print(f"[bold]Coverage of {printable_text(f'targets of {group}' if group else made.of)}, {wanted}[/bold]")
        if settings.note:
            out.print(printable_text(settings.note), soft_wrap=True)
        for one in made.sensors:
            out.print()
            out.print(f"{printable_text(one.headline)}.", soft_wrap=True, highlight=False)
            if one.now.row is not None:
                out.print(f"  {printable_text(closing_words(one.now.row))}", soft_wrap=True, highlight=False)
            if one.since_month is not None:
                out.print(f"  Since the month before: {change_words(one.since_month)}.", soft_wrap=True, highlight=False)
            if one.since_run is not None:
                out.print(f"  Since the run of {one.run_before}: {change_words(one.since_run)}.", soft_wrap=True, highlight=False)
        out.print()
        out.print(_trend([(one.key, [(f.met, f.unknown) for f in one.trend]) for one in made.sensors], months))
        if html is not None:
            from coverage_pipeline.demand.report_html import report_html
            from coverage_pipeline.storage.files import write_bytes
            from coverage_pipeline.storage.paths import storage_path

            targets = load_targets(store) if made.of == "targets" else None
            histories = {one.key: target_history(store, one.key, wanted) for one in made.sensors}
            states = {key: states_of(rows[-1]) for key, rows in histories.items() if rows}
            write_bytes(storage_path(html), report_html(made, targets, states, note=settings.note).encode())
            typer.echo(str(html))


def _trend(rows: list[tuple[str, list[tuple[float | None, float | None]]]], months: list[Month]) -> Table:
    """Share met by month, with the share that is not known in brackets."""
    table = Table(title="Share of the area that has what is wanted (?: not known)")
    table.add_column("sensor")
    for month in months[-12:]:
        table.add_column(str(month), justify="right")
    for key, figures in rows:
        cells = []
        for met, unknown in figures[-12:]:
            if unknown is None:
                cells.append("-")
            elif met is None:
                cells.append("not known")
            else:
                cells.append(f"{100 * met:.0f} %" + (f" (? {100 * unknown:.0f} %)" if unknown else ""))
        table.add_row(key, *cells)
    return table


def changes(
    month: Annotated[str | None, typer.Option(help="YYYY-MM; default the window's last.")] = None,
    against: Annotated[str | None, typer.Option(help="The month to compare with, YYYY-MM; default the run before.")] = None,
    sensors: Annotated[str | None, typer.Option(help="Sensor keys, comma-separated.")] = None,
    config: ConfigOption = None,
) -> None:
    """Which targets changed: gaps that opened or closed, less or more missing, became known or not.

    [bold]Examples[/bold]

      coverage-planner changes

      coverage-planner changes --month 2025-06 --against 2025-05
    """
    from coverage_pipeline.demand.changes import NothingToCompare, counts, since_last_run, since_month
    from coverage_pipeline.demand.report import change_words

    compared = False
    with exit_codes():
        settings = command_settings(config, sensors=sensors)
        store = settings.store()
        wanted = settings.months()[-1] if month is None else Month.parse(month)
        out = Console()
        for sensor in settings.chosen_sensors():
            try:
                if against is None:
                    found, before = since_last_run(store, sensor.key, wanted)
                else:
                    found, before = since_month(store, sensor.key, Month.parse(against), wanted), against
            except NothingToCompare as nothing:
                if against is not None and settings.targets.path is None and settings.targets.table is None:
                    compared = True
                    _print_cells(out, settings, sensor.key, Month.parse(against), wanted)
                    continue
                out.print(printable_text(nothing), soft_wrap=True, highlight=False)
                continue
            compared = True
            out.print(
                f"[bold]{sensor.key} {wanted}[/bold] against {before}: {change_words(counts(found))}", soft_wrap=True, highlight=False
            )
            for change in found:
                was, now = ("-" if one is None else "?" if one.lacks is None else str(one.lacks) for one in (change.before, change.after))
                out.print(f"  {printable_text(change.target)}: {change.kind} (missing {was} -> {now})", soft_wrap=True, highlight=False)
    if not compared:
        raise typer.Exit(1)


def _print_cells(out: Console, settings: PlannerSettings, sensor: str, before: Month, after: Month) -> None:
    """Where there are no targets: the area of the cells by kind of change."""
    from coverage_pipeline.cube.dataset import open_coverage
    from coverage_pipeline.demand.cell_changes import change_areas, change_layer

    layer = change_layer(open_coverage(settings.store().zarr), sensor, before, after)
    areas = change_areas(layer, settings.grid_spec())
    words = ", ".join(f"{kind} {km2:,.0f} km²" for kind, km2 in areas.items() if km2) or "no cell changed"
    out.print(f"[bold]{sensor} {after}[/bold] against {before}, cells: {words}", soft_wrap=True, highlight=False)
