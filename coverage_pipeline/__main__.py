"""``python -m coverage_pipeline …``: the same as ``coverage-planner …``."""

from coverage_pipeline.cli.app import main

if __name__ == "__main__":
    main()
