"""The command line: ``coverage-planner …`` or ``python -m coverage_pipeline …``.

Exit codes: 0 done; 1 something failed, and what else could be built is; 2 wrong settings or arguments, nothing was started (of
``doctor``: something is configured wrongly); 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from typing import Annotated, Any, TextIO

import typer

from coverage_pipeline import __version__
from coverage_pipeline.cli import backlog, build, doctor, place, reconcile, report, requests, scan, serve, targets
from coverage_pipeline.redaction import printable, redact

app = typer.Typer(
    name="coverage-planner",
    help="What satellite scenes exist, which do we hold, what is missing, and what to do about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
) -> None:
    """What satellite scenes exist, which do we hold, what is missing, and what to do about it."""
    level = logging.INFO if verbose else logging.WARNING
    if not verbose:
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # each retry is no news; the end of them is
        warnings.showwarning = _show_warning
    handler = _StderrHandler()
    handler.setFormatter(_PrintableFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


_show_any_warning = warnings.showwarning


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    """Leave out warnings of pystac-client about features that an API does not claim: ``doctor`` reports those.

    By the category's module and not by a filter, so that the library is imported by the commands that need it alone.
    """
    if not category.__module__.startswith("pystac_client"):
        _show_any_warning(message, category, filename, lineno, file, line)


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


app.callback()(options)
for _command, _name in (
    (build.build_command, "build"),
    (build.migrate_command, "migrate"),
    (build.top, "top"),
    (scan.scan, "scan"),
    (doctor.doctor, "doctor"),
    (build.gap, "gap"),
    (place.place, "place"),
    (backlog.backlog, "backlog"),
    (report.report, "report"),
    (report.changes, "changes"),
    (reconcile.reconcile, "reconcile"),
    (serve.serve, "serve"),
    (serve.demo, "demo"),
):
    app.command(_name)(_command)
app.add_typer(targets.targets_app, name="targets")
app.add_typer(requests.requests_app, name="requests")


def main() -> None:
    """Entry point of the console script. An unforeseen error ends in a traceback whose addresses show no secrets."""
    try:
        app()
    except Exception:
        sys.stderr.write(redact(traceback.format_exc()))
        sys.exit(1)
