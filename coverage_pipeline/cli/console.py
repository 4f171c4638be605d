"""What every command shares: the console, options, exit codes, settings and text that is safe to print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from coverage_pipeline.errors import PlannerError
from coverage_pipeline.redaction import printable

if TYPE_CHECKING:
    from coverage_pipeline.settings.model import PlannerSettings

console = Console(stderr=True)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file; default COVERAGE_CONFIG, else config/build.toml.")]
BBoxOption = Annotated[
    str | None,
    typer.Option(help="west,south,east,north in degrees; west > east crosses the antimeridian. Elsewhere stays not known."),
]


@contextmanager
def exit_codes() -> Iterator[None]:
    try:
        yield
    except PlannerError as error:
        console.print(f"[red]{printable_text(error)}[/red]", soft_wrap=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        console.print("stopped; every file is whole, run again to go on")
        raise typer.Exit(130) from None


def printable_text(error: object) -> str:
    """Text that may be a provider's, safe to print: without control characters and without markup of the terminal library."""
    lines = (printable(line, 10_000) if line[:1] != " " else f"  {printable(line, 10_000)}" for line in str(error).split("\n"))
    return escape("\n".join(lines))


def parsed_bbox(text: str | None) -> tuple[float, float, float, float] | None:
    from coverage_pipeline.geometry.bbox import checked_bbox
    from coverage_pipeline.settings.sources import SettingsError

    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--bbox {text!r} must be four numbers: west,south,east,north") from None
    try:
        box = checked_bbox((west, south, east, north))
    except ValueError:
        box = None
    if box is None or south == north or west == east:
        raise SettingsError(f"--bbox {text!r} must lie within -180..180 and -90..90, with south < north")
    return box


def command_settings(
    config: Path | None,
    *,
    sensors: str | None = None,
    start: str | None = None,
    end: str | None = None,
    grid: float | None = None,
    out: str | None = None,
) -> PlannerSettings:
    from coverage_pipeline.settings.load import load_settings
    from coverage_pipeline.settings.sources import SettingsError
    from coverage_pipeline.storage.paths import storage_path

    overrides: dict[str, Any] = {}
    if out is not None and not out.strip():
        raise SettingsError("--out is empty: name the cube to write, for example data/coverage.zarr")
    if sensors is not None:
        overrides["sensors"] = {"keys": sensors}
    window = {name: value for name, value in (("start", start), ("end", end)) if value is not None}
    if window:
        overrides["window"] = window
    if grid is not None:
        overrides["grid"] = {"resolution": grid}
    if out is not None:
        place = storage_path(out)  # a folder's path or an object store's address
        overrides["output"] = {"zarr": out, "parquet_dir": str(place.parent / "catalog")}
        overrides["data"] = str(place.parent)
    settings = load_settings(config, overrides)
    if note := settings.window_note():
        console.print(note)
    return settings


def progress_bar() -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
