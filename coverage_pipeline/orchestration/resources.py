"""What the assets are given: the planner of the code location's settings."""

import dagster as dg

from coverage_pipeline.orchestration.ranges import failing_in_words
from coverage_pipeline.pipeline.planner import Planner
from coverage_pipeline.settings.load import load_settings


class PlannerResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings file to plan by; everything else comes from it and the environment."""

    config: str | None = None
    """Settings file; None: ``COVERAGE_CONFIG``, else ``config/build.toml``."""

    environment: bool = True
    """Whether ``.env`` and the environment are asked, too."""

    def planner(self) -> Planner:
        """A planner of the current settings."""
        return Planner.from_settings(load_settings(self.config, environment=self.environment))

    def of_run(self) -> Planner:
        """The planner of a run: settings that cannot be used fail the run at once, for waiting does not mend them."""
        with failing_in_words():
            return self.planner()
