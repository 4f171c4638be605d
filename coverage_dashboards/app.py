"""What ``panel serve coverage_dashboards/app.py --warm --websocket-compression-level 1`` shows, once for every planner."""

from coverage_dashboards.planner import page

page().servable()
