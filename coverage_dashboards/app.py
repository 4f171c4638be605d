"""The page that ``panel serve coverage_dashboards/app.py --warm`` makes, once for every planner who opens it."""

from coverage_dashboards.planner import page

page().servable()
