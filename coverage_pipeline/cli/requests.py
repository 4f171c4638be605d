"""Commands about requests: who asked for what, and what became of it."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from coverage_pipeline.cli.console import BBoxOption, ConfigOption, command_settings, console, exit_codes, parsed_bbox, printable_text
from coverage_pipeline.months import Month

if TYPE_CHECKING:
    from coverage_pipeline.requests.store import Request, RequestStore
    from coverage_pipeline.settings.model import PlannerSettings

requests_app = typer.Typer(help="Who asked for what, and what became of it.", no_args_is_help=True)
IdArgument = Annotated[str, typer.Argument(help="The request's id, or its beginning.")]
WhoOption = Annotated[str | None, typer.Option("--who", help="Who does it; default this account.")]
FormOption = Annotated[Literal["table", "json"], typer.Option("--format", help="What is printed.")]


def _store(settings: PlannerSettings) -> RequestStore:
    from coverage_pipeline.requests.database import RequestDatabase
    from coverage_pipeline.requests.store import RequestStore

    return RequestStore(RequestDatabase(settings.request_database()))


def _who(given: str | None) -> str:
    try:
        return given or getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


@requests_app.command("list")
def list_requests(
    state: Annotated[str | None, typer.Option(help="Only this state.")] = None,
    sensor: Annotated[str | None, typer.Option(help="Only this sensor.")] = None,
    who: Annotated[str | None, typer.Option(help="Only this person's.")] = None,
    form: FormOption = "table",
    config: ConfigOption = None,
) -> None:
    """All requests with their states, oldest first.

    [bold]Example[/bold]

      coverage-planner requests list --state requested
    """
    from coverage_pipeline.requests.errors import RequestError
    from coverage_pipeline.requests.states import STATES

    with exit_codes():
        if state is not None and state not in STATES:
            raise RequestError(f"--state {state!r}: use one of {', '.join(STATES)}")
        found = _store(command_settings(config)).all(sensor=sensor, who=who, states=[one for one in STATES if one == state])
        if form == "json":
            typer.echo(json.dumps([_plain(one) for one in found], indent=1))
            return
        table = Table()
        for title in ("id", "state", "sensor", "kind", "window", "who", "since", "note"):
            table.add_column(title)
        for one in found:
            window = f"{one.window_start}..{one.window_end}"
            cells = [one.id, one.state, one.sensor, one.kind, window, one.who, one.history[-1].time[:10], one.note]
            table.add_row(*(printable_text(cell) for cell in cells))
        Console().print(table if found else "no requests")


def _plain(request: Request) -> dict[str, Any]:
    import dataclasses

    return json.loads(json.dumps({**dataclasses.asdict(request), "state": request.state}, default=str))  # type: ignore[no-any-return]


@requests_app.command("show")
def show(request: IdArgument, form: FormOption = "table", config: ConfigOption = None) -> None:
    """One request with its whole history.

    [bold]Example[/bold]

      coverage-planner requests show 1a2b3c
    """
    with exit_codes():
        one = _store(command_settings(config)).get(request)
        if form == "json":
            typer.echo(json.dumps(_plain(one), indent=1))
            return
        out = Console()
        lines = [
            f"{one.id}: {one.state}, {one.kind} {one.sensor}, {one.window_start}..{one.window_end}",
            f"asked by {one.who or 'nobody named'} at {one.created}" + (f": {one.note}" if one.note else ""),
        ]
        if one.order_number:
            lines.append(f"order {one.order_number} at {one.provider or 'a portal'}")
        for line in lines:
            out.print(printable_text(line), soft_wrap=True, highlight=False)
        for row in one.history:
            detail = f" ({row.detail})" if row.detail else ""
            words = f"  {row.time} {row.state}{detail} by {row.who or 'nobody named'} {row.reason}".rstrip()
            proof = f" {json.dumps(row.evidence)}" if row.evidence else ""
            out.print(printable_text(words + proof), soft_wrap=True, highlight=False)


@requests_app.command("flag")
def flag(
    sensor: Annotated[str, typer.Argument(help="Sensor key.")],
    start: Annotated[str, typer.Option(help="First day of the window, YYYY-MM-DD.")],
    end: Annotated[str, typer.Option(help="Last day of the window.")],
    kind: Annotated[Literal["task", "ingest"], typer.Option(help="Ask for an acquisition, or for a download.")] = "task",
    file: Annotated[str | None, typer.Option(help="A file with the outline: all its areas together.")] = None,
    bbox: BBoxOption = None,
    cells: Annotated[
        str | None, typer.Option("--cells", help="YYYY-MM: outlines of the cells whose action in that month is task, one request each.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="With --cells: at most so many outlines, the most urgent.")] = 20,
    cloud: Annotated[float | None, typer.Option(min=0, max=100, help="A scene must be below this cloud percentage.")] = None,
    note: Annotated[str, typer.Option(help="A note.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the outlines as GeoJSON; record nothing.")] = False,
    who: WhoOption = None,
    config: ConfigOption = None,
) -> None:
    """Record what is wanted; nothing is sent anywhere.

    [bold]Examples[/bold]

      coverage-planner requests flag emit --start 2027-03-01 --end 2027-03-31 --bbox 9,47,10,48

      coverage-planner requests flag emit --cells 2026-09 --start 2027-03-01 --end 2027-03-31 --dry-run
    """
    import shapely

    from coverage_pipeline.demand.targets import fetch_targets, targets_union
    from coverage_pipeline.geometry.bbox import split_bbox
    from coverage_pipeline.months import as_date
    from coverage_pipeline.requests.errors import RequestError
    from coverage_pipeline.requests.flags import flag_for_request
    from coverage_pipeline.sensors.registry import resolve_sensors

    with exit_codes():
        settings = command_settings(config)
        box = parsed_bbox(bbox)
        known = settings.registry()
        (chosen,) = resolve_sensors([sensor], known)
        properties: list[dict[str, Any]] = [{}]
        if cells is not None:
            outlines = _outlines(settings, sensor, Month.parse(cells), box, most)
            shapes = [one.geometry for one in outlines]
            properties = [
                {"rank": k + 1, "area_km2": round(one.area_km2, 1), "cells": one.cells, "priority": round(one.priority, 3)}
                for k, one in enumerate(outlines)
            ]
        elif (file is None) == (box is None):
            raise RequestError("name one place: --file, --bbox or --cells")
        elif file is not None:
            shapes = [targets_union(fetch_targets(file))]
        else:
            shapes = [shapely.union_all([shapely.box(*part) for part in split_bbox(box or (0, 0, 0, 0))])]
        if dry_run:
            features = [
                {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shape)), "properties": {"sensor": chosen.key, **facts}}
                for shape, facts in zip(shapes, properties, strict=True)
            ]
            typer.echo(json.dumps({"type": "FeatureCollection", "features": features}, indent=1))
            return
        store, window = _store(settings), (as_date(start), as_date(end))
        for shape in shapes:
            made = flag_for_request(
                shape, window, chosen.key, kind, store=store, sensors=known, who=_who(who), note=note, wanted_cloud=cloud
            )
            typer.echo(made)
        if not shapes:
            console.print(f"no cell of {chosen.key} is to be tasked in {cells}")


def _outlines(settings: PlannerSettings, sensor: str, month: Month, box: tuple[float, float, float, float] | None, most: int) -> list[Any]:
    from coverage_pipeline.cube.read import read_partition
    from coverage_pipeline.cube.schema import ACTIONS
    from coverage_pipeline.demand.gap import GAP_INPUTS, compute_gap
    from coverage_pipeline.grid.spec import cells_within
    from coverage_pipeline.requests.outlines import task_outlines

    known, grid = settings.registry(), settings.grid_spec()
    part, _ = read_partition(settings.store().zarr, sensor, month, GAP_INPUTS)
    gap = compute_gap(part, settings.desired(), weights=settings.gap.weights, sensors=known)
    to_task = gap["action"].values[0, 0] == ACTIONS.index("task")
    if box is not None:
        to_task &= cells_within(box, grid)
    return list(task_outlines(to_task, gap["priority_score"].values[0, 0], grid, known[sensor], most=most))


@requests_app.command("order")
def order(
    request: IdArgument,
    number: Annotated[str | None, typer.Option("--number", help="Order number of a portal: records that it was ordered there.")] = None,
    provider: Annotated[str | None, typer.Option("--provider", help='Host of [tasking."host"] to order from by STAPI.')] = None,
    who: WhoOption = None,
    config: ConfigOption = None,
) -> None:
    """Order a request by STAPI, or record the number of an order made in a portal. What was ordered before is not sent again.

    [bold]Examples[/bold]

      coverage-planner requests order 1a2b3c --number DLR-2027-0815

      coverage-planner requests order 1a2b3c --provider stapi.example.org
    """
    from coverage_pipeline.requests.errors import RequestError
    from coverage_pipeline.requests.stapi import send_request

    with exit_codes():
        settings = command_settings(config)
        store = _store(settings)
        one = store.get(request)
        if (number is None) == (provider is None):
            raise RequestError("name --number of an order in a portal, or --provider to order from")
        if number is not None:
            one = store.move(one, "ordered", who=_who(who), order_number=number, evidence={"order": number})
        else:
            with _client(settings, provider or "") as client:
                one = send_request(one, client, store, who=_who(who))
        typer.echo(f"{one.id} {one.state} {one.order_number or ''}".rstrip())


def _client(settings: PlannerSettings, host: str) -> Any:
    from coverage_pipeline.requests.errors import RequestError
    from coverage_pipeline.requests.stapi import StapiClient

    if host not in settings.tasking:
        known = ", ".join(sorted(settings.tasking)) or "none"
        raise RequestError(f'no [tasking."{host}"] in the settings (there: {known}); declare its endpoint, or order in its portal')
    return StapiClient(host, settings.tasking[host], settings.scan_options().patience)


@requests_app.command("poll")
def poll(config: ConfigOption = None, who: WhoOption = None) -> None:
    """Ask the providers how the ordered requests stand.

    [bold]Example[/bold]

      coverage-planner requests poll
    """
    from coverage_pipeline.requests.errors import RequestError
    from coverage_pipeline.requests.stapi import poll_request

    failed = False
    with exit_codes():
        settings = command_settings(config)
        store = _store(settings)
        for one in store.all(states=["ordered"]):
            if one.provider not in settings.tasking:
                console.print(printable_text(f"{one.id}: ordered in a portal; nobody to ask"), highlight=False)
                continue
            try:
                with _client(settings, one.provider or "") as client:
                    now = poll_request(one, client, store, who=_who(who))
            except RequestError as error:
                failed = True
                console.print(f"[red]{printable_text(error)}[/red]", soft_wrap=True)
                continue
            typer.echo(f"{now.id} {now.state} {now.history[-1].detail}".rstrip())
    if failed:
        raise typer.Exit(1)


@requests_app.command("cancel")
def cancel(
    request: IdArgument, reason: Annotated[str, typer.Option(help="Why.")] = "", who: WhoOption = None, config: ConfigOption = None
) -> None:
    """Withdraw a request before it is acquired; one that was ordered must be withdrawn at its provider, too.

    [bold]Example[/bold]

      coverage-planner requests cancel 1a2b3c --reason "site is closed"
    """
    with exit_codes():
        store = _store(command_settings(config))
        before = store.get(request)
        one = store.move(before, "cancelled", who=_who(who), reason=reason)
        if before.order_number:
            console.print(
                printable_text(f"withdraw order {before.order_number} at {before.provider or 'its portal'}, too"), highlight=False
            )
        typer.echo(f"{one.id} {one.state}")


@requests_app.command("note")
def note(
    request: IdArgument, text: Annotated[str, typer.Argument(help="The note.")], who: WhoOption = None, config: ConfigOption = None
) -> None:
    """Set the note of a request.

    [bold]Example[/bold]

      coverage-planner requests note 1a2b3c "call the site first"
    """
    with exit_codes():
        store = _store(command_settings(config))
        typer.echo(store.annotate(store.get(request), text, who=_who(who)).id)


@requests_app.command("export")
def export(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default standard output.")] = None,
    config: ConfigOption = None,
) -> None:
    """All requests as GeoJSON in the shape of STAPI's orders.

    [bold]Example[/bold]

      coverage-planner requests export --out requests.json
    """
    from coverage_pipeline.requests.stapi import as_feature_collection
    from coverage_pipeline.storage.files import write_bytes
    from coverage_pipeline.storage.paths import storage_path

    with exit_codes():
        content = json.dumps(as_feature_collection(_store(command_settings(config)).all()), indent=1)
        if out is None:
            typer.echo(content)
        else:
            write_bytes(storage_path(out), content.encode())
            typer.echo(str(out))


@requests_app.command("settle")
def settle(config: ConfigOption = None) -> None:
    """Move the open requests by what the scans and holdings of the window show, as every build does.

    [bold]Example[/bold]

      coverage-planner requests settle
    """
    from coverage_pipeline.pipeline.planner import Planner

    with exit_codes():
        planner = Planner.from_settings(command_settings(config))
        for sensor in planner.spec.sensors:
            for month in planner.spec.months:
                for moved in planner.settle_requests(sensor, month):
                    typer.echo(printable_text(f"{moved.request} {moved.state}: {moved.reason}"))
