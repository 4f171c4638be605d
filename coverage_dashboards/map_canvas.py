"""A map with what lies over it: its title, the buttons that zoom, and word of work that is under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import panel as pn
import panel_material_ui as pmui

from coverage_dashboards.escape import html
from coverage_dashboards.fitting import Fitting
from coverage_dashboards.outlines import Scale
from coverage_dashboards.worldmap import WorldMap
from coverage_pipeline.geometry.bbox import BBox


class MapCanvas:
    """One of the maps of a page.

    It takes what caption and legend leave, and never pushes the legend off the page. The figure does not take part in the layout
    (``_CANVAS``): as a part of it, it would grow with its place and never shrink again.
    """

    def __init__(
        self,
        extent: BBox,
        *,
        dark: bool,
        on_tap: Callable[[float, float], None],
        on_view: Callable[[MapCanvas], None],
        on_size: Callable[[], None],
        tools: Sequence[Any] = (),
    ) -> None:
        """``on_view`` is called after the planner moved this map, ``on_size`` when it has another size; ``tools`` stand in its corner."""
        self._on_view = on_view
        self.map = WorldMap(dark, extent, on_tap=on_tap, on_view=lambda: on_view(self), on_size=on_size, on_scale=self._scaled)
        self.title = pn.pane.HTML("", visible=False, css_classes=["map-title"], stylesheets=[_TITLE], margin=0)
        self.scale = pn.pane.HTML("", css_classes=["scale"], stylesheets=[_SCALE], margin=0)
        self.busy = pn.pane.HTML("<div role='status'>Working …</div>", css_classes=["busy"], stylesheets=[_BUSY])
        # Not linked by Panel: two maps of different shape would pull each other's ranges apart (``MapRoom`` links them).
        figure = pn.pane.HoloViews(self.map.plot, linked_axes=False, sizing_mode="stretch_both", margin=0)
        self.view = pn.Column(
            figure, self._buttons(), *tools, self.title, self.scale, self.busy, Fitting(width=0, height=0, margin=0),
            sizing_mode="stretch_both", stylesheets=[_CANVAS],
            styles={"flex": "1 1 0", "min-height": "260px", "min-width": "0", "overflow": "hidden", "position": "relative"},
        )  # fmt: skip

    def working(self, at_work: bool) -> None:
        """Whether what is shown is not yet what was asked for."""
        # By a class alone: to show and hide a component makes Bokeh measure all of the page, twice for each click.
        self.view.css_classes = ["working"] if at_work else []

    def name(self, text: str) -> None:
        """Say over the map what it shows; nothing where the text is empty."""
        self.title.param.update(object=f'<div class="name">{html(text)}</div>' if text else "", visible=bool(text))

    def _scaled(self, scale: Scale) -> None:
        self.scale.object = f'<div class="bar" style="width:{scale.pixels}px"></div><span>{html(scale.words)}</span>'

    def _buttons(self) -> pn.Column:
        """Zoom by pointer or keyboard."""
        buttons = []
        for icon, title, press in (
            ("add", "Zoom in", lambda _: self.map.zoom(0.5)),
            ("remove", "Zoom out", lambda _: self.map.zoom(2.0)),
            ("public", "Show everything", lambda _: self.map.home()),
        ):
            button = pmui.IconButton(
                icon=icon,
                description=title,
                size="small",
                margin=2,
                width=36,
                variant="contained",
                sx={"backgroundColor": "background.paper"},
            )
            button.on_click(press)
            button.on_click(lambda _: self._on_view(self))
            buttons.append(button)
        return pn.Column(*buttons, margin=0, width=44, css_classes=["zoom"], styles={"position": "absolute", "top": "8px", "left": "8px"})


_BUSY = """
:host { position: absolute; left: 50%; top: 12px; transform: translateX(-50%); z-index: 5; padding: 4px 16px; border-radius: 16px;
  background: #1c2530; color: #ffffff; font-size: 15px; }
"""
_TITLE = """
:host { position: absolute; left: 56px; bottom: 8px; z-index: 4; max-width: calc(100% - 72px); }
.name { padding: 2px 12px; border-radius: 4px; background: #1c2530; color: #ffffff; font-size: 15px; }
"""
_SCALE = """
:host { position: absolute; right: 12px; bottom: 10px; z-index: 4; padding: 2px 8px; border-radius: 4px; background: #1c2530cc; }
.bar { height: 5px; box-sizing: border-box; margin: 4px 0 0 auto; border: 2px solid #ffffff; border-top: 0; }
span { color: #ffffff; font-size: 13px; }
"""
_CANVAS = """
.bk-Figure { position: absolute !important; inset: 0; width: 100% !important; height: 100% !important; min-height: 0 !important; }
.busy { display: none; }
:host(.working) .busy { display: block; }
:host(.working) .bk-Figure { opacity: 0.4; }
"""
