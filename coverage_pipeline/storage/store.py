"""Where everything lies: the paths of each sensor's and month's files below the root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from upath import UPath

from coverage_pipeline.months import Month
from coverage_pipeline.storage.paths import is_local, storage_path

StatsLayer = Literal["available", "held", "unheld"]


@dataclass(frozen=True)
class Store:
    """The paths of one root, each a local folder or an object store's URL."""

    root: UPath
    zarr: UPath
    parquet_dir: UPath
    derived: UPath | None = None
    """Where statistics and matchups lie, which follow from scenes, holdings and settings; None: the root."""

    @classmethod
    def below(
        cls,
        root: str | Path | UPath,
        *,
        zarr: str | Path | UPath | None = None,
        parquet_dir: str | Path | UPath | None = None,
    ) -> Store:
        """The store below a root; ``zarr`` and ``parquet_dir`` may lie elsewhere."""
        base = storage_path(root)
        return cls(
            root=base,
            zarr=storage_path(zarr) if zarr else base / "coverage.zarr",
            parquet_dir=storage_path(parquet_dir) if parquet_dir else base / "catalog",
        )

    def scenes(self, sensor: str, month: Month) -> UPath:
        """Available scenes, GeoParquet; the rejected table and the scan report stand beside it."""
        return self.parquet_dir / sensor / f"{month.key}.parquet"

    def timeless(self, sensor: str) -> UPath:
        """Catalogue items of a sensor that have no time, and so belong to no month."""
        return self.parquet_dir / sensor / "timeless.parquet"

    def holdings(self, sensor: str, month: Month) -> UPath:
        """Holdings of the month (and of the match tolerance on either side), GeoParquet."""
        return self.root / "holdings" / sensor / f"{month.key}.parquet"

    def last_held(self, sensor: str, month: Month) -> UPath:
        """For every distinct footprint, the last instant held before the month's end."""
        return self.root / "holdings" / sensor / f"{month.key}.last.parquet"

    def stats(self, layer: StatsLayer, sensor: str, month: Month) -> UPath:
        """Cell statistics, one row a touched cell."""
        return (self.derived or self.root) / "stats" / layer / sensor / f"{month.key}.parquet"

    def matchup(self, sensor: str, month: Month) -> UPath:
        """One row an available scene: held or not, by which holding and rule."""
        return (self.derived or self.root) / "matchup" / sensor / f"{month.key}.parquet"

    @property
    def targets(self) -> UPath:
        """The targets as they were last read, with their digest."""
        return self.root / "targets.parquet"

    @property
    def saved_targets(self) -> UPath:
        """Targets that planners saved on the page, GeoParquet."""
        return self.root / "saved_targets.parquet"

    def target_stats(self, sensor: str, month: Month) -> UPath:
        """Coverage of each target, one row a target."""
        return self.root / "targets" / sensor / f"{month.key}.parquet"

    def backlog(self, sensor: str, month: Month) -> UPath:
        """Scenes worth getting, one row a scene, GeoParquet."""
        return self.root / "backlog" / sensor / f"{month.key}.parquet"

    def summary(self, sensor: str, month: Month) -> UPath:
        """What is met and what is missing, one row for the cells and each group of targets."""
        return self.root / "summary" / sensor / f"{month.key}.parquet"

    @property
    def requests(self) -> Path:
        """The request store, a local SQLite file (below the root, or ``data`` where the root is an object store)."""
        return Path(self.root.path if is_local(self.root) else "data") / "requests.sqlite"
