"""Coverage planner: what exists, what we hold, what is missing, and what to do about it."""

from importlib.metadata import version

__version__ = version("coverage-planner")
