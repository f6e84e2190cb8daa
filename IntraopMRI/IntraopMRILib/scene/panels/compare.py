"""Both volumes in the slice views: blended, as a checkerboard, flickering, or side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
from IntraopMRIReconstructionLib.geometry import resample_matrix
from slicer.i18n import tr as _

from ..parameters import Comparison
from .layouts import FOUR_UP, SIDE_BY_SIDE, show

#: Edge of a checkerboard tile in mm: wide enough to follow a sulcus across its edge.
TILE_MM = 15.0
#: One picture of a flicker lasts this long, s: slow enough to see what jumps.
FLICKER_S = 0.6


class Compare:
    """Keeps the composite nodes of the slice views as the page asks. Call :meth:`close` to leave nothing behind."""

    def __init__(self, running: Any) -> None:
        self._running = running
        self._mode = Comparison.BLEND
        self._blend = 0.5
        self._board: Any = None
        self._boardOf: tuple[str, str] | None = None

    def show(self, mode: Comparison, blend: float) -> None:
        """Use this comparison from now on."""
        if mode is not self._mode:
            show(SIDE_BY_SIDE if mode is Comparison.SIDE_BY_SIDE else FOUR_UP)
        self._mode, self._blend = mode, blend
        if mode is Comparison.CHECKERBOARD:
            self._makeBoard()
        self.apply()

    def tick(self, now_s: float) -> None:
        """Flicker."""
        if self._mode is Comparison.FLICKER:
            self._opacity(float(int(now_s / FLICKER_S) % 2))

    def apply(self) -> None:
        """Bring volumes and opacity into all slice views."""
        before, after = self._volumes()
        if after is None:
            return
        manager = slicer.app.layoutManager()
        for index, name in enumerate(manager.sliceViewNames()):
            composite = manager.sliceWidget(name).mrmlSliceCompositeNode()
            below, above = before, after
            if self._mode is Comparison.SIDE_BY_SIDE:
                below, above = (before, None) if index == 0 else (after, None)
            elif self._mode is Comparison.CHECKERBOARD and self._board is not None:
                below, above = self._board, None
            composite.SetBackgroundVolumeID(below.GetID() if below is not None else None)
            composite.SetForegroundVolumeID(above.GetID() if above is not None else None)
        self._opacity(self._blend)

    def close(self) -> None:
        """Remove the checkerboard."""
        self._removeBoard()

    def _volumes(self) -> tuple[Any, Any]:
        view = self._running.view
        if view is None:
            return None, None
        before = view.bridge.node("preop.volume")
        if before is not None and not before.GetDisplayVisibility():
            before = None
        return before, view.volume()

    def _opacity(self, value: float) -> None:
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames():
            composite = manager.sliceWidget(name).mrmlSliceCompositeNode()
            if composite.GetForegroundOpacity() != value:
                composite.SetForegroundOpacity(value)

    def _makeBoard(self) -> None:
        """Compute the checkerboard in the background, once for each pair of volumes."""
        before, after = self._volumes()
        found = self._running.registered
        if before is None or after is None or found is None:
            return
        pair = (before.GetID(), found.image.uid)
        if pair == self._boardOf:
            return
        preoperative, image = self._running.session.plan.preoperative, found.image
        transform = found.registration.intraop_from_preop

        def finished(array: Any) -> None:
            self._removeBoard()
            self._board = slicer.util.addVolumeFromArray(array, image.ras_from_ijk, _("Checkerboard"))
            self._board.CreateDefaultDisplayNodes()
            self._board.SetAttribute("IntraopMRI.temporary", "1")
            self._boardOf = pair
            self.apply()

        self._running.start(
            _("making the checkerboard"), lambda: checkerboard(preoperative, image, transform), finished
        )

    def _removeBoard(self) -> None:
        if self._board is not None and self._board.GetScene() is not None:
            slicer.mrmlScene.RemoveNode(self._board)
        self._board, self._boardOf = None, None


def checkerboard(before: Any, after: Any, intraop_from_preop: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Tiles of ``after`` and of ``before`` resampled to it, grey levels of both brought to 0..1. Shape (k, j, i)."""
    from scipy import ndimage

    preop_from_intraop = np.linalg.inv(np.asarray(intraop_from_preop))
    matrix = resample_matrix(after.ras_from_ijk, before.ras_from_ijk, preop_from_intraop)
    reverse = np.ix_([2, 1, 0], [2, 1, 0])
    resampled = ndimage.affine_transform(
        np.asarray(before.array, dtype=np.float32),
        matrix[:3, :3][reverse],
        matrix[:3, 3][::-1],
        output_shape=after.array.shape[:3],
        order=1,
    )
    tiles = [
        np.arange(n) * step // TILE_MM for n, step in zip(after.array.shape[:3], after.spacing_mm[::-1], strict=True)
    ]
    odd = (tiles[0][:, None, None] + tiles[1][None, :, None] + tiles[2][None, None, :]) % 2 == 1
    return np.where(odd, _levels(resampled), _levels(after.array)).astype(np.float32)


def _levels(array: npt.ArrayLike) -> npt.NDArray[np.float32]:
    values = np.abs(np.asarray(array)).astype(np.float32)
    top = float(np.percentile(values, 99.5))
    return np.clip(values / max(top, 1e-6), 0.0, 1.0)
