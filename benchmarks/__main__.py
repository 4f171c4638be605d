"""All measurements, one JSON line each: ``make bench``."""

from __future__ import annotations

from benchmarks import demo_build, gridding, scan, year

gridding.main([])
year.main([])
scan.main([])
demo_build.main()
