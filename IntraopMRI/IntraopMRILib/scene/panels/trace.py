"""The skin that was traced with the pointer, fitted to the skin in the newest scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Pose
from slicer.i18n import tr as _
from vtkmodules.util.numpy_support import vtk_to_numpy

from .. import conversion
from .page import Action, offer
from .style import LEVEL_COLORS, colored

#: Traced points are this far apart, mm: a pointer that rests must not outweigh the rest of the face.
STEP_MM = 2.0
#: Points that are asked for: a handful on every side of nose, brow, cheeks and ears.
WANTED = 150
#: Grid on which the skin is found in the scan, mm: the nose keeps its shape.
SKIN_MM = 1.5


class SkinTrace:
    """Collects the trace and fits it. ``page`` has the widgets and the registration to start from."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._tips: list[npt.NDArray[np.float64]] = []
        self._tracing = False
        self.found: Any = None
        page.ui.traceButton.connect("clicked()", self.toggle)
        page.ui.clearTraceButton.connect("clicked()", self.clear)
        page.ui.fitButton.connect("clicked()", self.fit)

    @property
    def usable(self) -> bool:
        """Whether a fit may be used."""
        return self.found is not None and self.found.verdict.level is not Level.REFUSED

    def toggle(self) -> None:
        """Begin to trace, or pause."""
        self._tracing = not self._tracing
        self._page.panel.refresh()

    def clear(self) -> None:
        """Forget the trace, and the registration that came of it."""
        self.forget()
        self._page.withdraw()

    def forget(self) -> None:
        """As before the first point."""
        self._tips.clear()
        self._tracing, self.found = False, None

    def poseArrived(self, tip: Pose) -> None:
        """The tip in the tracker's frame."""
        if not self._tracing or not tip.valid:
            return
        place = np.array(tip.tip_ras_mm)
        if not self._tips or np.linalg.norm(place - self._tips[-1]) >= STEP_MM:
            self._tips.append(place)

    def fit(self) -> None:
        """Find the skin in the newest scan and fit the trace to it, in the background."""
        from ...register.surface import register_surface

        why = self.missing()
        if why:
            self._page.running.problem = why
            self._page.panel.refresh()
            return
        self._tracing = False
        image, initial, tips = self._page.running.image.image, self._page.start, np.array(self._tips)

        def work() -> Any:
            points, normals = skin(image)
            return register_surface(tips, points, normals, initial)

        def finished(found: Any) -> None:
            self.found = found
            self._page.panel.askRefresh()

        self._page.running.start(_("fitting the skin trace"), work, finished)

    def missing(self) -> str:
        """What has to be done before the trace can be fitted; empty when nothing."""
        if self._page.running.image is None:
            return _("Scan first: the skin is taken from the newest scan.")
        if self._page.start is None:
            return _("Touch at least three known points first: the trace starts from them.")
        if len(self._tips) < WANTED:
            return _("Trace nose, brow, cheeks and ears: {count} of {wanted} points.").format(
                count=len(self._tips), wanted=WANTED
            )
        return ""

    def action(self) -> Action | None:
        """The next step while a trace is under way."""
        if self.usable and not self._page.isUsed(self.found):
            return Action(_("Use this trace"), lambda: self._page.use(self.found))
        if not self._tracing:
            return None
        return Action(_("Trace the skin")) if self.missing() else Action(_("Fit the trace"), self.fit)

    def summary(self) -> str:
        """The fit in words, for the record."""
        return _("{verdict}. Mean distance {mean:.2f} mm over {count} points, weakest direction {hold:.2f}").format(
            verdict=self.found.verdict.text, mean=self.found.mean_mm, count=len(self._tips), hold=self.found.hold
        )

    def refresh(self) -> None:
        """Buttons and words."""
        ui = self._page.ui
        ui.traceButton.text = _("Pause") if self._tracing else _("Go on") if self._tips else _("Trace")
        ui.traceButton.enabled = self._tracing or (
            self._page.running.tipPose is not None and self._page.start is not None
        )
        ui.clearTraceButton.enabled = bool(self._tips)
        busy = "" if self._page.running.task is None else _("other work is under way")
        offer(ui.fitButton, self.missing().rstrip("."), busy)
        self.tick()

    def tick(self) -> None:
        """How far the trace is."""
        ui = self._page.ui
        if self.found is None:
            words = self.missing() or _("{count} points: fit them.").format(count=len(self._tips))
        else:
            words = colored(self.summary(), LEVEL_COLORS[self.found.verdict.level], 13)
        if ui.traceLabel.text != words:
            ui.traceLabel.text = words
        ui.traceBar.value = round(100 * min(1.0, len(self._tips) / WANTED))


def skin(image: Image) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Points and unit normals (n, 3) of the skin in ``image``, RAS mm. In any thread."""
    mesh = conversion.anatomySurface(image, SKIN_MM)
    points = vtk_to_numpy(mesh.GetPoints().GetData()).astype(np.float64)
    return points, vtk_to_numpy(mesh.GetPointData().GetNormals()).astype(np.float64)
