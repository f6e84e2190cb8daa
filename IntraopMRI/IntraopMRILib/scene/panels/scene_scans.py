"""Rows on page 4: a volume of the scene, loaded from DICOM or a file or made from raw data, becomes a scan.

From here it goes the way of one that the scanner has sent: the session checks it, registers it and assesses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import slicer
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import IntraopError, SessionError
from IntraopMRIReconstructionLib.scene.attributes import PATIENT_ATTRIBUTE, PROVENANCE_ATTRIBUTE
from IntraopMRIReconstructionLib.scene.task import BackgroundTask
from slicer.i18n import tr as _

from ...dicom_series import read_known
from ...scan_facts import FRAME, TAKEN_FROM, DicomFacts, local_text, local_utc_s
from ...session.updates import Role
from ..scan_nodes import BY_HAND, INSTANCES, dicomFiles, isByHand, remember, roleOf, scanOf, takenOf
from .page import Action, offer

#: What is offered, in this order; the first says that nobody has chosen yet.
ROLES: tuple[Role | None, ...] = (None, "native", "contrast")


class SceneScans:
    """Adds itself to ``layout`` of ``page`` at a place; its widgets are bound with those of the page."""

    def __init__(self, page: Any, layout: Any, place: int) -> None:
        self._page, self._running = page, page.running
        self._widget = slicer.util.loadUI(page.panel.resourcePath("UI/SceneScans.ui"))
        self.ui = slicer.util.childWidgetVariables(self._widget)
        self._widget.setMRMLScene(slicer.mrmlScene)
        layout.insertWidget(place, self._widget)
        vars(page.ui).update(vars(self.ui))
        names = {
            None: _("Contrast agent?"),
            "native": _("Without contrast agent"),
            "contrast": _("With contrast agent"),
        }
        for role in ROLES:
            self.ui.sceneScanRoleBox.addItem(names[role])
        self.ui.sceneScanRoleBox.connect("currentIndexChanged(int)", lambda _index: page.panel.askRefresh())
        self.ui.sceneScanTakenEdit.connect("textChanged(QString)", lambda _text: page.panel.askRefresh())
        self.ui.sceneScanButton.connect("clicked()", self.use)
        self._node: Any = None
        self._known = ""
        self._header = DicomFacts()
        self._headerProblem = ""
        #: Headers that contradict one another are no reason to ask a person: the volume is not used.
        self._contradiction: SessionError | None = None
        self._reading: BackgroundTask | None = None
        self._opened: bool | None = None
        #: Session, node, role and entered time that were used last.
        self._used: tuple[Any, ...] = ()

    @property
    def role(self) -> Role | None:
        """Which scan the volume is to be; None while nobody has said."""
        return ROLES[max(0, self.ui.sceneScanRoleBox.currentIndex)]

    def action(self) -> Action | None:
        """The next useful thing without a scanner; None when the chosen volume is used already."""
        pointTo, plan = self._page.pointTo, self._running.session.plan
        if self._node is None or self._node is self._page.parameters.preopVolume:
            return pointTo(_("Choose a scan"), "sceneScan") if self._running.image is None else None
        if self._used == self._now():
            return None if self._running.image is not None else Action(_("Please wait"))
        if self.role is None:
            return pointTo(_("Say whether contrast agent was given"), "sceneScanRoleBox")
        if plan.tumour is not None and self._reading is None and not self.ui.sceneScanTakenEdit.text.strip():
            # Who does not know it has the button below.
            return pointTo(_("Enter when it was taken"), "sceneScanTakenEdit")
        return Action(_("Use as scan"), self.use)

    def wanted(self) -> str:
        """What a person has to choose among the volumes of the scene for a residual; empty when nothing."""
        if self._running.image is None and self._running.session.plan.tumour is None:
            return _("Choose the scan among the scene's volumes.")
        if self._running.image is None:
            return _("Choose the scan without contrast agent, then the one with it, among the scene's volumes.")
        if self._running.session.plan.tumour is None or self._running.residual is not None:
            return ""
        if self._running.image.role == "native":
            return _("For a residual choose the scan with contrast agent next.")
        return _("For a residual choose the scan without contrast agent as well, each with its time.")

    def _now(self) -> tuple[Any, ...]:
        return self._running.session, self._node, self.role, self.ui.sceneScanTakenEdit.text

    def refresh(self) -> None:
        """Follow the chosen volume; say what is known of it."""
        node = self._page.parameters.sceneScan
        if node is not self._node or _content(node) != self._known:
            self._choose(node)
        hasScanner = self._running.hasScanner
        open_ = not hasScanner and not self._running.confirmed
        if self._running.connected and open_ is not self._opened:
            # Once, at the time when it is needed; afterwards as the person folds it.
            self._opened, self.ui.sceneScanSection.collapsed = open_, not open_
            text = _("... or use a volume from the scene") if hasScanner else _("Scans among the scene's volumes")
            self.ui.sceneScanSection.text = text
        offer(
            self.ui.sceneScanButton,
            "" if self._running.connected else _("go on without a scanner on page 2 first"),
            _("choose a volume first") if node is None else "",
            _("say whether contrast agent was given") if self.role is None else "",
            "" if self._running.task is None and self._reading is None else _("other work is under way"),
        )
        self.ui.sceneScanRoleBox.enabled = self.ui.sceneScanTakenEdit.enabled = node is not None
        self.ui.sceneScanLabel.text = "" if node is None else self._words(node)
        self.ui.sceneScanLabel.visible = node is not None

    def tick(self) -> None:
        """Take in the header when it has been read."""
        reading = self._reading
        if reading is not None and reading.poll() and self._reading is reading:
            self._reading = None
            self._page.panel.askRefresh()

    def close(self) -> None:
        """The panel or its scene goes away."""
        self._choose(None)
        self._used = ()

    def use(self) -> None:
        """Hand the chosen volume to the session; what is wrong with it is said, and nothing changes then."""
        node, role, session = self._page.parameters.sceneScan, self.role, self._running.session
        if node is None or _content(node) != self._known:
            self._page.panel.refresh()  # what was said of it belongs to what it held before
            return
        try:
            image = self._told(scanOf(node))
        except IntraopError as error:
            self._running.problem = str(error)
            self._page.panel.refresh()
            return
        assert role is not None
        remember(node, image, role)
        what, now = _("checking '{name}'").format(name=node.GetName()), self._now()
        self._running.start(what, lambda: session.offer_scan(image, role), lambda _nothing: self._taken(now))

    def _taken(self, used: tuple[Any, ...]) -> None:
        self._used = used

    def _told(self, image: Image) -> Image:
        """The image with what its DICOM header and the person say. Raises SessionError for a time that is none."""
        if self._contradiction is not None:
            raise self._contradiction
        header = self._header
        taken, source = image.acquired_utc_s, image.metadata.get(TAKEN_FROM, "")
        if header.taken_utc_s is not None:
            taken, source = header.taken_utc_s, header.taken_from
        elif isByHand(self._node):
            taken = local_utc_s(self.ui.sceneScanTakenEdit.text)
            source = "" if taken is None else BY_HAND
        return replace(
            image,
            name=header.series or image.name,
            acquired_utc_s=taken,
            patient_id=header.patient_id or image.patient_id,
            metadata={**image.metadata, **header.metadata, TAKEN_FROM: source or _("unknown")},
        )

    def _choose(self, node: Any) -> None:
        self._node, self._known, self._header, self._headerProblem = node, _content(node), DicomFacts(), ""
        self._contradiction = None
        if self._reading is not None:
            self._reading.abandon()
            self._reading = None
        self._showKnown()
        files = {} if node is None else dicomFiles(node)
        if files:
            what = _("reading the DICOM header")
            self._reading = BackgroundTask(what, lambda: _facts(files), self._read, self._unreadable)

    def _read(self, found: tuple[DicomFacts, SessionError | None]) -> None:
        self._header, self._contradiction = found
        self._headerProblem = str(self._contradiction or "")
        self._showKnown()

    def _unreadable(self, sentence: str) -> None:
        self._headerProblem = sentence

    def _showKnown(self) -> None:
        """Role and time as far as they are known; a time that the scanner tells is not to be typed over."""
        node, header = self._node, self._header
        known = None if node is None else roleOf(node)
        if known is None and header.agent:
            known = "contrast"
        if known is None and header != DicomFacts():
            known = self.role  # what a person has said meanwhile
        self.ui.sceneScanRoleBox.currentIndex = ROLES.index(known)
        taken = header.taken_utc_s
        byHand = node is None or (taken is None and isByHand(node))
        if taken is None and node is not None:
            taken = takenOf(node)
        self.ui.sceneScanTakenEdit.text = "" if taken is None else local_text(taken)
        self.ui.sceneScanTakenEdit.readOnly = not byHand

    def _words(self, node: Any) -> str:
        if self._reading is not None:
            return _("Reading the DICOM header ...")
        header = self._header
        lines = [self._headerProblem] if self._headerProblem else []
        if header != DicomFacts():
            lines.append(
                _("DICOM: patient {patient}, '{series}', contrast agent: {agent}").format(
                    patient=header.patient_id or "?", series=header.series, agent=header.agent or _("none named")
                )
            )
            lines += self._frameWords(header)
            if header.source_unknown:
                lines.append(_("DICOM objects will refer to a copy of it: {why}.").format(why=header.source_unknown))
        elif node.GetAttribute(PROVENANCE_ATTRIBUTE + "method"):
            method = node.GetAttribute(PROVENANCE_ATTRIBUTE + "method")
            lines.append(_("Reconstructed from raw data: {method}.").format(method=method))
        elif node.GetAttribute(INSTANCES):
            lines.append(_("Its DICOM files are not in this computer's database: enter what they say."))
        if not (header.patient_id or node.GetAttribute(PATIENT_ATTRIBUTE)):
            lines.append(_("Nothing says whose scan this is: make sure that it is this patient's."))
        tumour = self._page.parameters.tumourSegmentation is not None
        if tumour and not self.ui.sceneScanTakenEdit.text.strip():
            lines.append(_("Without the time at which it was taken no residual is given."))
        return "\n".join(lines)

    def _frameWords(self, header: DicomFacts) -> list[str]:
        """Whether the scanner says that the patient lay as in the newest scan; registration verifies it."""
        newest = self._running.image
        before = "" if newest is None else newest.image.metadata.get(FRAME, "")
        if not before or not header.frame_uid:
            return []
        if before == header.frame_uid:
            return [_("Same frame of reference as the scan before; the registration verifies it.")]
        return [_("Another frame of reference than the scan before: the patient was positioned anew.")]


def _facts(files: Mapping[str, Path | None]) -> tuple[DicomFacts, SessionError | None]:
    """What the headers say together, or how they contradict one another. Raises DataError when none can be read."""
    try:
        return read_known(files), None
    except SessionError as error:
        return DicomFacts(), error


def _content(node: Any) -> str:
    """What a volume was made from: raw data that are reconstructed anew go into the same node."""
    return "" if node is None else node.GetAttribute(PROVENANCE_ATTRIBUTE + "input_sha256") or ""
