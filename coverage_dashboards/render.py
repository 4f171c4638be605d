"""A selection as a map in a notebook, with coastlines, by GeoViews."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from coverage_dashboards import palette
from coverage_dashboards.escape import plain
from coverage_dashboards.viewport import URGENCY
from coverage_pipeline.coverage import ACTIONS, METRICS, CoverageError


def to_geoviews(da: xr.DataArray, *, dark: bool = False, width: int = 900, height: int = 480) -> Any:
    """What ``coverage.select`` gave, rasterised by datashader over coastlines; a ``scrub`` gets a slider of months.

    Colours are the dashboard's, and cells that are not known have its grey. A pixel over several cells shows the most urgent of their
    actions, the highest of the metrics whose worst counts, and the mean of the others, as the dashboard does. The title says how
    many months are provisional. GeoViews takes seconds to import, so only this function does it. It draws coastlines from the
    package, without the internet. Raises ``CoverageError`` for H3 cells, which are no raster.
    """
    if not {"lat", "lon"} <= set(da.dims):
        raise CoverageError(
            f"this map draws cells of latitude and longitude, not {', '.join(map(str, da.dims))}: use xdggs to plot H3 cells"
        )
    import geoviews as gv
    import hvplot.xarray  # noqa: F401  (registers .hvplot)
    from bokeh.models import FixedTicker
    from cartopy import crs

    from coverage_pipeline import geodata

    gv.extension("bokeh", logo=False)
    metric = str(da.name)
    around = palette.theme(dark)
    unit = da.attrs.get("unit_in_words", "")
    title = METRICS[metric].title if metric in METRICS else metric
    actions = metric == "action"
    shown = da.drop_vars(["known_months", "known_share"], errors="ignore")
    if actions:
        shown = _by_urgency(shown)
    highest = float(np.fmax.reduce(shown.values, axis=None, initial=0.0))
    provisional = int(da.attrs.get("provisional_months", 0))
    doubt = f", {provisional} of {da.attrs.get('months', provisional)} months provisional: 0 means none found yet" if provisional else ""
    image = shown.hvplot.image(
        x="lon",
        y="lat",
        geo=True,
        crs=crs.PlateCarree(),
        rasterize=True,
        aggregator="max" if actions or (metric in METRICS and METRICS[metric].default == "worst") else "mean",
        cmap=palette.action_colours(URGENCY, dark) if actions else palette.ramp(metric, dark),
        clim=(-0.5, len(URGENCY) - 0.5) if actions else (0, highest or 1.0),
        clabel=f"{title} ({unit})" if unit else title,
        title=plain(f"{title}, {da.attrs.get('sensors', '')}, {da.attrs.get('window', '')}{doubt}"),
        frame_width=width,
        frame_height=height,
        dynamic=True,
    ).opts(clipping_colors={"NaN": around.unknown}, bgcolor=around.page)
    if actions:
        image = image.opts(
            colorbar_opts={"ticker": FixedTicker(ticks=list(range(len(URGENCY)))), "major_label_overrides": dict(enumerate(URGENCY))}
        )
    coast = gv.Path(list(geodata.coastlines().geoms), crs=crs.PlateCarree()).opts(color=around.line, line_width=0.6)
    return image * coast


def _by_urgency(action: xr.DataArray) -> xr.DataArray:
    """Actions as their places in ``URGENCY`` in place of their codes, so that the largest of several is the one that must be seen."""
    places = np.array([URGENCY.index(name) for name in ACTIONS], np.float32)
    codes = np.nan_to_num(action.values, nan=ACTIONS.index("unknown")).astype(np.int64)
    return action.copy(data=places[codes])
