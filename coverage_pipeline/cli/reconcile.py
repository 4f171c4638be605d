"""The command that compares holdings with catalogues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from coverage_pipeline.cli.console import ConfigOption, command_settings, console, exit_codes, printable_text

_MOST_SHOWN = 20


def reconcile(
    sensors: Annotated[str | None, typer.Option(help="Sensor keys, comma-separated; default those of the settings.")] = None,
    start: Annotated[str | None, typer.Option(help="First month or day; default the window's.")] = None,
    end: Annotated[str | None, typer.Option(help="Last month or day; default the window's.")] = None,
    form: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="What is printed or written.")] = "table",
    out: Annotated[Path | None, typer.Option(help="File to write the findings to; default standard output.")] = None,
    config: ConfigOption = None,
) -> None:
    """Where holdings and catalogue disagree: held and not listed, held twice, in part, in an older version, ids that nobody knows.

    It reads the files of a build and asks nobody. Exit code 1 where a month is not known.

    [bold]Examples[/bold]

      coverage-planner reconcile --sensors emit --start 2025-01 --end 2025-03

      coverage-planner reconcile --format csv --out findings.csv
    """
    import pyarrow as pa

    from coverage_pipeline.matchup.reconciliation import FINDINGS
    from coverage_pipeline.matchup.reconciliation import reconcile as of_partition

    with exit_codes():
        settings = command_settings(config, sensors=sensors, start=start, end=end)
        store = settings.store()
        reports = [of_partition(sensor, month, store) for sensor in settings.chosen_sensors() for month in settings.months()]
        findings = pa.concat_tables([report.findings for report in reports])
        if form == "json":
            _give(json.dumps([report.as_json() for report in reports], indent=1), out)
        elif form == "csv":
            frame = findings.to_pandas()
            frame["ids"] = [" ".join(ids) for ids in frame["ids"]]
            _give(frame.to_csv(index=False).rstrip("\n"), out)
        else:
            table = Table()
            for title in ("sensor", "month", "held", "first", "last", *FINDINGS):
                table.add_column(title, justify="left" if title in ("sensor", "month", "first", "last") else "right")
            for report in reports:
                cells = ["?" if count is None else f"{count:,}" for count in (report.rows, *report.counts.values())]
                span = [(instant or "")[:10] for instant in (report.first, report.last)]
                table.add_row(report.sensor, report.month, cells[0], *span, *cells[1:])
            printer = Console()
            printer.print(table)
            for row in findings.slice(0, _MOST_SHOWN).to_pylist():
                words = f"{row['sensor']} {row['month']}, {row['finding']}: {' '.join(row['ids'])}: {row['detail']}"
                printer.print(f"  {printable_text(words)}", soft_wrap=True)
            if findings.num_rows > _MOST_SHOWN:
                printer.print(f"  and {findings.num_rows - _MOST_SHOWN:,} more (--format csv has all)")
        unknown = [report for report in reports if not report.known]
        for report in unknown:
            console.print(f"{report.sensor} {report.month} is not known: {printable_text(report.reason)}", soft_wrap=True)
    if unknown:
        raise typer.Exit(1)


def _give(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")
