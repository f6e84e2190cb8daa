"""A row on page 4: another program registers the same images, and where it disagrees with ours neither is trusted.

Nothing that is shown moves. The result belongs to one registration and goes with it.
"""

from __future__ import annotations

import shutil
import sys
from typing import Any

from IntraopMRIReconstructionLib.data import Image, Measurement, Progress
from IntraopMRIReconstructionLib.errors import IntraopError, RegistrationError
from IntraopMRIReconstructionLib.scene.panel import install
from slicer.i18n import tr as _

from ...register.engines import (
    REQUIREMENT,
    disagreement_summary,
    greedy_available,
    greedy_disagreement,
    poses_disagreement,
)
from .. import recipes
from ..brainsfit import BrainsfitRun, brainsfitAvailable
from ..display import number
from ..parameters import ShiftMap
from .page import offer

OURS, GREEDY, BRAINSFIT = "ours", "greedy", "BRAINSFit"


class CrossCheck:
    """Engine, run, result. Call :meth:`refresh` whenever something changed."""

    def __init__(self, page: Any) -> None:
        self._page, self._ui = page, page.ui
        self._engines = [OURS, GREEDY, *((BRAINSFIT,) if brainsfitAvailable() else ())]
        names = {
            OURS: _("None (ours alone)"),
            GREEDY: _("greedy, brain shift"),
            BRAINSFIT: _("BRAINSFit, rigid pose"),
        }
        for engine in self._engines:
            self._ui.engineBox.addItem(names[engine])
        self._ui.engineBox.connect("currentIndexChanged(int)", lambda _index: self.refresh())
        self._ui.crossCheckButton.connect("clicked()", self.run)
        #: The shift that was checked, and what came of it.
        self._of: Any = None
        self._found: tuple[Measurement, ...] = ()
        self._task: Any = None

    @property
    def found(self) -> tuple[Measurement, ...]:
        """95th percentiles for the registration that is shown now; empty when it was not checked."""
        return self._found if self._of is not None and self._of is self._page.running.shift else ()

    def words(self) -> str:
        """What was found, in one line; empty when nothing was."""
        known = [m for m in self.found if m.value is not None]
        if not known:
            return ""
        engine = known[0].name.partition(",")[0]
        places = [f"{number(m.value or 0.0, m.unit)} {m.name.partition(', ')[2]}" for m in known]
        return _("{engine}, p95: {places}").format(engine=engine, places=", ".join(places))

    @property
    def _engine(self) -> str:
        return self._engines[max(0, self._ui.engineBox.currentIndex)]

    def refresh(self) -> None:
        """What can be run, and the result of the registration that is shown."""
        running = self._page.running
        if self._of is not running.shift and self._of is not None:
            # A new image: what still runs belongs to one that is gone.
            if self._task is not None and self._task is running.task:
                running.cancel()
            self._of, self._found, self._task = None, (), None
        busy = self._task is not None and self._task is running.task
        ready = running.shift is not None and running.view is not None and running.view.followsShift
        self._ui.engineBox.enabled = ready and not busy
        offer(
            self._ui.crossCheckButton,
            "" if ready else _("it needs a registration that follows the brain shift"),
            "" if running.task is None else _("other work is under way"),
            _("choose another program first") if self._engine == OURS else "",
        )
        text = ""
        if not ready:
            text = _("Needs a registration that follows the brain shift.")
        elif busy:
            text = _("Runs in the background; nothing that is shown moves.")
        elif self.found:
            text = self.words()
        self._ui.crossCheckLabel.text = text
        self._ui.crossCheckLabel.visible = bool(text)
        self._ui.crossCheckLabel.toolTip = "\n".join(m.definition for m in self.found)

    def tick(self) -> None:
        """Progress."""
        if self._task is not None and self._task is self._page.running.task:
            self._page.panel.askRefresh()

    def run(self) -> None:
        """Let the chosen engine work in the background; a missing one is installed when the person agrees."""
        running, engine = self._page.running, self._engine
        if running.shift is None or engine == OURS:
            return
        try:
            if engine == GREEDY:
                if not greedy_available():
                    install([REQUIREMENT], "IntraopMRI")
                self._startGreedy(running)
            else:
                self._startBrainsfit(running)
        except IntraopError as error:
            running.problem = str(error)
        self._page.panel.refresh()

    def _startGreedy(self, running: Any) -> None:
        shift, preop = running.shift, running.session.plan.preoperative
        # Inside Slicer the running program is Slicer itself; its Python is a program of its own.
        python = shutil.which("PythonSlicer") or sys.executable

        def work(progress: Progress) -> Any:
            distance = greedy_disagreement(shift.image, preop, shift.deformable, progress=progress, python=python)[1]
            return distance, recipes.disagreement(distance, shift.deformable)

        what = _("cross-check with {engine}").format(engine=GREEDY)
        if (task := running.startTold(what, work, lambda made: self._show(GREEDY, *made))) is not None:
            self._of, self._found, self._task = shift, (), task

    def _startBrainsfit(self, running: Any) -> None:
        shift, bridge = running.shift, running.view.bridge
        nodes = (running.view.volume(), bridge.node("preop.volume"))

        def finished(pose: Any) -> None:
            distance = poses_disagreement(shift.deformable, pose)
            self._show(BRAINSFIT, distance, recipes.disagreement(distance, shift.deformable))

        def failed(sentence: str) -> None:
            running.problem = sentence

        if running.task is not None:
            raise RegistrationError(_("Still busy: {what}. Wait or cancel.").format(what=running.task.what))
        what = _("cross-check with {engine}").format(engine=BRAINSFIT)
        self._of, self._found = shift, ()
        self._task = running.task = BrainsfitRun(bridge.scene, *nodes, shift.deformable.intraop_from_preop, what)
        self._task.tell(finished, failed)

    def _show(self, engine: str, distance: Image, drawn: Any) -> None:
        running = self._page.running
        if self._of is None or self._of is not running.shift or running.view is None or not running.view.followsShift:
            return
        self._found = disagreement_summary(distance, self._of.deformable, engine)
        for measurement in self._found:
            running.session.journal.measurement(measurement)
        running.view.bridge.setBrainShift(drawn)
        self._page.parameters.shiftMap = ShiftMap.DISAGREEMENT
