"""The page that ``coverage_dashboards.server`` makes, once for every planner who opens it (``coverage-planner serve``)."""

import os

from coverage_dashboards.planner import page
from coverage_pipeline.settings.load import without_holdings_secrets

# The page shows the cube and needs no database: who starts panel by hand may have its password in the environment.
for name in os.environ.keys() - without_holdings_secrets(os.environ).keys():
    del os.environ[name]

page().servable()
