"""Both volumes in the slice views: blended, as a checkerboard, flickering, or side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk
from IntraopMRIReconstructionLib.data import Image
from slicer.i18n import tr as _

from ...register.carry_over import CarryOver
from .. import colors, recipes
from ..display import MIDDLE, ColorBar, Line, age
from ..map_scale import MapScale
from ..parameters import Comparison, Pair, ShiftMap
from ..roles import AROUND, UNMOVED
from ..scan_nodes import takenOf
from .layouts import FOUR_UP, SIDE_BY_SIDE, THREE_ABREAST, show

#: Edge of a checkerboard tile in mm: wide enough to follow a sulcus across its edge.
TILE_MM = 15.0
#: One picture of a flicker lasts this long, s: slow enough to see what jumps.
FLICKER_S = 0.6
#: A map lets the tissue below it show through.
MAP_OPACITY = 0.55
#: So much of a scan's name fits into a corner.
_NAME_LETTERS = 14
MAPS = {
    ShiftMap.SHIFT: recipes.SHIFT_MAP,
    ShiftMap.UNCERTAINTY: recipes.UNCERTAINTY_MAP,
    ShiftMap.DISAGREEMENT: recipes.DISAGREEMENT_MAP,
}


class Compare:
    """Keeps the composite nodes of the slice views as the page asks. Call :meth:`close` to leave nothing behind."""

    def __init__(self, running: Any) -> None:
        self._running = running
        self._mode = Comparison.BLEND
        self._pair = Pair.BEFORE_NOW
        self._map = ShiftMap.NONE
        self._blend = 0.5
        self._laid: Any = None
        #: The map of a quantity whose scale stands in the slices.
        self._scaled: Any = None
        self._scale = MapScale()
        self._board: Any = None
        self._boardOf: Any = None
        #: What each slice view shows, where that is not the same in all of them.
        self.titles: dict[str, str] = {}

    def show(
        self, mode: Comparison, blend: float, pair: Pair = Pair.BEFORE_NOW, shiftMap: ShiftMap = ShiftMap.NONE
    ) -> None:
        """Use this comparison from now on; a map is laid over the intraoperative volume instead of a comparison."""
        if mode is not self._mode:
            if self._board is None:
                self._boardOf = None  # it was cancelled: asked for again, it is made again
            show(self._sideBySide() if mode is Comparison.SIDE_BY_SIDE else FOUR_UP)
        self._mode, self._blend, self._pair, self._map = mode, blend, pair, shiftMap
        if mode is Comparison.CHECKERBOARD:
            self._makeBoard()
        self.apply()

    def tick(self, now_s: float) -> None:
        """Flicker; beside one another, all views follow the first one."""
        if self._mode is Comparison.SIDE_BY_SIDE:
            self._align()
        if self._mode is Comparison.FLICKER and self._mapNode() is None:
            self._opacity(float(int(now_s / FLICKER_S) % 2))

    def apply(self) -> None:
        """Bring volumes and opacity into all slice views."""
        view = self._running.view
        now, laid = None if view is None else view.volume(), self._mapNode()
        self._scaled = None
        ofQuantity = laid is not None and self._map is ShiftMap.QUANTITY
        if view is not None:
            view.bridge.surround(ofQuantity, now if ofQuantity else None)
        if now is None and laid is None:
            self.titles = {}
            return
        carried, rigid = self._shown("preop.volume"), self._shown(UNMOVED)
        before = rigid if self._pair is not Pair.BEFORE_NOW and rigid is not None else carried
        after = carried if self._pair is Pair.RIGID_CARRIED and rigid is not None else now
        piece = self._shown("bone.volume")
        abreast = [volume for volume in (rigid, carried or piece, now) if volume is not None]
        manager = slicer.app.layoutManager()
        self.titles = {}
        for index, name in enumerate(manager.sliceViewNames()):
            composite = manager.sliceWidget(name).mrmlSliceCompositeNode()
            if ofQuantity:
                self.layQuantity(composite, laid)
                continue
            composite.SetLabelVolumeID(None)
            below, above = before, after
            if laid is not None:
                below, above = now, laid
            elif self._mode is Comparison.SIDE_BY_SIDE:
                below, above = abreast[min(index, len(abreast) - 1)], None
                self.titles[name] = {
                    rigid: _("Rigid pose"), carried: _("Carried over"), piece: _("Before, its own pose"), now: _("Now")
                }[below]  # fmt: skip
            elif self._mode is Comparison.CHECKERBOARD and self._board is not None:
                below, above = self._board, None
            elif piece is not None:
                # It covers a vertebra only: below, the scan around it would be dimmed.
                below, above = now, piece
            composite.SetBackgroundVolumeID(below.GetID() if below is not None else None)
            composite.SetForegroundVolumeID(above.GetID() if above is not None else None)
        if laid is not None and not ofQuantity:
            self._opacity(MAP_OPACITY)
        elif not ofQuantity:
            self._opacity(self._blend if piece is None else 1.0 - self._blend)
        self._showLegend(laid)

    def layQuantity(self, composite: Any, shown: Any) -> None:
        """A map of a quantity over the picture of its own scan, and the anatomy around both of them."""
        layers = (self._shown(AROUND), self._shown("map.picture"), shown)
        around, picture, laid = (None if node is None else node.GetID() for node in layers)
        composite.SetBackgroundVolumeID(around or picture)
        composite.SetForegroundVolumeID(picture)
        composite.SetForegroundOpacity(1.0)
        self._scaled = shown
        legend = None if shown is None else slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(shown)
        if legend is not None:
            # Ours is larger, and says the temperature itself.
            legend.SetVisibility(False)
        # The third layer is made for labels, but takes any volume with the colours of its own display.
        composite.SetLabelVolumeID(laid)
        composite.SetLabelOpacity(MAP_OPACITY)

    def around(self, now_s: float) -> tuple[Line, ...]:
        """What stands around a map of a quantity, and as of when; nothing where none is laid. ``now_s``: POSIX."""
        node = self._shown(AROUND)
        if node is None:
            return ()
        scan = self._running.view.volume()
        taken = None if scan is None else takenOf(scan)
        name = textwrap.shorten(scan.GetName() if scan is not None else "", _NAME_LETTERS, placeholder="…")
        when = _("{name}, time unknown") if taken is None else _("{name}, as it lay {age} ago")
        return (
            Line(_("OUTSIDE THE FRAME"), color=colors.TEXT_QUIET, bold=True),
            Line(when.format(name=name, age="" if taken is None else age(now_s - taken))),
            Line(_("not measured there"), color=colors.TEXT_QUIET),
        )

    def colorBar(self) -> ColorBar | None:
        """The scale of the map of a quantity that is laid over the slices."""
        return self._scale.of(self._scaled)

    def heads(self) -> dict[str, tuple[Line, ...]]:
        """First lines of slice views by their names: what one shows, or that the map which is laid does not reach it.

        Without any of its colours such a slice would look cold.
        """
        found: dict[str, tuple[Line, ...]] = {
            name: (Line(title, MIDDLE, bold=True),) for name, title in self.titles.items()
        }
        if self._scaled is None or self._scaled.GetScene() is None:
            return found
        manager, bounds, toSlice = slicer.app.layoutManager(), [0.0] * 6, vtk.vtkMatrix4x4()
        for name in manager.sliceViewNames():
            vtk.vtkMatrix4x4.Invert(manager.sliceWidget(name).mrmlSliceNode().GetSliceToRAS(), toSlice)
            self._scaled.GetSliceBounds(bounds, toSlice)
            if not bounds[4] <= 0.0 <= bounds[5]:
                words = (_("NOT MEASURED"), _("IN THIS SLICE"))
                found[name] = tuple(Line(text, MIDDLE, colors.CAUTION, bold=True) for text in words)
        return found

    @contextmanager
    def opaque(self, centre: npt.ArrayLike | None) -> Iterator[None]:
        """The intraoperative volume alone through ``centre`` (3,), RAS mm, for pictures that a decision rests on.

        A rim that enhanced before surgery would shine through a blend as if it were still there.
        """
        view, manager = self._running.view, slicer.app.layoutManager()
        now = None if view is None else view.volume()
        before = []
        for name in manager.sliceViewNames():
            widget = manager.sliceWidget(name)
            node, composite = widget.mrmlSliceNode(), widget.mrmlSliceCompositeNode()
            before.append((node, slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).copy()))
            composite.SetLabelVolumeID(None)
            if now is not None:
                composite.SetBackgroundVolumeID(now.GetID())
                composite.SetForegroundVolumeID(None)
            if centre is not None:
                node.JumpSliceByCentering(*np.asarray(centre, dtype=float))
        try:
            yield
        finally:
            for node, matrix in before:
                slicer.util.updateVTKMatrixFromArray(node.GetSliceToRAS(), matrix)
                node.UpdateMatrices()
            self.apply()

    def close(self) -> None:
        """Remove the checkerboard."""
        self._removeBoard()

    def _shown(self, role: str) -> Any:
        """The node of a role unless it is hidden: a preoperative volume without a registration lies nowhere."""
        view = self._running.view
        node = None if view is None else view.bridge.node(role)
        return node if node is not None and node.GetDisplayVisibility() else None

    def _showLegend(self, laid: Any) -> None:
        """Slicer looks whether a view shows the volume of a legend when a person changes its layers, not when we do."""
        if laid is self._laid:
            return
        for node in (laid, self._laid):
            legend = None if node is None else slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
            if legend is not None:
                legend.Modified()
        self._laid = laid

    def _mapNode(self) -> Any:
        """The map to lay over the volume; None while none is asked for or nothing is known."""
        view = self._running.view
        if self._map is ShiftMap.QUANTITY:
            return None if self._running.maps is None else self._shown("map.0")
        known = self._map is not ShiftMap.NONE and view is not None and view.followsShift
        return self._shown(MAPS[self._map]) if known else None

    def _align(self) -> None:
        """The same plane in every view that shows one of the volumes."""
        manager = slicer.app.layoutManager()
        nodes = [manager.sliceWidget(name).mrmlSliceNode() for name in self.titles]
        if not nodes:
            return
        plane, field = slicer.util.arrayFromVTKMatrix(nodes[0].GetSliceToRAS()), nodes[0].GetFieldOfView()
        for node in nodes[1:]:
            if not np.allclose(slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()), plane):
                slicer.util.updateVTKMatrixFromArray(node.GetSliceToRAS(), plane)
                node.UpdateMatrices()
            if not np.allclose(node.GetFieldOfView(), field):
                node.SetFieldOfView(*field)

    def _sideBySide(self) -> int:
        return SIDE_BY_SIDE if self._shown(UNMOVED) is None else THREE_ABREAST

    def _opacity(self, value: float) -> None:
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames():
            composite = manager.sliceWidget(name).mrmlSliceCompositeNode()
            if composite.GetForegroundOpacity() != value:
                composite.SetForegroundOpacity(value)

    def _makeBoard(self) -> None:
        """Compute the checkerboard in the background, once for each pair of volumes."""
        found, shift = self._running.registered, self._running.shift
        if self._shown("preop.volume") is None or found is None:
            return
        pair = (self._pair, found.image.uid, None if shift is None else shift.deformable.shift.uid)
        if self._running.task is not None or pair == self._boardOf:
            return
        self._removeBoard()
        self._boardOf = pair
        preoperative, image = self._running.session.plan.preoperative, found.image
        carry = {
            False: CarryOver(found.registration),
            True: CarryOver(found.registration, None if shift is None else shift.deformable),
        }
        followed = self._pair is Pair.BEFORE_NOW
        both = self._pair is Pair.RIGID_CARRIED

        def work() -> npt.NDArray[np.float32]:
            before = carry[followed].volume(preoperative, image)
            return checkerboard(before, carry[True].volume(preoperative, image) if both else image)

        def finished(array: Any) -> None:
            self._removeBoard()
            self._board = slicer.util.addVolumeFromArray(array, image.ras_from_ijk, _("Checkerboard"))
            self._board.CreateDefaultDisplayNodes()
            self._board.SetAttribute("IntraopMRI.temporary", "1")
            self._boardOf = pair
            self.apply()

        self._running.start(_("making the checkerboard"), work, finished)

    def _removeBoard(self) -> None:
        if self._board is not None and self._board.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(self._board)
        self._board, self._boardOf = None, None


def checkerboard(before: Image, after: Image) -> npt.NDArray[np.float32]:
    """Tiles of two volumes on one grid, grey levels of both brought to 0..1. Shape (k, j, i)."""
    tiles = [
        np.arange(n) * step // TILE_MM for n, step in zip(after.array.shape[:3], after.spacing_mm[::-1], strict=True)
    ]
    odd = (tiles[0][:, None, None] + tiles[1][None, :, None] + tiles[2][None, None, :]) % 2 == 1
    return np.where(odd, _levels(before.array), _levels(after.array)).astype(np.float32)


def _levels(array: npt.ArrayLike) -> npt.NDArray[np.float32]:
    values = np.abs(np.asarray(array)).astype(np.float32)
    top = float(np.percentile(values, 99.5))
    return np.clip(values / max(top, 1e-6), 0.0, 1.0)
