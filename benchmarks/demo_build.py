"""How long the demo takes from a simulated archive to the cube, and how much memory its largest process needs.

``python -m benchmarks.demo_build`` prints one JSON line.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Build the demo in a folder of its own, as ``make demo-build`` does."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "coverage_pipeline", "demo", "--build-only", "--root", str(Path(folder) / "demo")]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # kB on Linux
    print(json.dumps({"bench": "demo-build", "seconds": round(seconds, 1), "peak_rss_mb": round(peak)}))


if __name__ == "__main__":
    main()
