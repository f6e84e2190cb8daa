"""Page 1: whose operation it is, on which images and which plan."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import ctk
import slicer
from IntraopMRIReconstructionLib.errors import IntraopError, SessionError
from IntraopMRIReconstructionLib.scene.panel import ensurePackages
from slicer.i18n import tr as _

from ..display import spread
from ..parameters import Phase
from .nodes import PreparedCase, partOf, prepareCase, showSimulatedCase
from .page import Action, Page, Readiness, State, blocked, done
from .planned_lines import POINTS_OF_LINE, PlannedLines, plannedLines
from .style import sentence

#: Voxel sizes that are offered for simulated scans, in mm.
SIZES_MM = (1.0, 2.0)
#: Choices that make the plan.
PLAN_WIDGETS = (
    "preopVolume", "tumourSegmentation", "riskSegmentation", "plannedTarget", "plannedImplant", "implantDiameterMm",
    "implantMetal", "implantFolder", "implantTable", "plannedLandmarks", "earlierResults",
)  # fmt: skip


class CasePage(Page):
    """Identity, preoperative volume, tumour or implant; or a simulated case with one click."""

    phase = Phase.CASE
    uiFile = "CasePage.ui"

    def __init__(self, panel: Any) -> None:
        super().__init__(panel)
        self._seen: Any = None
        #: What was left at the earlier operation; why the chosen folder does not say it.
        self._earlier: Any = None
        self._noEarlier = ""
        self._said: State | None = None
        self.lines = PlannedLines(self)
        self._cases = [("brain", _("Brain tumour")), ("spine", _("Spine implant"))]
        for _key, name in self._cases:
            self.ui.simulationCaseBox.addItem(name)
        for size in SIZES_MM:
            self.ui.simulationSizeBox.addItem(_("{size} mm voxels").format(size=f"{size:g}"))
        self.ui.simulateButton.connect("clicked()", self.simulate)
        self.ui.earlierResults.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.earlierResults.connect("currentPathChanged(QString)", self._readEarlier)

    def state(self) -> State:
        """What is missing, in the order in which a person fills the page."""
        p = self.parameters
        if not p.patientId and not _sceneHolds("vtkMRMLScalarVolumeNode"):
            return blocked(
                _("Try it with a simulated patient; or load your own volume, then enter the patient's identifier.")
            )
        if not p.patientId:
            return blocked(_("Enter the patient's identifier: every image is compared with it."))
        if p.preopVolume is None:
            if not _sceneHolds("vtkMRMLScalarVolumeNode"):
                return blocked(_("Load the preoperative volume: DICOM or a file, with File > Add Data."))
            return blocked(_("Choose the preoperative volume."))
        if not self._hasPlan():
            return blocked(
                _("Choose the tumour (a segmentation) or the planned implant (a line): one of them is needed.")
            )
        if (line := self._incomplete()) is not None:
            return blocked(_("Place both points of '{name}', entry first, then tip.").format(name=line.GetName()))
        if p.tumourSegmentation is not None and (why := self._noBaseline()):
            return blocked(sentence(f"{why}."))
        if self.running.connected:
            return done(_("The plan is fixed while connected: disconnect on page 2 to change it."))
        return done(_("Patient, images and plan are complete."))

    def action(self) -> Action | None:
        """What the person has to enter next; the simulated theatre when there is nothing at all."""
        p = self.parameters
        if self.running.task is not None:
            return Action(_("Please wait"))
        loaded = _sceneHolds("vtkMRMLScalarVolumeNode")
        if not p.patientId:
            if not loaded:
                return Action(_("Start simulated theatre"), self.simulate)
            return self.pointTo(_("Enter the identifier"), "patientId")
        if p.preopVolume is None:
            if not loaded:
                return Action(_("Load the preoperative volume"), slicer.util.openAddDataDialog)
            return self.pointTo(_("Choose the volume"), "preopVolume")
        if self.state().readiness is Readiness.DONE:
            return None
        if self._incomplete() is not None:
            return Action(_("Place entry and tip"), self._place)
        if self._hasPlan():
            return self.pointTo(_("Choose the earlier result"), "earlierResults")
        line = _sceneHolds("vtkMRMLMarkupsLineNode") and not _sceneHolds("vtkMRMLSegmentationNode")
        return self.pointTo(_("Choose tumour or implant"), "plannedImplant" if line else "tumourSegmentation")

    def _place(self) -> None:
        """The next clicks into the views are the missing points of the implant's line."""
        logic = slicer.modules.markups.logic()
        logic.SetActiveList(self._incomplete())
        logic.StartPlaceMode(False)

    def _incomplete(self) -> Any:
        """The first planned line without both points; None when each has them."""
        lines = plannedLines(self.parameters)
        return next((line for line in lines if line.GetNumberOfControlPoints() < POINTS_OF_LINE), None)

    def _hasPlan(self) -> bool:
        """Whether there is anything to assess."""
        p = self.parameters
        plan = (p.tumourSegmentation, p.plannedImplant, p.riskSegmentation, p.plannedLandmarks, p.plannedCorrection)
        return any(node is not None for node in plan)

    def baseline(self) -> Any:
        """What was left at the earlier operation that was chosen; None without one.

        Raises SessionError when the chosen folder does not say it.
        """
        if self.parameters.tumourSegmentation is None:
            return None
        if why := self._noBaseline():
            raise SessionError(why)
        return self._earlier

    def _noBaseline(self) -> str:
        """Why the chosen folder is no earlier result of this patient, in words."""
        then, patient = self._earlier, self.parameters.patientId
        if then is not None and then.patient_id != patient:
            return _("the earlier result is of patient '{then}', not of '{now}': choose that of this patient").format(
                then=then.patient_id, now=patient
            )
        return self._noEarlier

    def isEarlier(self, folder: Path) -> bool:
        """Whether this is the folder of the earlier result."""
        chosen = self.ui.earlierResults.currentPath.strip()
        return bool(chosen) and Path(chosen).expanduser().resolve() == folder.resolve()

    def _readEarlier(self, path: str) -> None:
        from ...session.baseline import read_baseline

        self._earlier, self._noEarlier = None, ""
        if path.strip():
            try:
                self._earlier = read_baseline(Path(path).expanduser())
            except IntraopError as error:
                self._noEarlier = str(error)
        self.panel.refresh()

    def close(self) -> None:
        """The earlier result was of the patient of this scene."""
        self.ui.earlierResults.currentPath = ""

    def refresh(self) -> None:
        """Say how the plan was understood."""
        tumour = self.parameters.tumourSegmentation is not None
        self.ui.earlierLabel.visible = self.ui.earlierResults.visible = tumour
        for name in PLAN_WIDGETS:
            # The session keeps the plan that it began with: a choice made now would look as if it counted.
            getattr(self.ui, name).enabled = not self.running.connected
        self.ui.implantMetal.visible = self.ui.implantMetalLabel.visible = self.parameters.plannedImplant is not None
        self.lines.refresh()
        self.ui.simulateButton.enabled = not self.running.connected and self.running.task is None
        if self.running.theatre is not None:
            self.ui.simulateButton.text = _("Start another simulated theatre")
        self._showVolume()
        self._said = self.state()
        segmentation = self.parameters.tumourSegmentation
        if segmentation is None:
            self.ui.summaryLabel.text = ""
            return
        words = {1: _("enhancing tumour"), 2: _("necrosis"), 3: _("non-enhancing tumour")}
        segments = segmentation.GetSegmentation()
        names = [segments.GetNthSegment(index).GetName() for index in range(segments.GetNumberOfSegments())]
        lines = [_readAs(name, words[partOf(name)]) for name in names]
        said = ["; ".join(lines) or _("The tumour segmentation has no segment.")]
        if (then := self._earlier) is not None and not self._noBaseline():
            words = _("Earlier, {day}: residual {volume}")
            said.append(words.format(day=then.taken_utc[:10], volume=spread(then.volume)))
        self.ui.summaryLabel.text = "\n".join(said)

    def tick(self) -> None:
        """Points and segments are drawn in other modules and in the views."""
        if self.state() != self._said or self.lines.changed():
            self.panel.askRefresh()

    def enter(self) -> None:
        """Views that somebody has arranged, or that were loaded, stay as they are."""
        self._seen = self.parameters.preopVolume

    def _showVolume(self) -> None:
        """A volume that a person chooses here is seen at once: names of volumes are easily mistaken."""
        chosen, before = self.parameters.preopVolume, self._seen
        self._seen = chosen
        if chosen is not None and chosen is not before and not self.running.connected:
            slicer.util.setSliceViewerLayers(background=chosen, fit=True)

    def simulate(self) -> None:
        """Make a case and start its theatre in the background, then choose it here and on page 2."""
        try:
            ensurePackages("IntraopMRI")
        except IntraopError as error:
            self.running.problem = str(error)
            self.panel.refresh()
            return
        kind = self._cases[max(0, self.ui.simulationCaseBox.currentIndex)][0]
        size_mm = SIZES_MM[max(0, self.ui.simulationSizeBox.currentIndex)]
        options = self.panel.theatreOptions
        old, self.running.theatre = self.running.theatre, None

        def work() -> Any:
            if old is not None:
                old.stop()
            return startTheatre(kind, size_mm, options)

        self.running.start(_("preparing the simulated theatre"), work, self._started, lambda made: made[0].stop())

    def _started(self, made: Any) -> None:
        theatre, case = made
        self.running.theatre = theatre
        p = self.parameters
        if p is None:
            return  # the module was left meanwhile; the theatre waits for page 2
        with slicer.util.NodeModify(p):
            for part in ("scanner", "tracker", "live"):
                peer = getattr(p, part)
                peer.used, peer.host, peer.port = part in theatre.ports, "127.0.0.1", theatre.ports.get(part, 1)
        self.running.goOn(showSimulatedCase(case, p))


def _sceneHolds(nodeClass: str) -> bool:
    return slicer.mrmlScene.GetFirstNodeByClass(nodeClass) is not None


def startTheatre(kind: str, size_mm: float, options: dict[str, list[str]]) -> tuple[Any, PreparedCase]:
    """Make a case (``brain`` or ``spine``) and start its servers; no node is touched. Returns (theatre, case)."""
    from IntraopMRIReconstructionLib.simulate.case_files import read_case, write_case
    from IntraopMRIReconstructionLib.simulate.phantom import make_brain_case
    from IntraopMRIReconstructionLib.simulate.spine import make_spine_case
    from IntraopMRIReconstructionLib.simulate.theatre import Theatre

    folder = Path(tempfile.mkdtemp(prefix="theatre-", dir=slicer.app.temporaryPath))
    brain = make_brain_case(1, spacing_mm=size_mm) if kind == "brain" else None
    spine = make_spine_case(1, spacing_mm=size_mm) if kind == "spine" else None
    write_case(folder, brain, spine)
    prepared = prepareCase(read_case(folder))
    # Inside Slicer the running program is Slicer itself; its Python is a program of its own.
    python = shutil.which("PythonSlicer") or sys.executable
    servers = ("scanner", "tracker", "live") if kind == "brain" else ("scanner",)
    theatre = Theatre(folder, servers=servers, options=options, python=python)
    theatre.__enter__()
    return theatre, prepared


def _readAs(name: str, part: str) -> str:
    """What a segment of the tumour is taken for; its name alone when that says it."""
    return part if part.startswith(name.lower()) else _("{name}: read as {part}").format(name=name, part=part)
