"""Commands that show the cube: serve, and the demo."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from coverage_pipeline.cli.console import ConfigOption, console, exit_codes, printable_text
from coverage_pipeline.errors import PlannerError


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
    from coverage_pipeline.settings.access import check_access
    from coverage_pipeline.settings.load import load_settings

    with exit_codes():
        settings = load_settings(config, holdings=False)
        check_access(settings.access, os.environ, address, allow_host or [])
        _serve_dashboard(str(settings.store().zarr), config, port, address, allow_host or [])


_ALLOCATOR = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576"}
"""For glibc (mallopt(3)), where nothing else is set: pictures of a megabyte that several threads make go back to the system when they are
let go. By default each thread has a heap of its own, and a freed picture raises the size from which memory is given back.
"""


def _serve_dashboard(zarr: str, config: Path | None, port: int, address: str, allow_host: Sequence[str] = ()) -> NoReturn:
    """Panel in a process of its own: the pipeline never imports plotting."""
    from importlib.util import find_spec

    from coverage_pipeline.settings.load import without_holdings_secrets

    package = find_spec("coverage_dashboards")
    if package is None or package.origin is None:
        raise PlannerError("the dashboard is not installed: install the project with make setup")
    console.print("the dashboard starts; its address follows when it answers", soft_wrap=True, highlight=False)
    command = [sys.executable, "-m", "coverage_dashboards.server", "--port", str(port), "--address", address]
    command += [argument for name in allow_host for argument in ("--allow-host", name)]
    environment = without_holdings_secrets(os.environ) | {"COVERAGE_OUTPUT_ZARR": zarr}
    environment |= {"COVERAGE_CONFIG": str(config)} if config else {}
    environment = _ALLOCATOR | environment
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 the server takes our place, and so our signals


def demo(
    root: Annotated[str, typer.Option(help="Folder to make it in; an earlier demo there is replaced.")] = "data/demo",
    build_only: Annotated[bool, typer.Option("--build-only", help="Do not serve the dashboard.")] = False,
    resolution: Annotated[float, typer.Option(help="Cell size, degrees.")] = 0.1,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard.")] = 5006,
    archive: Annotated[
        bool, typer.Option("--archive", help="Only serve the catalogue of the demo that is there, for exports and scans.")
    ] = False,
) -> None:
    """Make a simulated archive, serve it, scan it, build the cube through the Dagster assets and show it.

    [bold]Examples[/bold]

      coverage-planner demo

      coverage-planner demo --build-only

      coverage-planner demo --archive
    """
    with exit_codes():
        from coverage_pipeline.cli.backlog import backlog as backlog_command
        from coverage_pipeline.demo.build import (  # Dagster takes seconds to import
            build_demo,
            headlines,
            requests_summary,
            serve_archive,
            summary,
            targets_summary,
        )
        from coverage_pipeline.settings.access import AccessSettings, check_access
        from coverage_pipeline.settings.sources import SettingsError
        from coverage_pipeline.storage.paths import is_local, storage_path

        if not build_only:
            check_access(AccessSettings(), os.environ)  # before a build of minutes rather than after it
        place = storage_path(root)
        if not is_local(place):
            raise SettingsError(f"--root {root}: the demo is made in a folder of this machine; give its path")
        if archive:
            for address_of_archive in serve_archive(Path(place.path).resolve()):
                console.print(f"the simulated catalogue is at {address_of_archive} (Ctrl-C stops it)", highlight=False)
                threading.Event().wait()
        result = build_demo(Path(place.path), console=console, resolution=resolution)
        Console().print(summary(result))
        Console().print(targets_summary(result))
        for sentence in headlines(result):
            Console().print(printable_text(sentence), highlight=False, soft_wrap=True)
        Console().print("The first five scenes to get:")
        backlog_command(max_scenes=5, config=result.config)
        Console().print("Requests (coverage-planner requests list):")
        for line in requests_summary(result):
            Console().print(f"  {printable_text(line)}", highlight=False, soft_wrap=True)
        if build_only:
            typer.echo(f"to see it: coverage-planner serve --config {result.config}")
        else:
            _serve_dashboard(str(result.zarr), result.config, port, "127.0.0.1")
