"""The command line: ``coverage-planner …`` or ``python -m coverage_pipeline …``.

Exit codes: 0 done; 1 something failed, and what else could be built is; 2 wrong settings or arguments, nothing was started (of
``doctor``: something is configured wrongly); 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast, get_args

import duckdb
import typer
from pystac_client.warnings import PystacClientWarning
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from upath import UPath

from coverage_pipeline import __version__
from coverage_pipeline.catalog import CatalogError
from coverage_pipeline.catalog.checks import Check, Verdict, distinct, printable
from coverage_pipeline.catalog.doctor import examine
from coverage_pipeline.catalog.finished_windows import finished_windows_folder
from coverage_pipeline.catalog.scan_job import ScanOptions
from coverage_pipeline.catalog.windows import Progress as ScanProgress
from coverage_pipeline.demand.targets import LocationsError
from coverage_pipeline.demand.topcells import TopBy, notes, top_cells
from coverage_pipeline.errors import PlannerError
from coverage_pipeline.months import Month, MonthError
from coverage_pipeline.pipeline.migrate import migrate
from coverage_pipeline.pipeline.planner import STEPS, BuildFailed, PartitionDone, Planner, Step, build, in_words
from coverage_pipeline.redaction import redact
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor, SensorError, resolve_sensors
from coverage_pipeline.settings.load import load_settings, without_holdings_secrets
from coverage_pipeline.settings.model import PlannerSettings
from coverage_pipeline.settings.sign_in import check_sign_in
from coverage_pipeline.settings.sources import SettingsError
from coverage_pipeline.storage.store import StatsLayer, is_local, sibling, storage_path

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
    except (SettingsError, SensorError, MonthError, LocationsError) as error:
        console.print(f"[red]{_plain(error)}[/red]", soft_wrap=True)
        raise typer.Exit(2) from error
    except PlannerError as error:
        console.print(f"[red]{_plain(error)}[/red]", soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("stopped; every file is whole, run again to go on")
        raise typer.Exit(130) from None


def _plain(error: object) -> str:
    """Text that may be a provider's, safe to print: no control characters, which a terminal would obey, and no markup of ours."""
    lines = (printable(line, 10_000) if line[:1] != " " else f"  {printable(line, 10_000)}" for line in str(error).split("\n"))
    return escape("\n".join(lines))


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
            for line in in_words(done):
                progress.console.print(_plain(line), soft_wrap=True)

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


@app.command("migrate")
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
    with _exit_codes(), _progress() as progress:
        if to is not None and not to.strip():
            raise SettingsError("--to is empty: name the new cube, for example data/coverage-2.zarr")
        planner = Planner.from_settings(_settings(config))
        task = progress.add_task("migrating", total=None)

        def on_partition(key: str, number: int, of: int) -> None:
            progress.update(task, completed=number, total=of, description=key)

        done = migrate(planner, to=None if to is None else storage_path(to), drop=drop, on_partition=on_partition)
        progress.stop()
        for key, why in done.dropped.items():
            console.print(f"[yellow]{_plain(f'{key} is not carried over: {why}')}[/yellow]", soft_wrap=True)
        typer.echo(f"{done.copied} partitions copied, {done.made} made anew, {len(done.dropped)} not carried over")
        typer.echo(f"the old cube is {done.former}")
        typer.echo(str(done.path))


@app.command()
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
    with _exit_codes():
        if layer not in get_args(StatsLayer):
            raise SettingsError(f"--layer {layer!r}: use one of {', '.join(get_args(StatsLayer))}")
        if by not in get_args(TopBy):
            raise SettingsError(f"top {by!r}: use one of {', '.join(get_args(TopBy))}")
        planner = Planner.from_settings(_settings(config, sensors=sensors, start=start, end=end))
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
            console.print(_plain(note), soft_wrap=True, highlight=False)


@app.command()
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
    with _exit_codes():
        settings = _settings(config)
        chosen = resolve_sensors([sensor], settings.registry())[0]
        wanted = Month.parse(month)
        index = None if provider is None else _source_index(chosen, provider)
        planner = Planner.from_settings(settings, bbox=_bbox(bbox))
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
    found = next((some for some in meant if some), [])
    if len(found) == 1:
        return found[0]
    known = "".join(f"\n  {k}: {s.kind} {s.provider} {s.collection_id}" for k, s in enumerate(sources))
    trouble = "may be any of several sources" if found else "is none of the sources"
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
    kept = 0
    with contextlib.suppress(OSError):
        kept = sum(not path.name.endswith(".rejected.parquet") for path in finished_windows_folder(target).rglob("*.parquet"))
    if kept and hours:
        windows = "1 finished window is" if kept == 1 else f"{kept:,} finished windows are"
        console.print(f"{windows} kept: the same command goes on from there within {hours:g} hours", soft_wrap=True, highlight=False)


_MARKS: dict[Verdict, tuple[str, str]] = {"ok": ("✓", "green"), "slow": ("~", "yellow"), "wrong": ("✗", "red"), "failed": ("!", "red")}
_MEANINGS: dict[Verdict, str] = {"ok": "works", "slow": "slow", "wrong": "configured wrongly", "failed": "failed"}


@app.command()
def doctor(
    config: ConfigOption = None,
    sensor: Annotated[
        list[str] | None, typer.Option(help="Sensor key; may be repeated, or several with commas. Default: the sensors of the settings.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a check on standard output, for a program to read.")] = False,
) -> None:
    """Ask every configured provider a few small questions: what works, what is slow, what is configured wrongly and what to do.

    Nothing is written. Ends with 0 where all works, 1 where a provider failed, 2 where something is configured wrongly.

    [bold]Examples[/bold]

      coverage-planner doctor

      coverage-planner doctor --sensor emit,landsat-8-9

      coverage-planner doctor --json
    """
    with _exit_codes():
        settings = _settings(config)
        keys = [key.strip() for text in sensor or [] for key in text.split(",") if key.strip()]
        chosen = resolve_sensors(dict.fromkeys(keys), settings.registry()) if keys else settings.chosen_sensors()
        for one in chosen:
            if not one.available_sources:
                console.print(f"{one.key} has no public catalogue: nothing to ask", highlight=False)
        asked = distinct(chosen)
        found: Counter[Verdict] = Counter()
        with console.status("asking") as status:
            for number, checks in _examined(asked, settings.scan_options(), status.update):
                sensors, source = asked[number]
                found[_verdict(checks)] += 1
                if as_json:
                    _echo_checks(sensors, source, checks)
                else:
                    Console(highlight=False).print(_checks_table(sensors, source, checks))
        counts = ", ".join(f"{found[verdict]} {_MEANINGS[verdict]}" for verdict in _MARKS if found[verdict])
        console.print(f"{len(asked)} {'source' if len(asked) == 1 else 'sources'} asked: {counts or 'none'}", highlight=False)
        if code := 2 if found["wrong"] else 1 if found["failed"] else 0:
            raise typer.Exit(code)


def _verdict(checks: Sequence[Check]) -> Verdict:
    """The worst of a source."""
    order: tuple[Verdict, ...] = ("wrong", "failed", "slow")
    return next((verdict for verdict in order if any(check.verdict == verdict for check in checks)), "ok")


def _examined(
    asked: Sequence[tuple[list[CoverageSensor], AvailableSource]], options: ScanOptions, tell: Any
) -> Iterator[tuple[int, list[Check]]]:
    """The checks of each source, in the sources' order. Hosts are asked side by side, and each one thing at a time."""
    hosts: dict[str, list[int]] = {}
    for number, (_, source) in enumerate(asked):
        hosts.setdefault(source.provider, []).append(number)
    done: queue.SimpleQueue[tuple[int, list[Check] | BaseException]] = queue.SimpleQueue()

    def ask(numbers: list[int]) -> None:
        for number in numbers:
            sensors, source = asked[number]
            try:
                done.put((number, list(examine(sensors[0], source, options))))
            except BaseException as error:
                done.put((number, error))

    for numbers in hosts.values():  # daemons, so that Ctrl-C need not wait for them
        threading.Thread(target=ask, args=(numbers,), name="doctor", daemon=True).start()
    ready: dict[int, list[Check]] = {}
    for number in range(len(asked)):
        while number not in ready:
            awaited = sorted({source.provider for k, (_, source) in enumerate(asked) if k not in ready and k >= number})
            tell(_plain(f"asking {', '.join(awaited)}"))
            which, checks = done.get()
            if isinstance(checks, BaseException):
                raise checks
            ready[which] = checks
        yield number, ready[number]


def _checks_table(sensors: Sequence[CoverageSensor], source: AvailableSource, checks: Sequence[Check]) -> Table:
    """``Text`` throughout: nothing that a provider says is taken for markup."""
    version = f" version {source.version}" if source.version else ""
    title = f"{', '.join(one.key for one in sensors)}: {source.kind} {source.provider}, {source.collection_id}{version}"
    table = Table(title=Text(printable(title), "bold"), title_justify="left", box=None, show_header=False, padding=(0, 1), pad_edge=False)
    for style, justify in ((None, "left"), ("bold", "left"), (None, "left"), ("dim", "right")):
        table.add_column(style=style, justify=justify, overflow="fold", no_wrap=style is not None)  # type: ignore[arg-type]
    for check in checks:
        mark, colour = _MARKS[check.verdict]
        said = check.said if check.verdict == "ok" else f"{_MEANINGS[check.verdict]}: {check.said}"
        seconds = f"{check.seconds:.1f} s" if check.seconds >= 0.05 else ""
        table.add_row(Text(mark, colour), Text(check.name), Text(said, "" if check.verdict == "ok" else colour), Text(seconds))
    table.add_row()
    return table


def _echo_checks(sensors: Sequence[CoverageSensor], source: AvailableSource, checks: Sequence[Check]) -> None:
    where = {
        "sensors": [one.key for one in sensors],
        "kind": source.kind,
        "provider": source.provider,
        "collection": source.collection_id,
        "version": source.version,
    }
    for check in checks:
        typer.echo(json.dumps({**where, **asdict(check)}, ensure_ascii=False))


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
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]", help="Another name that browsers may call this server by; may be repeated. Else only this machine's."
        ),
    ] = None,
) -> None:
    """Serve the dashboard of the cube.

    [bold]Examples[/bold]

      coverage-planner serve --port 5006

      coverage-planner serve --address 0.0.0.0 --allow-host planner.example.org
    """
    with _exit_codes():
        settings = load_settings(config, holdings=False)
        _serve_dashboard(str(settings.store().zarr), config, port, address, allow_host or [])


def _serve_dashboard(zarr: str, config: Path | None, port: int, address: str, allow_host: Sequence[str] = ()) -> NoReturn:
    """Panel in a process of its own: the pipeline never imports plotting."""
    check_sign_in(os.environ)
    from importlib.util import find_spec

    package = find_spec("coverage_dashboards")
    if package is None or package.origin is None:
        raise PlannerError("the dashboard is not installed: install the project with make setup")
    host = "localhost" if address in ("", "0.0.0.0", "::") else f"[{address}]" if ":" in address else address  # noqa: S104 compared, never bound
    console.print(_plain(f"dashboard: http://{host}:{port}/app  (Ctrl-C stops it)"), soft_wrap=True, highlight=False)
    command = [sys.executable, "-m", "coverage_dashboards.server", "--port", str(port), "--address", address]
    command += [argument for name in allow_host for argument in ("--allow-host", name)]
    environment = without_holdings_secrets(os.environ) | {"COVERAGE_OUTPUT_ZARR": zarr}
    environment |= {"COVERAGE_CONFIG": str(config)} if config else {}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 the server takes our place, and so our signals


@app.command()
def demo(
    root: Annotated[str, typer.Option(help="Folder to make it in; an earlier demo there is replaced.")] = "data/demo",
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
        from coverage_pipeline.demo.build import build_demo, summary  # Dagster takes seconds to import

        if not build_only:
            check_sign_in(os.environ)  # before a build of minutes rather than after it
        place = storage_path(root)
        if not is_local(place):
            raise SettingsError(f"--root {root}: the demo is made in a folder of this machine; give its path")
        made = build_demo(Path(place.path), console=console, resolution=resolution)
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
        warnings.simplefilter("ignore", PystacClientWarning)  # of what an API does not claim: the doctor says it
    handler = _StderrHandler()
    handler.setFormatter(_PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class _StderrHandler(logging.StreamHandler[Any]):
    """Writes to what is standard error at that time: while a progress bar is shown, that is what writes above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class _PrintableFormatter(logging.Formatter):
    """A message may quote a provider, and a terminal obeys control characters."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 the library's name
        return redact(printable(super().formatMessage(record), 10_000))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return redact(super().formatException(ei))


def main() -> None:
    """Entry point of the console script. What nobody foresaw ends in a traceback, in which no address shows its secrets."""
    try:
        app()
    except Exception:
        sys.stderr.write(redact(traceback.format_exc()))
        sys.exit(1)


if __name__ == "__main__":
    main()
