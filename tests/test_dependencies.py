"""What the code imports is declared, and what is declared is used: pyproject.toml against the imports of every file."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = ("coverage_pipeline", "coverage_dashboards", "tests", "benchmarks")
NOT_IMPORTED = {
    "dagster-webserver": "the UI, started by `dagster dev`",
    "cryptography": "Panel encrypts the tokens in its cookies with it",
    "dask": "xarray's chunks",
    "psycopg2-binary": "SQLAlchemy's driver of postgresql://",
}
NOT_IMPORTED_EXTRAS = {
    "demo": {},
    "deploy": {"dagster-postgres": "named in dagster.yaml of a deployment"},
    "docs": dict.fromkeys(("furo", "myst-parser", "sphinx"), "builds the site"),
    "lint": dict.fromkeys(("import-linter", "mypy", "ruff"), "a command"),
    "notebook": dict.fromkeys(("ipykernel", "jupyter-bokeh"), "for notebooks"),
    "s3": {"s3fs": "fsspec's s3://"},
    "test": {
        "coverage-planner": "other extras",
        "netcdf4": "compliance-checker reads with it",
        "pytest-timeout": "a plugin",
        "pytest-xdist": "a plugin",
        "stac-fastapi-pgstac": "a server in a process of its own",
        "stac-asset": "a command",
    },
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {canonical(Requirement(text).name) for text in requirements}


CORE = declared(PROJECT["dependencies"])
EXTRAS = {extra: declared(texts) for extra, texts in PROJECT["optional-dependencies"].items()}


@cache
def imports(folder: str) -> dict[str, set[str]]:
    """Distributions that a folder's files import, each with the files: a namespace of several counts as the one of its own name."""
    known = packages_distributions()
    found: dict[str, set[str]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - set(OWN):
                owners = {canonical(owner) for owner in known.get(name, [name])}
                owner = canonical(name) if canonical(name) in owners | CORE else sorted(owners)[0]
                found.setdefault(owner, set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("folder", ["coverage_pipeline", "coverage_dashboards"])
def test_the_product_imports_what_the_core_declares(folder: str) -> None:
    assert {name: sorted(files) for name, files in imports(folder).items() if name not in CORE} == {}


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "docs"])
def test_the_rest_imports_what_is_declared(folder: str) -> None:
    everything = CORE.union(*EXTRAS.values()) | {"packaging"}  # pytest's own
    missing = {name: sorted(files) for name, files in imports(folder).items() if name not in everything}
    missing.pop("duckdb-extension-spatial", None)  # an environment of its own, see benchmarks/spatial_sql.py
    assert missing == {}


def test_what_is_declared_is_used() -> None:
    used = set(imports("coverage_pipeline")) | set(imports("coverage_dashboards"))
    assert CORE - used == set(NOT_IMPORTED)
    elsewhere = used | set(imports("tests")) | set(imports("benchmarks")) | set(imports("docs"))
    assert {extra: names - elsewhere for extra, names in EXTRAS.items()} == {
        extra: set(names) - elsewhere for extra, names in NOT_IMPORTED_EXTRAS.items()
    }


def test_the_lock_holds_what_is_declared_at_safe_versions() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;]+)", lines, re.M):
        locked.setdefault(canonical(name), []).append(Version(version))
    for text in [*PROJECT["dependencies"], *(t for texts in PROJECT["optional-dependencies"].values() for t in texts)]:
        wanted = Requirement(text)
        if canonical(wanted.name) == "coverage-planner":
            continue
        assert all(wanted.specifier.contains(version) for version in locked[canonical(wanted.name)]), text
    assert min(locked["urllib3"]) >= Version("2.6")
    assert "://" not in lines  # neither a registry nor an address
