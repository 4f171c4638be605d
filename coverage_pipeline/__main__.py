"""The command line: ``coverage-planner …`` or ``python -m coverage_pipeline …``.

Exit codes: 0 done; 1 something failed, and what else could be built is; 2 wrong settings or arguments, nothing was started.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from upath import UPath

from coverage_pipeline import __version__
from coverage_pipeline.build import STEPS, BuildFailed, PartitionDone, Planner, Step, build
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month, MonthError
from coverage_pipeline.sensors import SensorError, resolve_sensors
from coverage_pipeline.settings import PlannerSettings, SettingsError, load_settings

app = typer.Typer(
    name="coverage-planner",
    help="What satellite scenes exist, which do we hold, what is missing, and what to do about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(stderr=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file; default COVERAGE_CONFIG, else config/build.toml.")]
BBoxOption = Annotated[
    str | None,
    typer.Option(help="west,south,east,north in degrees; west > east crosses the antimeridian. Elsewhere stays not known."),
]


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except (SettingsError, SensorError, MonthError) as error:
        console.print(f"[red]{_plain(error)}[/red]", soft_wrap=True)
        raise typer.Exit(2) from error
    except PlannerError as error:
        console.print(f"[red]{_plain(error)}[/red]", soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("stopped; every file is whole, run again to go on")
        raise typer.Exit(130) from None


def _plain(error: object) -> str:
    return str(error).replace("[", "\\[")


def _bbox(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--bbox {text!r} must be four numbers: west,south,east,north") from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90) or west == east:
        raise SettingsError(f"--bbox {text!r} must lie within -180..180 and -90..90, with south < north")
    return west, south, east, north


def _settings(
    config: Path | None,
    *,
    sensors: str | None = None,
    start: str | None = None,
    end: str | None = None,
    grid: float | None = None,
    out: str | None = None,
) -> PlannerSettings:
    overrides: dict[str, Any] = {}
    if sensors is not None:
        overrides["sensors"] = {"keys": sensors}
    window = {name: value for name, value in (("start", start), ("end", end)) if value is not None}
    if window:
        overrides["window"] = window
    if grid is not None:
        overrides["grid"] = {"resolution": grid}
    if out is not None:
        place = UPath(out)  # a folder's path or an object store's address
        overrides["output"] = {"zarr": out, "parquet_dir": str(place.parent / "catalog")}
        overrides["data"] = str(place.parent)
    settings = load_settings(config, overrides)
    if note := settings.window_note():
        console.print(note)
    return settings


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _run(planner: Planner, steps: tuple[Step, ...]) -> None:
    with _progress() as progress:
        task = progress.add_task("starting", total=len(planner.spec.sensors) * len(planner.spec.months))

        def on_partition(done: PartitionDone) -> None:
            progress.update(task, advance=1, description=f"{done.sensor.key} {done.month}")
            if done.error is not None:
                progress.console.print(f"[red]{_plain(done.error)}[/red]", soft_wrap=True)
            elif "availability" in done.reports:
                progress.console.print(_plain(done.reports["availability"].in_words()), soft_wrap=True)

        try:
            build(planner, steps=steps, on_partition=on_partition)
        except BuildFailed as error:  # each was printed when it happened
            progress.stop()
            console.print(f"[red]{error.in_words()} (see above): {planner.store.zarr}[/red]", soft_wrap=True)
            raise typer.Exit(1) from error


@app.command("build")
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
    with _exit_codes():
        planner = Planner.from_settings(_settings(config, sensors=sensors, start=start, end=end, grid=grid, out=out), bbox=_bbox(bbox))
        _run(planner, STEPS)
        typer.echo(str(planner.store.zarr))


@app.command()
def scan(
    sensor: Annotated[str, typer.Argument(help="Sensor key, for example landsat-8-9.")],
    month: Annotated[str, typer.Argument(help="YYYY-MM.")],
    config: ConfigOption = None,
    bbox: BBoxOption = None,
) -> None:
    """Scan one sensor and month into GeoParquet, and say what came.

    [bold]Examples[/bold]

      coverage-planner scan landsat-8-9 2025-03

      coverage-planner scan sentinel-2 2025-03 --bbox 5,50,8,54
    """
    with _exit_codes():
        settings = _settings(config)
        chosen = resolve_sensors([sensor], settings.registry())[0]
        wanted = Month.parse(month)
        planner = Planner.from_settings(settings, bbox=_bbox(bbox))
        with _progress() as progress:
            task = progress.add_task(f"{sensor} {wanted}", total=None)
            report = planner.scan(chosen, wanted, progress=lambda now: progress.update(task, completed=now.received))
        typer.echo(report.in_words())
        for reason, count in report.rejected.items():
            typer.echo(f"  rejected {count}: {reason}")
        for provider, why in report.failed_providers.items():
            typer.echo(f"  failed before: {provider}: {why}")
        typer.echo(str(planner.store.scenes(sensor, wanted)))


@app.command()
def gap(config: ConfigOption = None) -> None:
    """Compute the gap of the whole window again, after a change of cadence, weights or area; scans nothing.

    [bold]Example[/bold]

      coverage-planner gap --config config/build.toml
    """
    with _exit_codes():
        planner = Planner.from_settings(_settings(config))
        _run(planner, ("gap",))
        typer.echo(str(planner.store.zarr))


@app.command()
def serve(
    config: ConfigOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on loopback.")] = 5006,
    address: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the dashboard of the cube.

    [bold]Example[/bold]

      coverage-planner serve --port 5006
    """
    with _exit_codes():
        settings = load_settings(config)
        _serve_dashboard(str(settings.store().zarr), config, port, address)


def _serve_dashboard(zarr: str, config: Path | None, port: int, address: str) -> NoReturn:
    """Panel in a process of its own: the pipeline never imports plotting."""
    from importlib.util import find_spec

    package = find_spec("coverage_dashboards")
    if package is None or package.origin is None:
        raise PlannerError("the dashboard is not installed: install the project with make setup")
    app_file = Path(package.origin).with_name("app.py")
    console.print(f"dashboard: [bold]http://{address}:{port}/app[/bold]  (Ctrl-C stops it)")
    command = [sys.executable, "-m", "panel", "serve", str(app_file), "--port", str(port), "--address", address]
    command += ["--warm", "--websocket-compression-level", "1"]
    if address in ("127.0.0.1", "localhost"):
        command += ["--allow-websocket-origin", f"{address}:{port}", "--allow-websocket-origin", f"localhost:{port}"]
    environment = {**os.environ, "COVERAGE_OUTPUT_ZARR": zarr} | ({"COVERAGE_CONFIG": str(config)} if config else {})
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 the server takes our place, and so our signals


@app.command()
def demo(
    root: Annotated[Path, typer.Option(help="Folder to make it in; an earlier demo there is replaced.")] = Path("data/demo"),
    build_only: Annotated[bool, typer.Option("--build-only", help="Do not serve the dashboard.")] = False,
    resolution: Annotated[float, typer.Option(help="Cell size, degrees.")] = 0.1,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard.")] = 5006,
) -> None:
    """Make a simulated archive, serve it, scan it, build the cube through the Dagster assets and show it.

    [bold]Examples[/bold]

      coverage-planner demo

      coverage-planner demo --build-only
    """
    with _exit_codes():
        from coverage_pipeline.orchestration.demo import build_demo, summary  # Dagster takes seconds to import

        made = build_demo(root, console=console, resolution=resolution)
        Console().print(summary(made))
        if build_only:
            typer.echo(f"to see it: coverage-planner serve --config {made.config}")
        else:
            _serve_dashboard(str(made.zarr), made.config, port, "127.0.0.1")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """What satellite scenes exist, which do we hold, what is missing, and what to do about it."""
    level = logging.INFO if verbose else logging.WARNING
    if not verbose:
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # each retry is no news; the end of them is
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
