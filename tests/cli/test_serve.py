"""The dashboard's process, as ``serve`` really starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from coverage_pipeline.demo.stac_server import free_port

pytestmark = pytest.mark.slow

KEY = "hush-hush"


def test_the_dashboards_process_gets_no_password_of_the_database(tmp_path: Path) -> None:
    secrets = {
        "COVERAGE_DB_URL": f"postgresql://me:{KEY}@db.example.org/eo", "COVERAGE_DB_PASSWORD": KEY, "coverage_db_user": KEY,
        "COVERAGE_HOLDINGS_PATH": f"https://example.org/h.parquet?sig={KEY}", "PGPASSWORD": KEY,
    }  # fmt: skip
    given = {"COVERAGE_DATA": str(tmp_path / "data"), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "coverage_pipeline", "serve", "--port", str(free_port())]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **secrets, **given}, cwd=tmp_path, stdout=log, stderr=log)
        try:
            process = Path(f"/proc/{server.pid}")
            ends = time.monotonic() + 250  # a process starts slowly on a machine that is busy
            while b"\0-m\0coverage_dashboards.server\0" not in (process / "cmdline").read_bytes():
                assert server.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < ends, (tmp_path / "log").read_text()
                time.sleep(0.05)
            environment = (process / "environ").read_bytes()
        finally:
            server.kill()
            server.wait()
    assert f"COVERAGE_OUTPUT_ZARR={tmp_path / 'data' / 'coverage.zarr'}".encode() in environment
    assert KEY.encode() not in environment
    assert KEY not in (tmp_path / "log").read_text()


@pytest.mark.timeout(600)
def test_the_page_drops_the_settings_of_the_database_from_its_environment(tmp_path: Path) -> None:
    """Who starts panel by hand may have them there."""
    program = (
        "import os, runpy; from pathlib import Path; import coverage_dashboards; "
        "runpy.run_path(str(Path(coverage_dashboards.__file__).with_name('app.py'))); "
        "from coverage_pipeline.settings.load import load_settings; "
        "print(sorted(n for n in os.environ if n.startswith('COVERAGE_')), load_settings(holdings=False).db.password)"
    )
    given = {"COVERAGE_DATA": str(tmp_path / "data"), "COVERAGE_DB_PASSWORD": KEY, "PYTHONPATH": str(Path(__file__).parents[2])}
    (tmp_path / ".env").write_text(f"COVERAGE_DB_PASSWORD={KEY}\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run(
        [sys.executable, "-c", program], env={**kept, **given}, cwd=tmp_path, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "['COVERAGE_DATA'] None"
    assert KEY not in ended.stdout + ended.stderr


@pytest.mark.timeout(600)
def test_the_address_is_said_when_the_page_answers(tmp_path: Path) -> None:
    given = {"COVERAGE_DATA": str(tmp_path / "data"), "PYTHONPATH": str(Path(__file__).parents[2])}
    port = free_port()
    command = [sys.executable, "-m", "coverage_pipeline", "serve", "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, **given}, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            said = next(line for line in server.stdout if line.startswith("dashboard: "))
            assert said.split()[1] == f"http://127.0.0.1:{port}/app"
            # At once, without a second try.
            with urllib.request.urlopen(said.split()[1], timeout=60) as answer:
                assert answer.status == 200
        finally:
            server.kill()
