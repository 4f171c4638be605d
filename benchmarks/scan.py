"""How fast a catalogue is scanned, beside rustac and pystac-client, and how much memory a whole month takes.

    python -m benchmarks.scan [--items 30000] [--month 450000]

Prints one line of JSON for each latency, and one for the month. All three read the same window of the same API (`rustac serve`, which
computes on the same cores) in pages of 250, behind a proxy that lets each answer wait; without latency they ask the API itself:

* ours: `scan_month`, from the first request to the published GeoParquet, normalised, keyed, checked and de-duplicated;
* `rustac.search_to`, a compiled client, which writes what came as it came;
* pystac-client, item by item, as most scripts do.

The provider's profile is that of a large one: windows of a day, eight at a time, no limit on the rate. Medians of alternating runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import rustac
from pystac_client import Client

from benchmarks.memory import peak_rss_mb
from coverage_pipeline.catalog.options import ScanOptions
from coverage_pipeline.catalog.providers import ProviderProfile
from coverage_pipeline.catalog.scan import build_availability_catalog
from coverage_pipeline.demo.archive import simulated_items
from coverage_pipeline.demo.stac_server import free_port, stac_api
from coverage_pipeline.months import Month
from coverage_pipeline.sensors.registry import COVERAGE_SENSORS, AvailableSource

PAGE = 250
COLLECTION = "sentinel-2-l2a"
JANUARY = Month(2025, 1)
WINDOW = "2024-12-31T23:00:00Z/2025-02-01T01:00:00Z"
PROFILE = ProviderProfile(page_size=PAGE, requests_per_second=None, parallel=8, window_hours=24)


def _served_items(folder: Path, count: int) -> Path:
    """Simulated Sentinel-2 items, as many as asked for: of January, and where that has not as many, of the months after."""
    density = min(1.0, count / 150_000)
    months = (JANUARY.shift(k) for k in range(12))
    items = islice(chain.from_iterable(simulated_items("sentinel-2", month, density=density) for month in months), count)
    path = folder / "items.json"
    with path.open("w") as file:
        file.write('{"type":"FeatureCollection","features":[')
        for number, item in enumerate(items):
            file.write(("," if number else "") + json.dumps(item))
        file.write("]}")
    return path


async def _exchange(reader: asyncio.StreamReader) -> bytes | None:
    """One whole HTTP message with a Content-Length, as it came; None at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


async def _proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: int, latency: float) -> None:
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", upstream, limit=1 << 26)
    while (request := await _exchange(reader)) is not None:
        await asyncio.sleep(latency)
        to_writer.write(request)
        answer = await _exchange(to_reader)
        if answer is None:
            break
        writer.write(answer)
        await writer.drain()
    to_writer.close()
    writer.close()


@contextmanager
def _delayed(port: int, upstream: int, latency: float) -> Iterator[None]:
    """Every answer of the API a while later, from a thread of its own."""
    started, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError, ConnectionError):
            await _proxy(reader, writer, upstream, latency)

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with await asyncio.start_server(connected, "127.0.0.1", port, limit=1 << 26):
            started.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    started.wait()
    try:
        yield
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(5)


def _ours(address: str, out: Path, end: str = "2025-01-31") -> int:
    sensor = replace(COVERAGE_SENSORS["sentinel-2"], available_sources=(AvailableSource("stac", address, COLLECTION),))
    options = ScanOptions(providers={address.removeprefix("http://"): PROFILE})
    build_availability_catalog(sensor, "2025-01-01", end, dest=out, options=options)
    return int(json.loads(out.with_suffix(".scan.json").read_text())["received"])


def _rustac(address: str, out: Path) -> int:
    async def search() -> int:
        return int(await rustac.search_to(str(out), address, collections=[COLLECTION], datetime=WINDOW, limit=PAGE))

    return asyncio.run(search())


def _pystac(address: str, out: Path) -> int:
    search = Client.open(address).search(collections=[COLLECTION], datetime=WINDOW, limit=PAGE)
    return sum(1 for _ in search.items())


def measure(count: int, latency: float, rounds: int = 3) -> dict[str, object]:
    """Items a second of each, and the ratios."""
    readers: dict[str, Callable[[str, Path], int]] = {"ours": _ours, "rustac": _rustac, "pystac": _pystac}
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        port, upstream = free_port(), free_port()
        front = f"127.0.0.1:{port}" if latency else f"127.0.0.1:{upstream}"
        files = [_served_items(place, count)]
        with stac_api(files, port=upstream, advertised=front), _delayed(port, upstream, latency):
            for turn in range(rounds):
                for name, read in readers.items():
                    began = time.perf_counter()
                    read(f"http://{front}", place / f"{name}-{turn}.parquet")
                    seconds[name].append(time.perf_counter() - began)
            counts = {name: read(f"http://{front}", place / f"{name}-count.parquet") for name, read in readers.items()}
            alone = _in_a_process(f"http://{front}", place / "alone.parquet")
    assert len(set(counts.values())) == 1, counts
    rates = {name: counts[name] / statistics.median(times) for name, times in seconds.items()}
    return {
        "bench": "scan",
        "items": counts["ours"],
        "latency_ms": round(latency * 1000),
        "items_per_s": round(rates["ours"]),
        "rustac_items_per_s": round(rates["rustac"]),
        "pystac_items_per_s": round(rates["pystac"]),
        "ratio_rustac": round(rates["ours"] / rates["rustac"], 2),
        "ratio_pystac": round(rates["ours"] / rates["pystac"], 2),
        "peak_rss_mb": alone["peak_rss_mb"],
    }


def _in_a_process(address: str, out: Path) -> dict[str, int]:
    """Our scan in a process of its own: items, and the most memory it took."""
    command = [sys.executable, "-m", "benchmarks.scan", "--only", address, "--out", str(out)]
    found: dict[str, int] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def month(count: int) -> dict[str, object]:
    """A scan of very many items in a process of its own: seconds and the most memory it took."""
    with tempfile.TemporaryDirectory() as folder, stac_api([_served_items(Path(folder), count)], seconds=600) as address:
        began = time.perf_counter()
        found = _in_a_process(address, Path(folder) / "month.parquet")
        took = time.perf_counter() - began
    return {"bench": "scan-month", "seconds": round(took, 1), **found}


def main(arguments: list[str] | None = None) -> None:
    """Print one line of JSON for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=30_000)
    parser.add_argument("--month", type=int, default=450_000)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.only:
        received = _ours(chosen.only, chosen.out, "2025-12-31")
        print(json.dumps({"items": received, "peak_rss_mb": peak_rss_mb()}))
        return
    for latency in (0.0, 0.1):
        print(json.dumps(measure(chosen.items, latency)), flush=True)
    if chosen.month:
        print(json.dumps(month(chosen.month)))


if __name__ == "__main__":
    main()
