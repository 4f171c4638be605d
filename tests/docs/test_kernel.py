"""The figures of docs/kernel.md show what the kernel gives today, and the page speaks of what there is."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NAMES = ["kernel-row.svg", "kernel-cells.svg"]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def figures() -> dict[str, str]:
    return runpy.run_path(str(DOCS / "make_kernel_figures.py"))["figures"]()


PLACES = ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "width", "height")


def drawn(picture: str) -> set[tuple[str, ...]]:
    """What a reader sees: shapes with their colour and place to the pixel, and words; not how the file is written."""
    seen = set()
    for element in ET.fromstring(picture).iter():
        tag = element.tag.removeprefix(SVG)
        numbers = [
            f"{float(v):.0f}" for name in ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "width", "height") if (v := element.get(name))
        ]
        if tag in ("rect", "circle", "line", "text", "polygon", "path"):
            seen.add((tag, element.get("fill") or element.get("stroke") or "", " ".join("".join(element.itertext()).split()), *numbers))
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_figures_show_what_the_kernel_gives_today(figures, name):
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert drawn(committed) == drawn(figures[name]), "run docs/make_kernel_figures.py, look at the figures, and read docs/kernel.md again"
    assert len(drawn(committed)) > 50


@pytest.mark.parametrize("name", NAMES)
def test_figures_can_be_read(figures, name):
    root = ET.fromstring(figures[name])
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text
    background = root.find(f"{SVG}rect").attrib  # or dark pages would show through
    assert (background["width"], background["height"], background["fill"]) == (root.get("width"), root.get("height"), "#ffffff")
    assert min(float(words.get("font-size")) for words in root.iter(f"{SVG}text")) >= 11


def test_files_and_functions_that_the_page_names_are_there():
    page = (DOCS / "kernel.md").read_text(encoding="utf-8")
    folders = [ROOT, DOCS, ROOT / "coverage_pipeline", ROOT / "tests"]
    files = set(re.findall(r"[`(/]([\w/.-]+\.(?:py|svg|md))[`)]", page))
    assert files >= {*NAMES, "grid/kernel.py", "grid/test_spec.py"}
    assert [name for name in sorted(files) if not any((folder / name).exists() for folder in folders)] == []
    code = "\n".join(path.read_text(encoding="utf-8") for part in ("coverage_pipeline", "tests") for path in (ROOT / part).rglob("*.py"))
    names = set(re.findall(r"`(?:[A-Za-z]\w*\.)*([A-Za-z_]\w+)(?:\(\))?`", page))
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", code)] == []
