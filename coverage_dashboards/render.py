"""A selection as a map in a notebook, with coastlines, by GeoViews."""

from __future__ import annotations

from typing import Any

import xarray as xr

from coverage_dashboards import palette
from coverage_pipeline.coverage import ACTIONS, METRICS


def to_geoviews(da: xr.DataArray, *, dark: bool = False, width: int = 900, height: int = 480) -> Any:
    """What ``coverage.select`` gave, rasterised by datashader over coastlines; a ``scrub`` gets a slider of months.

    Colours are the dashboard's, and cells that are not known have its grey. GeoViews takes seconds to import, so only
    this function does it. It draws coastlines from the package, without the internet.
    """
    import geoviews as gv
    import hvplot.xarray  # noqa: F401  (registers .hvplot)
    from cartopy import crs

    from coverage_pipeline import geodata

    gv.extension("bokeh", logo=False)
    metric = str(da.name)
    around = palette.theme(dark)
    unit = da.attrs.get("unit_in_words", "")
    title = METRICS[metric].title if metric in METRICS else metric
    actions = metric == "action"
    shown = da.drop_vars("known_months", errors="ignore")
    image = shown.hvplot.image(
        x="lon",
        y="lat",
        geo=True,
        crs=crs.PlateCarree(),
        rasterize=True,
        aggregator="max" if actions else "mean",
        cmap=palette.action_colours(ACTIONS, dark) if actions else palette.ramp(metric, dark),
        clim=(-0.5, len(ACTIONS) - 0.5) if actions else (0, float(shown.max()) or 1.0),
        clabel=f"{title} ({unit})" if unit else title,
        title=f"{title}, {da.attrs.get('sensors', '')}, {da.attrs.get('window', '')}",
        frame_width=width,
        frame_height=height,
        dynamic=True,
    ).opts(clipping_colors={"NaN": around.unknown}, bgcolor=around.page)
    coast = gv.Path(list(geodata.coastlines().geoms), crs=crs.PlateCarree()).opts(color=around.line, line_width=0.6)
    return image * coast
