"""Beside the measure of non-enhancing tumour: the software proposes an outline, which a person reviews and corrects."""

from __future__ import annotations

from html import escape
from typing import Any

import slicer
from IntraopMRIReconstructionLib.data import Progress
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from ...session.measures import PROPOSED
from .. import colors, conversion, looks, recipes
from ..display import Line
from ..scan_nodes import scanOf
from .page import offer
from .style import CHECK, colored

#: Name of its segment, which the Segment Editor and the data tree show.
SEGMENT = "proposal"


class ProposeButton:
    """The button and both volumes of a :class:`.measure.MeasureSection`. What it made goes with its scan."""

    def __init__(self, section: Any, page: Any) -> None:
        self._section, self._page, self._running, self._ui = section, page, page.running, section.ui
        self._ui.proposeButton.connect("clicked()", self.propose)
        #: The proposal with the uid of its registered scan, its nodes (likely, cannot be told, and its scan where that
        #: was laid on the registered one), and what it rests on.
        self._of, self._restsOn = "", ""
        self._nodes: list[Any] = []
        self._task: Any = None
        #: What a person has made of the last one.
        self._kept: Any = None

    def refresh(self, kind: str, uid: str) -> None:
        """Offer it for its kind of measure; hide what belongs to an older scan."""
        ui, shown = self._ui, kind == PROPOSED
        for name in ("measureScan", "measureFlair"):
            getattr(ui, name).visible = getattr(ui, f"{name}Label").visible = shown
        ui.proposeButton.visible = shown
        if self._of and self._of != uid:
            self._outdated()
        offer(
            ui.proposeButton,
            self._running.untrustedBecause,
            "" if self._running.task is None else _("other work is under way"),
        )

    def words(self, kind: str) -> str:
        """What a person has to do with the proposal; empty without one that waits for that."""
        if kind != PROPOSED:
            return ""
        if self._task is not None and self._task is self._running.task:
            return str(colored(_("Looking for what is left ..."), CHECK, 13))
        if not self._of:
            return ""
        text = _("Proposal, reviewed by nobody: correct it in the Segment Editor, then Measure.")
        lines = [str(colored(text, CHECK, 13)), escape(_("It rests on {what}").format(what=self._restsOn))]
        for laid in self._nodes[2:]:
            moved = _("The patient has moved between both scans: review it on '{scan}'.").format(scan=laid.GetName())
            lines.insert(1, str(colored(moved, CHECK, 13)))
        return "<br>".join(lines)

    def legend(self) -> tuple[Line, ...]:
        """What its outline is, for the views; empty while none is there."""
        if self._nodes:
            return (Line(_("Proposal, not reviewed"), color=colors.PROPOSED, bold=True),)
        kept = self._kept
        if kept is None or kept.GetScene() is None or not kept.GetDisplayVisibility():
            return ()
        return (Line(kept.GetName(), color=colors.PROPOSED, bold=True),)

    def propose(self) -> None:
        """Let the software outline it in the background; a reason why not is said on the page."""
        parameters, session = self._page.parameters, self._running.session
        try:
            nodes = parameters.measureScan, parameters.measureFlair
            scan, flair = (None if node is None else scanOf(node) for node in nodes)
        except IntraopError as error:
            self._running.problem = str(error)
            self._page.panel.refresh()
            return
        uid = self._running.registered.image.uid

        def work(progress: Progress) -> Any:
            proposal = session.propose(scan, flair, progress)
            names = (_("proposed, not reviewed"), _("cannot be told"))
            laid = None
            if scan is not None and proposal.scan is not scan:
                name = _("{scan}, laid on the registered scan").format(scan=scan.name)
                laid = recipes.volume(proposal.scan, name)
            return (
                proposal,
                laid,
                [
                    conversion.segmentationOf(label, {1: (SEGMENT, name, colors.PROPOSED)})
                    for label, name in zip((proposal.label, proposal.open), names, strict=True)
                ],
            )

        if (task := self._running.startTold(_("proposal"), work, lambda made: self._show(uid, *made))) is not None:
            self._forget()
            self._task = task

    def reviewed(self, node: Any) -> None:
        """A person has measured by ``node``: when it is the proposal, it is one no more."""
        if not self._nodes or node is not self._nodes[0]:
            return
        node.SetName(_("Non-enhancing tumour, reviewed"))
        segment = node.GetSegmentation().GetSegment(SEGMENT)
        if segment is not None:
            segment.SetName(_("non-enhancing"))
        # What it was reviewed on stays.
        slicer.mrmlScene.RemoveNode(self._nodes[1])
        self._kept, self._of, self._nodes, self._restsOn = node, "", [], ""

    def _show(self, uid: str, proposal: Any, laid: Any, segmentations: list[Any]) -> None:
        registered = self._running.registered
        if registered is None or registered.image.uid != uid:
            return
        names = (_("Proposal, not reviewed"), _("Cannot be told: made bright by surgery, or left"))
        reference = self._page.parameters.measureScan or self._running.view.volume()
        if laid is not None:
            # The patient has moved since: on the volume as it was chosen, the outline would not lie where it belongs.
            reference = slicer.mrmlScene.AddNewNodeByClass(laid.nodeClass, laid.name)
            reference.CreateDefaultDisplayNodes()
            laid.fill(reference)
        for name, segmentation, thickness in zip(names, segmentations, (3, 1), strict=True):
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            node.SetAndObserveSegmentation(segmentation)
            node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
            node.CreateDefaultDisplayNodes()
            looks.proposed(node, thickness)
            self._nodes.append(node)
        if laid is not None:
            self._nodes.append(reference)
        self._of, self._restsOn = uid, proposal.rests_on
        self._page.parameters.measureOutline = self._nodes[0]
        self._page.panel.askRefresh()

    def _outdated(self) -> None:
        """A newer scan came, or the session ended: what was proposed says nothing of what is shown now."""
        if self._page.parameters.measureOutline is self._nodes[0]:
            self._page.parameters.measureOutline = None
        self._forget()

    def _forget(self) -> None:
        for node in self._nodes:
            if node.GetScene() is not None:
                slicer.mrmlScene.RemoveNode(node)
        self._of, self._nodes, self._restsOn = "", [], ""
