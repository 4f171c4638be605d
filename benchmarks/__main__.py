"""All measurements, one JSON line each: ``make bench``."""

from __future__ import annotations

from benchmarks import backlog, demo_build, gridding, place, scan, targets, year

gridding.main([])
year.main([])
targets.main([])
place.main([])
backlog.main()
scan.main([])
demo_build.main()
