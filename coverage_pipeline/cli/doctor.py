"""The command that examines the catalogues."""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coverage_pipeline.catalog.checks import Check, Verdict, distinct
from coverage_pipeline.cli.console import ConfigOption, command_settings, console, exit_codes, printable_text
from coverage_pipeline.redaction import printable
from coverage_pipeline.sensors.registry import AvailableSource, CoverageSensor, resolve_sensors

if TYPE_CHECKING:
    from coverage_pipeline.catalog.options import ScanOptions

_MARKS: dict[Verdict, tuple[str, str]] = {"ok": ("✓", "green"), "slow": ("~", "yellow"), "wrong": ("✗", "red"), "failed": ("!", "red")}
_MEANINGS: dict[Verdict, str] = {"ok": "works", "slow": "slow", "wrong": "configured wrongly", "failed": "failed"}


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
    with exit_codes():
        settings = command_settings(config)
        keys = [key.strip() for text in sensor or [] for key in text.split(",") if key.strip()]
        chosen = resolve_sensors(dict.fromkeys(keys), settings.registry()) if keys else settings.chosen_sensors()
        for one in chosen:
            if not one.available_sources:
                console.print(f"{one.key} has no public catalogue: nothing to ask", highlight=False)
        checked = distinct(chosen)
        found: Counter[Verdict] = Counter()
        with console.status("asking") as status:
            for number, checks in _examined(checked, settings.scan_options(), status.update):
                sensors, source = checked[number]
                found[_verdict(checks)] += 1
                if as_json:
                    _echo_checks(sensors, source, checks)
                else:
                    Console(highlight=False).print(_checks_table(sensors, source, checks))
        counts = ", ".join(f"{found[verdict]} {_MEANINGS[verdict]}" for verdict in _MARKS if found[verdict])
        console.print(f"{len(checked)} {'source' if len(checked) == 1 else 'sources'} asked: {counts or 'none'}", highlight=False)
        if code := 2 if found["wrong"] else 1 if found["failed"] else 0:
            raise typer.Exit(code)


def _verdict(checks: Sequence[Check]) -> Verdict:
    """The worst of a source."""
    order: tuple[Verdict, ...] = ("wrong", "failed", "slow")
    return next((verdict for verdict in order if any(check.verdict == verdict for check in checks)), "ok")


def _examined(
    checked: Sequence[tuple[list[CoverageSensor], AvailableSource]], options: ScanOptions, tell: Any
) -> Iterator[tuple[int, list[Check]]]:
    """The checks of each source, in the sources' order. Hosts are asked side by side, and each one thing at a time."""
    from coverage_pipeline.catalog.doctor import examine

    hosts: dict[str, list[int]] = {}
    for number, (_, source) in enumerate(checked):
        hosts.setdefault(source.provider, []).append(number)
    done: queue.SimpleQueue[tuple[int, list[Check] | BaseException]] = queue.SimpleQueue()

    def ask(numbers: list[int]) -> None:
        for number in numbers:
            sensors, source = checked[number]
            try:
                done.put((number, list(examine(sensors[0], source, options))))
            except BaseException as error:
                done.put((number, error))

    for numbers in hosts.values():  # daemons, so that Ctrl-C need not wait for them
        threading.Thread(target=ask, args=(numbers,), name="doctor", daemon=True).start()
    ready: dict[int, list[Check]] = {}
    for number in range(len(checked)):
        while number not in ready:
            awaited = sorted({source.provider for k, (_, source) in enumerate(checked) if k not in ready and k >= number})
            tell(printable_text(f"asking {', '.join(awaited)}"))
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
        text = check.said if check.verdict == "ok" else f"{_MEANINGS[check.verdict]}: {check.said}"
        seconds = f"{check.seconds:.1f} s" if check.seconds >= 0.05 else ""
        table.add_row(Text(mark, colour), Text(check.name), Text(text, "" if check.verdict == "ok" else colour), Text(seconds))
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
