"""The most memory that this process has taken."""

from __future__ import annotations

from pathlib import Path


def peak_rss_mb() -> int:
    """Megabytes, since this program began.

    Not ``ru_maxrss``: a program that another one starts inherits that one's there.
    """
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(kilobytes) / 1024)
