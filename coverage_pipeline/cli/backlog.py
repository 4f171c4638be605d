"""The command that lists the scenes worth getting, and writes them for download tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console
from rich.table import Table

from coverage_pipeline.cli.console import (
    BBoxOption,
    ConfigOption,
    command_settings,
    console,
    exit_codes,
    parsed_bbox,
    printable_text,
    progress_bar,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from coverage_pipeline.requests.backlog import Backlog
    from coverage_pipeline.requests.backlog_query import BacklogAnswer
    from coverage_pipeline.settings.model import PlannerSettings

_SHOWN = 20


def backlog(
    sensors: Annotated[str | None, typer.Option(help="Sensor keys, comma-separated.")] = None,
    start: Annotated[str | None, typer.Option(help="First month or day; default the window's.")] = None,
    end: Annotated[str | None, typer.Option(help="Last month or day; default the window's.")] = None,
    targets: Annotated[str | None, typer.Option(help="Ids or names of targets, comma-separated; default all.")] = None,
    groups: Annotated[str | None, typer.Option(help="Groups of targets, comma-separated; default all.")] = None,
    bbox: BBoxOption = None,
    max_gb: Annotated[float | None, typer.Option("--max-gb", min=0, help="At most so many gigabytes (10⁹ bytes).")] = None,
    max_scenes: Annotated[int | None, typer.Option("--max-scenes", min=0, help="At most so many scenes.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="table, or to write: itemcollection, geoparquet, csv, aria2, s5cmd, earthaccess.")
    ] = "table",
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default backlog.json and the like in this folder.")] = None,
    config: ConfigOption = None,
) -> None:
    """Which scenes to get, the most useful for its bytes first; with --format, their items for a download tool.

    Exit code 1 where an item has vanished, lacks a wanted asset or cannot be had, or where a month of the window is not known; the rest is
    written.

    [bold]Examples[/bold]

      coverage-planner backlog --max-gb 50

      coverage-planner backlog --groups crops --start 2025-03 --max-gb 50 --format itemcollection --out crops.json
    """
    from coverage_pipeline.requests.backlog import within_budget
    from coverage_pipeline.requests.export import ExportFormat
    from coverage_pipeline.settings.sources import SettingsError

    with exit_codes():
        if form != "table" and form not in get_args(ExportFormat):
            raise SettingsError(f"--format {form!r}: use table or one of {', '.join(get_args(ExportFormat))}")
        settings = command_settings(config, sensors=sensors, start=start, end=end)
        answer = _answer(settings, targets, groups, parsed_bbox(bbox))
        chosen = within_budget(answer.backlog, max_gb=max_gb, max_scenes=max_scenes)
        for sentence in answer.unknown:
            console.print(f"[yellow]not known: {printable_text(sentence)}[/yellow]", soft_wrap=True)
        if form == "table":
            _print(answer.backlog, chosen)
            problems = 0
        else:
            problems = _export(settings, chosen, form, out)
    if problems or answer.unknown:
        raise typer.Exit(1)


def _answer(
    settings: PlannerSettings, ids: str | None, groups: str | None, bbox: tuple[float, float, float, float] | None
) -> BacklogAnswer:
    from coverage_pipeline.demand.targets import configured_targets
    from coverage_pipeline.requests.backlog_query import BacklogQuery, backlog_of

    query = BacklogQuery(
        settings.chosen_sensors(),
        settings.months(),
        settings.chosen_groups(),
        _listed(ids),
        _listed(groups),
        bbox,
    )
    targets = configured_targets(settings)
    with progress_bar() as progress:
        task = progress.add_task("choosing scenes", total=len(query.months))
        return backlog_of(
            query,
            settings.store(),
            targets,
            settings.grid_spec(),
            cloud_lt=settings.cloud_lt,
            desired=settings.desired(),
            registry=settings.registry(),
            downloads=settings.sensors.download_overrides(),
            on_month=lambda month: progress.update(task, advance=1, description=f"choosing scenes of {month}"),
        )


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _print(backlog: Backlog, chosen: pa.Table) -> None:
    from coverage_pipeline.requests.backlog_words import backlog_in_words, closes_in_words

    out = Console()
    table = Table()
    rows = chosen.slice(0, _SHOWN).to_pylist()
    needs_login = any(row["login"] for row in rows)
    for title in ("rank", "sensor", "day", "scene", "cloud %", "GB", "closes", *(["login"] if needs_login else [])):
        wrapped = title in ("scene", "closes", "login")
        table.add_column(title, justify="right" if title in ("rank", "cloud %", "GB") else "left", overflow="fold", no_wrap=not wrapped)
    for row in rows:
        closes = closes_in_words(row)
        size = f"{row['bytes'] / 1e9:.2f}{'' if row['bytes_stated'] else ' est.'}"
        cloud = "?" if row["cloud_cover"] is None else f"{row['cloud_cover']:.0f}"
        cells = [str(row["rank"]), row["sensor"], f"{row['pass_time']:%Y-%m-%d}", row["scene_key"], cloud, size, closes]
        table.add_row(*(printable_text(cell) for cell in [*cells, *([row["login"]] if needs_login else [])]))
    if chosen.num_rows:
        out.print(table)
    if chosen.num_rows > _SHOWN:
        out.print(f"and {chosen.num_rows - _SHOWN} more")
    out.print(backlog_in_words(backlog, chosen), soft_wrap=True)


def _export(settings: PlannerSettings, chosen: pa.Table, form: str, out: Path | None) -> int:
    """Write the export; returns how many problems it had."""
    from typing import cast

    from coverage_pipeline.requests.export import EXPORT_SUFFIX, ExportFormat, export_items, write_export

    path = out or Path(f"backlog.{EXPORT_SUFFIX[cast(ExportFormat, form)]}")
    export = export_items(chosen, settings.registry(), settings.scan_options(), downloads=settings.sensors.download_overrides())
    for problem in export.problems:
        console.print(f"[red]{printable_text(problem)}[/red]", soft_wrap=True)
    write_export(export, cast(ExportFormat, form), path)
    size = sum(item["properties"]["planner:bytes"] for item in export.items) / 1e9
    console.print(printable_text(f"{len(export.items)} items, {size:,.1f} GB"), highlight=False)
    typer.echo(str(path))
    return len(export.problems)
