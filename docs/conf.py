"""The documentation site: ``make docs`` builds it into ``site/``; a broken link or reference is an error."""

from importlib.metadata import version as _version

project = "Coverage planner"
version = release = _version("coverage-planner")
extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"{project} {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline"]
nitpicky = True
