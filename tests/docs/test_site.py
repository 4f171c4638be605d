"""The documentation says what is there: links, settings, commands and names are checked against the code."""

from __future__ import annotations

import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from coverage_pipeline.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]


@pytest.fixture(scope="module")
def generator() -> dict[str, object]:
    return runpy.run_path(str(DOCS / "make_configuration.py"))


def test_the_configuration_page_is_made_from_the_settings_of_today(generator) -> None:
    assert (DOCS / "configuration.md").read_text(encoding="utf-8") == generator["page"](), "run docs/make_configuration.py"


def test_every_setting_says_what_it_does() -> None:
    rows = [line.split("|") for line in (DOCS / "configuration.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert [row[1].strip() for row in rows if not row[4].strip()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [t for t in targets if not re.match(r"https?://", t) and not (page.parent / t).exists()] == []


def test_commands_in_the_pages_are_there() -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:coverage-planner|python -m coverage_pipeline) ([a-z]+)", text)) - {"of"}
    later = {"search"}  # the names page says that it comes
    assert named - later <= known
    made = set(re.findall(r"`?make ([a-z-]+)\b", re.sub(r"make (?:it|the|no|again)\b", "", text)))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert {"demo", "test", "docs", "check", "lint"} <= made & targets


def test_modules_and_names_of_the_specification_are_where_the_page_says() -> None:
    text = (DOCS / "names.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"`(coverage_(?:pipeline|dashboards)(?:\.\w+)+)`", text))
    assert len(modules) >= 10
    for name in modules:
        parent, _, leaf = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(parent), leaf), name
    for module, names in re.findall(r"`(coverage_pipeline\.(?:coverage|locations|tasking))`: ([^|]*)", text):
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(importlib.import_module(module), name), (module, name)


def test_files_that_the_developing_page_names_are_there() -> None:
    text = (DOCS / "developing.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|toml|md|yaml))`", text)) | set(re.findall(r"`((?:[\w-]+/)+)`", text))
    package = ROOT / "coverage_pipeline"
    folders = [
        ROOT,
        package,
        ROOT / "coverage_dashboards",
        package / "orchestration",
        package / "orchestration/assets",
        package / "catalog",
    ]
    assert len(files) > 15
    assert [
        name for name in sorted(files) if not any((folder / name).exists() for folder in [*folders, ROOT / "coverage_pipeline/catalog"])
    ] == []


def test_the_readme_is_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 55


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "-b",
        "html",
        str(DOCS),
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for page in DOCS.glob("*.md"):
        assert (tmp_path / "site" / f"{page.stem}.html").exists(), page.name
