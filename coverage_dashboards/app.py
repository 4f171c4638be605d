"""The page that ``coverage_dashboards.server`` makes, once for every planner who opens it (``coverage-planner serve``)."""

from coverage_dashboards.planner import page

page().servable()
