"""Commands on the cube: build, gap, migrate and top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast, get_args

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
from coverage_pipeline.pipeline.steps import STEPS, Step

if TYPE_CHECKING:
    from coverage_pipeline.pipeline.planner import Planner


def _run(planner: Planner, steps: tuple[Step, ...]) -> None:
    from coverage_pipeline.pipeline.build import BuildFailed, PartitionDone, build, in_words

    with progress_bar() as progress:
        task = progress.add_task("starting", total=len(planner.spec.sensors) * len(planner.spec.months))

        def on_partition(done: PartitionDone) -> None:
            progress.update(task, advance=1, description=f"{done.sensor.key} {done.month}")
            if done.error is not None:
                progress.console.print(f"[red]{printable_text(done.error)}[/red]", soft_wrap=True)
            for line in in_words(done):
                progress.console.print(printable_text(line), soft_wrap=True)

        try:
            build(planner, steps=steps, on_partition=on_partition)
        except BuildFailed as error:  # each was printed when it happened
            progress.stop()
            console.print(f"[red]{error.in_words()} (see above): {planner.store.zarr}[/red]", soft_wrap=True)
            raise typer.Exit(1) from error


def build_command(
    config: ConfigOption = None,
    sensors: Annotated[str | None, typer.Option(help="Sensor keys, comma-separated.")] = None,
    start: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD; widened to its month.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD; widened to its month.")] = None,
    grid: Annotated[float | None, typer.Option(help="Cell size, degrees.")] = None,
    out: Annotated[str | None, typer.Option(help="The cube to write; the other files go beside it.")] = None,
    bbox: BBoxOption = None,
) -> None:
    """Scan, match, grid and merge everything into the cube, and compute its gap.

    [bold]Examples[/bold]

      coverage-planner build --config config/build.toml

      coverage-planner build --sensors emit,sentinel-2 --start 2025-01-01 --end 2025-12-31 --grid 0.1 --out data/coverage.zarr
    """
    from coverage_pipeline.pipeline.planner import Planner

    with exit_codes():
        planner = Planner.from_settings(
            command_settings(config, sensors=sensors, start=start, end=end, grid=grid, out=out), bbox=parsed_bbox(bbox)
        )
        _run(planner, STEPS)
        typer.echo(str(planner.store.zarr))


def migrate_command(
    config: ConfigOption = None,
    to: Annotated[str | None, typer.Option(help="Name the new cube and leave the old one in its place; needed on an object store.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Go on without the partitions whose scenes or holdings are gone.")] = False,
) -> None:
    """Bring the cube to the settings as they are now: another grid, rule, threshold or start, or a newer schema.

    Nothing is scanned: partitions are copied, or made anew from the scenes and holdings on disk. The new cube takes the old one's
    place when it is whole; the old one stays beside it under another name until you remove it.

    [bold]Examples[/bold]

      COVERAGE_GRID_RULE=center coverage-planner migrate

      coverage-planner migrate --to s3://bucket/coverage-2.zarr
    """
    from coverage_pipeline.pipeline.migrate import migrate
    from coverage_pipeline.pipeline.planner import Planner
    from coverage_pipeline.settings.sources import SettingsError
    from coverage_pipeline.storage.paths import storage_path

    with exit_codes(), progress_bar() as progress:
        if to is not None and not to.strip():
            raise SettingsError("--to is empty: name the new cube, for example data/coverage-2.zarr")
        planner = Planner.from_settings(command_settings(config))
        task = progress.add_task("migrating", total=None)

        def on_partition(key: str, number: int, of: int) -> None:
            progress.update(task, completed=number, total=of, description=key)

        done = migrate(planner, to=None if to is None else storage_path(to), drop=drop, on_partition=on_partition)
        progress.stop()
        for key, why in done.dropped.items():
            console.print(f"[yellow]{printable_text(f'{key} is not carried over: {why}')}[/yellow]", soft_wrap=True)
        typer.echo(f"{done.copied} partitions copied, {done.made} made anew, {len(done.dropped)} not carried over")
        typer.echo(f"the old cube is {done.former}")
        typer.echo(str(done.path))


def top(
    by: Annotated[str, typer.Argument(help="scenes, clear, unknown, observations or clear_observations.")] = "scenes",
    layer: Annotated[str, typer.Option(help="available, held or unheld (what exists and is not held).")] = "available",
    sensors: Annotated[str | None, typer.Option(help="Sensor keys, comma-separated.")] = None,
    start: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD; widened to its month.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day, YYYY-MM-DD; widened to its month.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many cells.")] = 20,
    config: ConfigOption = None,
) -> None:
    """The cells with the most of something, over all statistics on disk.

    [bold]Examples[/bold]

      coverage-planner top clear --layer unheld --sensors landsat-8-9 --start 2025-01-01 --end 2025-06-30
    """
    import duckdb

    from coverage_pipeline.demand.topcells import TopBy, notes, top_cells
    from coverage_pipeline.pipeline.planner import Planner
    from coverage_pipeline.settings.sources import SettingsError
    from coverage_pipeline.storage.store import StatsLayer

    with exit_codes():
        if layer not in get_args(StatsLayer):
            raise SettingsError(f"--layer {layer!r}: use one of {', '.join(get_args(StatsLayer))}")
        if by not in get_args(TopBy):
            raise SettingsError(f"top {by!r}: use one of {', '.join(get_args(TopBy))}")
        planner = Planner.from_settings(command_settings(config, sensors=sensors, start=start, end=end))
        keys = [sensor.key for sensor in planner.spec.sensors]
        with duckdb.connect() as db:
            table = top_cells(
                db, planner.store, cast(StatsLayer, layer), cast(TopBy, by), keys, planner.spec.months, planner.grid, limit=limit
            )
        shown = Table(*table.column_names)
        for row in table.to_pylist():
            shown.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in row.values()))
        if table.num_rows:
            Console().print(shown)
        for note in notes(table):
            console.print(printable_text(note), soft_wrap=True, highlight=False)


def gap(config: ConfigOption = None) -> None:
    """Compute the gap of the whole window again, after a change of cadence, weights or area; scans nothing.

    [bold]Example[/bold]

      coverage-planner gap --config config/build.toml
    """
    from coverage_pipeline.pipeline.planner import Planner

    with exit_codes():
        planner = Planner.from_settings(command_settings(config))
        _run(planner, ("gap",))
        typer.echo(str(planner.store.zarr))
