"""The failing cases of the recorded data (``shared/data/cases``): their items, and the server that plays them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.shared_data import shared_data


def case(name: str) -> Path:
    """The folder of the case whose number is given (``03``)."""
    (folder,) = (shared_data() / "cases").glob(f"{name}-*")
    return folder


def items_of(path: Path) -> list[dict[str, Any]]:
    """Items of an ``.ndjson`` or ``.json`` file."""
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines() if line]


def made_items(folder: Path, into: Path) -> list[dict[str, Any]]:
    """The items that a case's ``make_items.py`` writes."""
    subprocess.run([sys.executable, str(folder / "make_items.py")], cwd=into, check=True)
    return items_of(into / "items.ndjson")


def _fake_stac() -> Any:
    spec = importlib.util.spec_from_file_location("fake_stac", shared_data() / "cases" / "fake_stac.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def served(items: list[dict[str, Any]], **how: Any) -> Iterator[Any]:
    """The cases' own STAC API with these items until the end of the block; its address is ``.url``."""
    server = _fake_stac().Stac(items, **how)
    try:
        yield server
    finally:
        server.close()
