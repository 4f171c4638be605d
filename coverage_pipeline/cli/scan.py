"""The command that scans one sensor and month."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from coverage_pipeline.catalog.errors import CatalogError
from coverage_pipeline.cli.console import BBoxOption, ConfigOption, command_settings, console, exit_codes, parsed_bbox
from coverage_pipeline.months import Month
from coverage_pipeline.redaction import printable
from coverage_pipeline.sensors.registry import CoverageSensor, SensorError, resolve_sensors

if TYPE_CHECKING:
    from upath import UPath

    from coverage_pipeline.catalog.windows import Progress as ScanProgress


def scan(
    sensor: Annotated[str, typer.Argument(help="Sensor key, for example landsat-8-9.")],
    month: Annotated[str, typer.Argument(help="YYYY-MM.")],
    config: ConfigOption = None,
    bbox: BBoxOption = None,
    provider: Annotated[
        str | None,
        typer.Option(help="Ask this source alone: its number (0, 1, …), its host or a part of it (earth-search), or its kind (cmr)."),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Publish what was found, marked as partial, where no provider gives all; never over a whole month."),
    ] = False,
) -> None:
    """Scan one sensor and month into GeoParquet, and say what came.

    A scan that is stopped or fails goes on from its finished windows when it is run again.

    [bold]Examples[/bold]

      coverage-planner scan landsat-8-9 2025-03

      coverage-planner scan sentinel-2 2025-03 --bbox 5,50,8,54

      coverage-planner scan landsat-8-9 2025-03 --provider earth-search --partial
    """
    from coverage_pipeline.pipeline.planner import Planner
    from coverage_pipeline.storage.paths import sibling

    with exit_codes():
        settings = command_settings(config)
        chosen = resolve_sensors([sensor], settings.registry())[0]
        wanted = Month.parse(month)
        index = None if provider is None else _source_index(chosen, provider)
        planner = Planner.from_settings(settings, bbox=parsed_bbox(bbox))
        target = planner.store.scenes(sensor, wanted)
        try:
            with _scan_progress() as progress:
                task = progress.add_task(f"{sensor} {wanted}", total=None, words="asking")

                shown = _ScanShown()

                def on_progress(now: ScanProgress) -> None:  # from several threads; rich has a lock
                    completed, total = shown.bar(now)
                    progress.update(task, completed=completed, total=total, words=shown.words(now))

                report = planner.scan(chosen, wanted, source_index=index, partial=partial or None, progress=on_progress)
        except (CatalogError, KeyboardInterrupt):
            _say_what_is_kept(target, settings.scan.resume_hours)
            raise
        for line in report.lines(chosen.publication_lag_days):
            typer.echo(f"{' ' * (len(line) - len(line.lstrip()))}{printable(line, 2000)}")
        typer.echo("written:")
        for path in (sibling(target, ".rejected.parquet"), sibling(target, ".scan.json"), target):
            typer.echo(f"  {path}")


def _source_index(sensor: CoverageSensor, wanted: str) -> int:
    """Which source is meant by a number, a kind, a host or a part of one; raises ``SensorError`` that lists them."""
    sources = sensor.available_sources
    if not sources:
        raise SensorError(f"--provider {wanted!r}: {sensor.key} has no public catalogue to choose from")
    text = wanted.strip().lower()
    meant = [[k for k, _ in enumerate(sources) if str(k) == text]]
    meant.append([k for k, source in enumerate(sources) if source.kind == text])
    meant.append([k for k, source in enumerate(sources) if source.provider.lower() == text])
    meant.append([k for k, source in enumerate(sources) if text and text in source.provider.lower()])
    first = next((some for some in meant if some), [])
    if len(first) == 1:
        return first[0]
    known = "".join(f"\n  {k}: {s.kind} {s.provider} {s.collection_id}" for k, s in enumerate(sources))
    trouble = "may be any of several sources" if first else "is none of the sources"
    raise SensorError(f"--provider {wanted!r} {trouble} of {sensor.key}; give the number of one:{known}")


def _scan_progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(20),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        console=console,
    )


class _ScanShown:
    """A scan's progress for a person: a window that was only begun has no total yet, for which the last one is shown on."""

    def __init__(self) -> None:
        self._announced: int | None = None

    def bar(self, now: ScanProgress) -> tuple[int, int | None]:
        """Windows, whose number is known from the start; the items of a single one, where they are announced."""
        return (now.done, now.windows) if now.windows > 1 else (now.received, now.announced or None)

    def words(self, now: ScanProgress) -> str:
        """How far it is."""
        self._announced = now.announced if now.announced is not None else self._announced
        known = self._announced is not None and self._announced >= now.received
        of = f" of {self._announced:,} announced so far" if known else ""
        windows = f"{now.done:,} of {now.windows:,} windows" + (f" ({now.resumed:,} from an earlier run)" if now.resumed else "")
        retries = f", {now.retries:,} {'retry' if now.retries == 1 else 'retries'}" if now.retries else ""
        return f"{windows}, {now.received:,} items{of}{retries}"


def _say_what_is_kept(target: UPath, hours: float) -> None:
    """After a scan that did not come to its end."""
    from coverage_pipeline.catalog.finished_windows import finished_windows_folder

    kept = 0
    with contextlib.suppress(OSError):
        kept = sum(not path.name.endswith(".rejected.parquet") for path in finished_windows_folder(target).rglob("*.parquet"))
    if kept and hours:
        windows = "1 finished window is" if kept == 1 else f"{kept:,} finished windows are"
        console.print(f"{windows} kept: the same command goes on from there within {hours:g} hours", soft_wrap=True, highlight=False)
