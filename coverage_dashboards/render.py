"""A selection as a map in a notebook, with coastlines, by GeoViews."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from coverage_dashboards import palette
from coverage_dashboards.escape import plain
from coverage_dashboards.outlines import coastlines
from coverage_dashboards.viewport import OUT_OF_SCOPE, Op, Picture, Range, mercator_x, mercator_y, refit, viewport
from coverage_pipeline.cube.schema import ACTIONS, METRICS, URGENCY, CoverageError
from coverage_pipeline.geometry.bbox import BBox


def to_geoviews(da: xr.DataArray, *, dark: bool = False, width: int = 900, height: int = 480) -> Any:
    """What ``coverage.select`` gave, over coastlines in Web Mercator; a ``scrub`` gets a slider of months.

    Colours are the dashboard's, and cells that are not known have its grey. A pixel over several cells shows the most urgent of their
    actions, the highest of the metrics whose worst counts, and the mean of the others: the pixels are the dashboard's (``viewport``),
    ``width`` × ``height`` of them before a browser has told its size, and are made anew for each zoom where Python still runs. The
    title says how many months are provisional. GeoViews takes seconds to import, so only this function does it. It draws coastlines
    from the package, without the internet. Raises ``CoverageError`` for H3 cells, which are no raster.
    """
    if not {"lat", "lon"} <= set(da.dims):
        raise CoverageError(
            f"this map draws cells of latitude and longitude, not {', '.join(map(str, da.dims))}: use xdggs to plot H3 cells"
        )
    import geoviews as gv
    import holoviews as hv
    from bokeh.models import CustomJSHover, FixedTicker, HoverTool
    from cartopy import crs

    gv.extension("bokeh", logo=False)
    metric = str(da.name)
    around = palette.theme(dark)
    unit = da.attrs.get("unit_in_words", "")
    title = METRICS[metric].title if metric in METRICS else metric
    actions = metric == "action"
    op: Op = "max" if actions or (metric in METRICS and METRICS[metric].default == "worst") else "mean"
    values, extent = _raster(_by_urgency(da) if actions else da)
    highest = float(np.fmax.reduce(values, axis=None, initial=0.0))
    provisional = int(da.attrs.get("provisional_months", 0))
    doubt = f", {provisional} of {da.attrs.get('months', provisional)} months provisional: 0 means none found yet" if provisional else ""
    first = _whole(extent, width, height)
    label = f"{title} ({unit})" if unit else title
    months = [str(t)[:7] for t in da["time"].values] if "time" in da.dims else []

    def draw(*month: str, **seen: Any) -> Any:
        """The pixels of what the browser shows; of the first view before it has said what that is."""
        frame = values[months.index(month[0])] if month else values
        view = seen["x_range"] or first[0], seen["y_range"] or first[1]
        picture = viewport(frame, *view, seen["width"] or width, seen["height"] or height, op, extent=extent)
        if picture is None:  # the view is beside the cells
            picture = Picture(np.full((2, 2), OUT_OF_SCOPE), *first, 1.0)
        (left, right), (bottom, top) = picture.x_range, picture.y_range
        # No element of GeoViews: it would warp the finished pixels once more, and lose some.
        return hv.Image(picture.values[::-1], ["x", "y"], hv.Dimension("value", label=label), bounds=(left, bottom, right, top))

    place = CustomJSHover(code=_PLACE)
    hover = HoverTool(
        tooltips=[(label, "@image"), ("latitude", "$y{lat}"), ("longitude", "$x{lon}")], formatters={"$x": place, "$y": place}
    )
    kdims = [hv.Dimension("month", values=months)] if "time" in da.dims else []
    image = hv.DynamicMap(draw, kdims=kdims, streams=[hv.streams.RangeXY(), hv.streams.PlotSize()]).opts(
        hv.opts.Image(
            cmap=palette.action_colours(URGENCY, dark) if actions else palette.ramp(metric, dark),
            clim=(-0.5, len(URGENCY) - 0.5) if actions else (0, highest or 1.0),
            clabel=label,
            colorbar=True,
            colorbar_opts={"ticker": FixedTicker(ticks=list(range(len(URGENCY)))), "major_label_overrides": dict(enumerate(URGENCY))}
            if actions
            else {},
            clipping_colors={"NaN": around.unknown, "min": around.page},
            tools=[hover],
        )
    )
    # One line with gaps, projected before: as 1,428 lines of degrees, GeoViews takes seven seconds over each map.
    coast = gv.Path([np.column_stack(coastlines())], crs=crs.GOOGLE_MERCATOR).opts(color=around.line, line_width=0.6)
    return (image * coast).opts(
        title=plain(f"{title}, {da.attrs.get('sensors', '')}, {da.attrs.get('window', '')}{doubt}"),
        frame_width=width,
        frame_height=height,
        data_aspect=1,
        xlim=first[0],
        ylim=first[1],
        bgcolor=around.page,
    )


_PLACE = """
const degrees = 180 / Math.PI, {x, y} = special_vars
return (format == "lon" ? x / 6378137 * degrees : Math.atan(Math.sinh(y / 6378137)) * degrees).toFixed(3)
"""


def _raster(da: xr.DataArray) -> tuple[NDArray[np.float32], BBox]:
    """Values ``([time,] lat, lon)``, ascending from the south-west, and their extent; ``OUT_OF_SCOPE`` where a selection across the
    antimeridian leaves longitudes between its two sides.
    """
    da = da.transpose(..., "lat", "lon").sortby(["lat", "lon"])
    lats, lons = (da[name].values.astype(np.float64) for name in ("lat", "lon"))
    steps = np.concatenate([np.diff(lats), np.diff(lons)])
    step = float(steps.min()) if steps.size else float(da.attrs.get("grid_resolution", 1.0))
    at = np.rint((lons - lons[0]) / step).astype(np.int64)
    values = np.full((*da.shape[:-1], int(at[-1]) + 1), OUT_OF_SCOPE, np.float32)
    values[..., at] = da.values
    half = step / 2
    return values, (float(lons[0]) - half, float(lats[0]) - half, float(lons[-1]) + half, float(lats[-1]) + half)


def _whole(extent: BBox, width: int, height: int) -> tuple[Range, Range]:
    """The view that holds all cells, to the map's edge; a picture without Python behind it has no other."""
    west, south, east, north = extent
    x, y = (float(mercator_x(west)), float(mercator_x(east))), (float(mercator_y(south)), float(mercator_y(north)))
    return refit(x, y, width, height, max((x[1] - x[0]) / width, (y[1] - y[0]) / height))


def _by_urgency(action: xr.DataArray) -> xr.DataArray:
    """Actions as their places in ``URGENCY`` in place of their codes, so that the largest of several is the one that must be seen."""
    places = np.array([URGENCY.index(name) for name in ACTIONS], np.float32)
    codes = np.nan_to_num(action.values, nan=ACTIONS.index("unknown")).astype(np.int64)
    return action.copy(data=places[codes])
