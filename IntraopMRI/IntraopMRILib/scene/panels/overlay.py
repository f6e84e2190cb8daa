"""What follows the pointer in the views: planes, corner texts, alarms. All of it blanks with its source's trust."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import slicer
from IntraopMRIReconstructionLib.data import Measurement, Pose

from ...navigate.distance import SurfaceDistance, target_distance
from ...navigate.reslice import Plane, PoseSmoother, slice_to_ras
from ...navigate.watch import AlarmLevel, DistanceAlarm, PoseWatch
from .. import colors
from ..corner_text import ViewTexts
from ..display import ColorBar, Corners, Line, Readout, banners, corners, pieceHead
from ..parameters import Reslice

#: The slice views in the order in which planes are given to them.
VIEWS = ("Red", "Green", "Yellow")
PLANES: dict[Reslice, tuple[Plane, Plane, Plane]] = {
    Reslice.IN_PLANE: ("in-plane", "in-plane 90", "probe's eye"),
    Reslice.PROBES_EYE: ("probe's eye", "in-plane", "in-plane 90"),
}
#: An alarm goes from near to too near at this part of the limit.
TOO_NEAR = 0.5
#: Lines and names are made for slice views of so many pixels; in larger ones they are drawn larger.
MADE_FOR_PX = 400


class Guidance:
    """From a pose to planes, distances and alarms: all that one pose costs, without rendering.

    ``risks``: distance to each structure at risk, in intraoperative RAS. ``target_ras_mm`` (3,) or None.
    """

    def __init__(
        self, residual: SurfaceDistance | None, risks: tuple[SurfaceDistance, ...], target_ras_mm: Any
    ) -> None:
        self._residual, self._risks, self._target = residual, risks, target_ras_mm
        self._smoother = PoseSmoother()
        self._watch: PoseWatch | None = None
        self._alarm: DistanceAlarm | None = None
        self._limit_mm = 0.0
        self.planes: tuple[Any, ...] = ()
        self.pose: Pose | None = None
        self.residual: Measurement | None = None
        self.direction = ""
        self.risk: Measurement | None = None
        self.target: Measurement | None = None
        self.level = AlarmLevel.UNKNOWN

    def process(self, pose: Pose, reslice: Reslice, alarm_mm: float, clock: Any) -> None:
        """Take in one pose."""
        if self._watch is None or self._watch.tool != pose.tool:
            self._watch = PoseWatch(pose.tool, clock)
        self._watch.update(pose)
        smooth = self._smoother.smooth(pose)
        if pose.valid and reslice in PLANES:
            self.planes = tuple(slice_to_ras(plane, smooth) for plane in PLANES[reslice])
        else:
            self.planes = ()
        self.pose = smooth
        self.refresh(alarm_mm)

    def refresh(self, alarm_mm: float) -> None:
        """Distances and alarm for the last pose as far as it may be used now."""
        if self._alarm is None or alarm_mm != self._limit_mm:
            self._alarm, self._limit_mm = DistanceAlarm(alarm_mm, TOO_NEAR * alarm_mm), alarm_mm
        live = self._watch is not None and self._watch.state().live and self.pose is not None
        self.residual = self.risk = self.target = None
        self.direction = ""
        if not live or self.pose is None:
            self.level = AlarmLevel.UNKNOWN
            self.planes = ()
            return
        tip = self.pose.tip_ras_mm
        if self._residual is not None:
            nearest = self._residual.at(tip)
            self.residual = self._residual.measure(tip, nearest=nearest)
            self.direction = nearest.words
        measured = [risk.measure(tip) for risk in self._risks]
        if measured:
            self.risk = min(measured, key=lambda m: m.value if m.value is not None else np.inf)
            self.level = self._alarm.update(self.risk)
        else:
            self.level = AlarmLevel.UNKNOWN
        if self._target is not None:
            self.target = target_distance(tip, self._target)

    def expect(self) -> None:
        """See :meth:`PoseWatch.expect`."""
        if self._watch is not None:
            self._watch.expect()

    @property
    def why(self) -> str:
        """Why nothing is shown of the pointer; empty while it is live."""
        return "" if self._watch is None else self._watch.state().reason


class Overlay:
    """Texts over the slice and 3D views of the layout, and the planes of the slice views."""

    def __init__(self) -> None:
        self._texts: dict[str, tuple[Any, ViewTexts]] = {}
        self._shown: dict[str, Any] = {}
        #: Slice views that were turned to the planes of the pointer.
        self._turned: set[str] = set()
        #: What Slicer itself writes into the corners of the slices (names of volumes), hidden below our own texts.
        self._hidden: list[Any] = []
        self._ground = Ground()

    def scale(self) -> float:
        """Pixels of the smallest slice view, of those that lines and names are made for; at least 1."""
        widgets = (slicer.app.layoutManager().sliceWidget(name) for name in VIEWS)
        sizes = [min(w.sliceView().renderWindow().GetSize()) for w in widgets if w is not None and w.visible]
        return max(1.0, min(sizes, default=0) / MADE_FOR_PX)

    def follow(self, pose: Pose, planes: tuple[Any, ...]) -> None:
        """Move the slice views to the tip, or to the pointer's own planes."""
        manager = slicer.app.layoutManager()
        for index, name in enumerate(VIEWS):
            widget = manager.sliceWidget(name)
            if widget is None:
                continue
            node = widget.mrmlSliceNode()
            if planes:
                node.GetSliceToRAS().DeepCopy(planes[index].ravel().tolist())
                node.UpdateMatrices()
                self._turned.add(name)
            else:
                if name in self._turned:
                    self._turned.discard(name)
                    node.SetOrientationToDefault()
                node.JumpSliceByCentering(*pose.tip_ras_mm)

    def annotate(
        self,
        readout: Readout,
        shift: tuple[Line, ...] = (),
        heads: Mapping[str, tuple[Line, ...]] = MappingProxyType({}),
        legend: tuple[Line, ...] = (),
        colorBar: ColorBar | None = None,
    ) -> None:
        """Write the session's numbers and alarms into the views; only what changed is drawn again.

        ``shift``: what is known of the brain shift at the tip and under the cursor, for the slices. ``heads``: first
        lines of a slice view, by its name. ``legend``: what the colours mean, for the first view.
        ``colorBar``: the scale of a map, for the slices.
        """
        manager = slicer.app.layoutManager()
        for name in VIEWS:
            widget = manager.sliceWidget(name)
            if widget is not None:
                node = widget.mrmlSliceNode()
                toRas = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
                height = widget.sliceView().renderWindow().GetSize()[1]
                colors_of = legend if name == VIEWS[0] else ()
                texts = Corners(
                    topLeft=(*heads.get(name, ()), *colors_of),
                    topRight=pieceHead(readout),
                    bottomLeft=shift,
                    banners=banners(readout),
                    colorBar=colorBar,
                )
                self._draw(name, widget.sliceView(), texts, toRas, node.GetFieldOfView()[1] / max(1, height))
        threeD = manager.threeDWidget(0)
        if threeD is not None:
            self._ground.lay(threeD.mrmlViewNode())
            self._draw("3D", threeD.threeDView(), corners(readout), None, None)

    def _draw(self, name: str, view: Any, texts: Corners, toRas: Any, mmPerPixel: float | None) -> None:
        renderer = view.renderWindow().GetRenderers().GetFirstRenderer()
        if name not in self._texts or self._texts[name][0] is not renderer:
            self._texts[name] = (renderer, ViewTexts(renderer))
            self._shown.pop(name, None)
            if name in VIEWS and view.cornerAnnotation().GetVisibility():
                self._hidden.append(view.cornerAnnotation())
                view.cornerAnnotation().SetVisibility(False)
        state = (texts, None if toRas is None else toRas.round(3).tobytes(), mmPerPixel, renderer.GetSize())
        if self._shown.get(name) != state:
            self._shown[name] = state
            self._texts[name][1].update(texts, toRas, mmPerPixel)
            view.scheduleRender()

    def close(self) -> None:
        """Take everything away."""
        for _renderer, texts in self._texts.values():
            texts.close()
        for annotation in self._hidden:
            annotation.SetVisibility(True)
        self._hidden.clear()
        self._texts.clear()
        self._shown.clear()
        self._ground.lift()


class Ground:
    """Black behind the numbers of the 3D view, without a box and its letters; given back as it was."""

    def __init__(self) -> None:
        self._before: tuple[Any, ...] | None = None

    def lay(self, node: Any) -> None:
        """Make a 3D view node dark; it has the bright ground again after its scene was closed."""
        if node.GetBackgroundColor() == colors.BACKGROUND and not node.GetBoxVisible():
            return
        look = (
            node.GetBackgroundColor(),
            node.GetBackgroundColor2(),
            node.GetBoxVisible(),
            node.GetAxisLabelsVisible(),
        )
        self._before = (node, *look)
        self._set(node, colors.BACKGROUND, colors.BACKGROUND, False, False)

    def lift(self) -> None:
        """Give back what was there."""
        if self._before is not None and self._before[0].GetScene() is not None:
            self._set(*self._before)
        self._before = None

    @staticmethod
    def _set(node: Any, first: colors.Color, second: colors.Color, box: bool, letters: bool) -> None:
        node.SetBackgroundColor(*first)
        node.SetBackgroundColor2(*second)
        node.SetBoxVisible(box)
        node.SetAxisLabelsVisible(letters)
