"""All measurements, one JSON line each: ``make bench``."""

from __future__ import annotations

from benchmarks import demo_build, gridding, place, scan, targets, year

gridding.main([])
year.main([])
targets.main([])
place.main([])
scan.main([])
demo_build.main()
