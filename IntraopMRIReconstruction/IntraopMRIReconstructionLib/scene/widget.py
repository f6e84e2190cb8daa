"""The reconstruction panel: one source in, one volume out, with the method and its reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..data import READ_AS, READ_ONLY, Encoding, Image, assumed_geometry
from ..errors import IntraopError
from ..reconstruct.methods import Seen
from ..reconstruct.quantities import combined_by
from ..reconstruct.quantity_image import DEFINITION, QUANTITY, UNIT
from ..reconstruct.result import LEFT_OUT, Reconstruction
from .attributes import PROVENANCE_ATTRIBUTE
from .choices import offer, viewAngle, wantedFrom
from .look import nextButton, notice
from .news import Asked, Dropped, Failed, News, Previewed, Progressed, Received, Streamed
from .panel import Panel, ensurePackages
from .parameters import Source
from .reception import Reception
from .results import ResultNodes

#: How often the main thread looks for news, ms: part of what passes between the last line and the picture.
TICK_MS = 5
#: How units end the names of parameters, and how they are written.
UNITS = {"c": "°C", "ms": "ms", "hz": "Hz", "t": "T", "rad": "rad", "mm": "mm", "s": "s", "deg": "°"}
#: Widgets of the form that belong to one source.
SOURCE_ROWS = {
    Source.SCANNER: ("scannerLabel", "host", "port", "peerLabel", "peer"),
    Source.MRD: ("listenLabel", "listenHost", "listenPort"),
    Source.FILE: ("recordingLabel", "recording"),
}


class ReconstructionPanel(Panel):
    """Source, what was recognised, method with its reason, preview, compare."""

    def __init__(self, uiPath: str, logic: Any, isShown: Callable[[], bool]) -> None:
        super().__init__(uiPath, logic, isShown)
        self.reception: Reception | None = None
        self.encoding: Encoding | None = None
        self.result: Reconstruction | None = None
        #: What the lines of the present scan have shown.
        self.seen: Seen | None = None
        self.progress: tuple[float, str] | None = None
        self.problem = ""
        #: What a file leaves open; what is answered holds for that reading of that file alone and is saved nowhere.
        self.asked: Asked | None = None
        self.latencyMs: float | None = None
        #: Whether the source still worked when its news were last taken: what it has told since is not shown yet.
        self._busy = False
        self._nodes = ResultNodes()
        self.ui.connectButton.connect("clicked()", self.toggle)
        self.ui.nextButton.connect("clicked()", self._onNext)
        self.ui.cancelButton.connect("clicked()", self._onCancel)
        #: Whether its next step is the one prominent action of what is on the screen.
        self.prominent = True
        self.ui.answerBox.connect("currentIndexChanged(int)", lambda _index: self.refresh())
        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def cleanup(self) -> None:
        """End thread and timer."""
        self._timer.stop()
        self._timer.disconnect("timeout()", self._tick)
        self._end()
        super().cleanup()

    def sceneAboutToChange(self) -> None:
        """What is on the way belongs to a scene that goes."""
        self._end()
        self._nodes = ResultNodes()

    def refresh(self) -> None:
        """Show source, scan, method and the next action."""
        p = self.parameters
        if p is None or not hasattr(self, "_timer"):
            return
        if self.suited():
            self.ui.nextButton.setStyleSheet(nextButton(self.suited.scale) if self.prominent else "")
            self.ui.assumedLabel.setStyleSheet(notice(12 * self.suited.scale))
        for source, names in SOURCE_ROWS.items():
            for name in names:
                getattr(self.ui, name).visible = p.source is source
                getattr(self.ui, name).enabled = self.reception is None or name.endswith("Label")
        self.ui.source.enabled = self.reception is None
        # To open it is the one next step, above: a second button for it would only raise the question which.
        self.ui.connectButton.text, self.ui.connectButton.visible = _("Close"), self.reception is not None
        self.ui.recognisedLabel.text = self._recognised()
        if self.asked is not None and (p.source is not Source.FILE or p.recording != self.asked.path):
            self.asked = None
        self.ui.answerBox.visible = self.asked is not None
        assumed = "" if self.encoding is None else assumed_geometry(self.encoding.metadata)
        self.ui.assumedLabel.visible = bool(assumed)
        self.ui.assumedLabel.text = _("Orientation {assumed}. No session takes this image.").format(assumed=assumed)
        offer(self.ui, p, self.encoding, self.seen)
        self.ui.methodReasonLabel.text = self._rests()
        self.ui.methodReasonLabel.toolTip = self._meanings()
        self.ui.latencyLabel.visible = self.latencyMs is not None
        if self.latencyMs is not None:
            self.ui.latencyLabel.text = _("{ms} ms after its last line").format(ms=f"{self.latencyMs:.0f}")
        self.ui.progressBar.visible = self.ui.cancelButton.visible = self.progress is not None
        self._showProgress()
        text, work, why = self._next()
        self.ui.nextButton.text, self.ui.nextButton.enabled = text, work is not None
        self.ui.whyLabel.text = self.problem or why
        self._compare()

    def toggle(self) -> None:
        """Open the source, or close it."""
        if self.reception is not None:
            self._end()
        else:
            self._begin({})
        self.refresh()

    def _begin(self, answers: Mapping[str, int | str]) -> None:
        p = self.parameters
        self.problem, self.asked = "", None
        try:
            ensurePackages("IntraopMRIReconstruction")
            reception = Reception(wantedFrom(p), p.livePreview)
            if p.source is Source.SCANNER:
                reception.listen(p.host, p.port, p.peer.value)
            elif p.source is Source.MRD:
                reception.serve(p.listenHost, p.listenPort)
            else:
                reception.read(p.recording, answers)
        except IntraopError as error:
            self.problem = str(error)
        else:
            self.reception, self._busy = reception, True

    def _answer(self) -> None:
        """Read the file as it was chosen."""
        asked = self.asked
        assert asked is not None
        value = asked.open.values[self.ui.answerBox.currentIndex - 1]
        self._begin({**asked.answers, asked.open.option: value})

    def again(self) -> None:
        """Make of the last scan what is chosen now."""
        if self.reception is None:
            return
        try:
            self.reception.wanted = wantedFrom(self.parameters)
        except IntraopError as error:
            self.problem = str(error)
            return
        self.problem, self._busy = "", True
        self.reception.again()

    # inside

    def _onParametersModified(self, caller: Any, event: Any) -> None:
        # What is chosen while a scanner is connected holds from its next scan on.
        if self.reception is not None and self.parameters is not None:
            try:
                self.reception.wanted = wantedFrom(self.parameters)
            except IntraopError as error:
                self.problem = str(error)
        super()._onParametersModified(caller, event)

    def _next(self) -> tuple[str, Callable[[], None] | None, str]:
        p, reception = self.parameters, self.reception
        if self.asked is not None:
            chosen = self.ui.answerBox.currentIndex > 0
            return _("Read it so") if chosen else _("Choose below"), self._answer if chosen else None, self._question()
        if reception is None:
            if p.source is Source.FILE and not p.recording.is_file():
                return _("Choose a file"), None, _("Choose an ISMRMRD file.")
            text, why = self._sourceWords()
            return text, self.toggle, why
        if self.progress is not None:
            return _("Please wait"), None, _("Working.")
        if reception.scan is not None and not self._busy:
            return _("Reconstruct again"), self.again, _("The scan is complete.")
        if self.result is not None:
            return _("Waiting for the next scan"), None, _("The scan is complete.")
        if reception.address:
            return _("Waiting for a scan"), None, _("Send the scan to {address}.").format(address=reception.address)
        return _("Waiting for a scan"), None, _("Start the scan at the scanner.")

    def _question(self) -> str:
        assert self.asked is not None
        problem = self.asked.open.problem[:1].upper() + self.asked.open.problem[1:]
        if self.asked.open.option == "assume_axial":
            return _(
                "{problem}. If you know that it is axial, it can be looked at so, marked; no session takes it."
            ).format(problem=problem)
        return _("{problem}: choose which is read.").format(problem=problem)

    def _ask(self, asked: Asked) -> None:
        self._end()
        self.ui.answerBox.clear()
        self.ui.answerBox.addItem(_("Choose ..."))
        for value in asked.open.values:
            self.ui.answerBox.addItem(_answer(asked.open.option, value))
        self.asked = asked

    def _sourceWords(self) -> tuple[str, str]:
        """What opens the source, and one sentence about it."""
        return {
            Source.SCANNER: (_("Connect"), _("Connect to the scanner, or receive from a file if there is none.")),
            Source.FILE: (_("Read file"), _("The file is reconstructed; its image comes into the scene.")),
            Source.MRD: (_("Listen"), _("Listen, then send the scan to that address.")),
        }[self.parameters.source]

    def _recognised(self) -> str:
        scan = self.encoding
        if scan is None:
            return _("Nothing received yet.")
        z, y, x = scan.encoded_matrix
        assumed = assumed_geometry(scan.metadata)
        lines = [
            _("{protocol}, {trajectory}, {dimension}").format(
                protocol=scan.protocol or scan.scan_id,
                trajectory=scan.trajectory,
                dimension="3D" if scan.is_3d else "2D",
            ),
            _("{x} × {y} × {z}, {coils} coils, acceleration {ay} × {az}").format(
                x=x, y=y, z=z, coils=scan.coils, ay=scan.acceleration[1], az=scan.acceleration[0]
            ),
            *_contrasts(scan),
            *([_("orientation {assumed}").format(assumed=assumed)] if assumed else []),
            *([scan.metadata[READ_AS]] if READ_AS in scan.metadata else []),
            *([_("only {part} is read").format(part=scan.metadata[READ_ONLY])] if READ_ONLY in scan.metadata else []),
            *([_("{frames} frames").format(frames=scan.repetitions)] if scan.repetitions > 1 else []),
            *([_("{number} averages").format(number=scan.averages)] if scan.averages > 1 else []),
            _("patient {id}").format(id=scan.patient_id or _("not stated")),
        ]
        return "\n".join(lines)

    def _rests(self) -> str:
        """What the picture on the screen rests on: method, reason, what was used, corrections, warnings."""
        result = self.result
        if result is None:
            return ""
        used = ", ".join(f"{_words(name)} {value}" for name, value in result.parameters.items())
        corrections, left_out = (result.provenance.get(key, "") for key in ("corrections", LEFT_OUT))
        lines = [_("{method}: {reason}").format(method=result.method, reason=result.reason), used, corrections]
        if left_out:
            lines.append(_("left out: {readouts}").format(readouts=left_out))
        # What was left out for a fault is a warning too.
        return "\n".join(line for line in [*lines, *(text for text in result.warnings if text not in left_out)] if line)

    def _meanings(self) -> str:
        """What the numbers of the maps on the screen are, with their units."""
        result = self.result
        if result is None or QUANTITY not in result.image.metadata:
            return _("Why this method")
        maps = [image.metadata for image in (result.image, *result.maps.values())]
        return "\n".join(f"{m[QUANTITY]} ({m[UNIT]}): {m[DEFINITION]}" for m in maps if DEFINITION in m)

    def _onNext(self) -> None:
        work = self._next()[1] if self.parameters is not None else None
        if work is not None:
            work()
            self.refresh()

    def _onCancel(self) -> None:
        if self.reception is not None:
            self.reception.cancel()

    def _end(self) -> None:
        reception, self.reception = self.reception, None
        self.progress = self.encoding = self.result = self.seen = self.latencyMs = self.asked = None
        self._dropPreview()
        if reception is not None:
            reception.close()

    def _tick(self) -> None:
        if self.reception is None or self.parameters is None:
            return
        # Asked before the news are taken: the last result comes before its thread ends, and nothing after that.
        busy = self.reception.busy
        working, news = self.progress is not None, self.reception.drain()
        for number, item in enumerate(news):
            # Of several frames of a stream only the newest is worth drawing.
            if not (isinstance(item, Streamed) and any(isinstance(later, Streamed) for later in news[number + 1 :])):
                self._take(item)
        worked, goesOn = working and self.progress is not None, all(isinstance(item, Progressed) for item in news)
        if busy != self._busy or (news and not (worked and goesOn)):
            self._busy = busy
            self.refresh()
        elif news:
            # Lines arrive all the time, and the work on them waits while the whole panel is written.
            self._showProgress()

    def _showProgress(self) -> None:
        if self.progress is not None:
            self.ui.progressBar.value = round(100 * self.progress[0])
            self.ui.progressBar.format = _("{what} %p %").format(what=self.progress[1])

    def _take(self, news: News) -> None:
        if isinstance(news, Encoding):
            self.encoding, self.seen, self.problem, self.latencyMs = news, None, "", None
        elif isinstance(news, Progressed):
            self.progress = (news.fraction, news.what) if news.fraction < 1.0 else None
        elif isinstance(news, Dropped):
            self.progress = None
            self._dropPreview()
        elif isinstance(news, Failed):
            self.problem, self.progress = news.text, None
            if self.parameters.source is Source.FILE and self.encoding is None:
                # Nothing of the file was understood: another may be chosen.
                self._end()
        elif isinstance(news, Asked):
            self._ask(news)
        elif isinstance(news, Received):
            self._show(news.image)
        elif isinstance(news, Previewed):
            self._nodes.showPreview(news.result.image, news.fraction)
        elif isinstance(news, Streamed):
            self._showResult(news.result)
            if news.received_monotonic_s is not None:
                self.latencyMs = 1000 * (time.monotonic() - news.received_monotonic_s)
        else:
            self.progress = None
            self._showResult(news)

    def _showResult(self, result: Reconstruction) -> None:
        self.result = result
        if result.seen is not None:
            automatic = result.seen.automatic or (self.seen.automatic if self.seen is not None else "")
            self.seen = replace(result.seen, automatic=automatic)
        if result.image.metadata.get(UNIT):
            self._nodes.showQuantity(result)
        else:
            # An image, also when it was put together from the parts of a scan beside metal.
            self._show(result.image)
            self._nodes.keepMaps(result)

    def _show(self, image: Image) -> None:
        """Into the output volume; a new one when none is chosen."""
        self.parameters.outputVolume = self._nodes.showImage(image, self.parameters.outputVolume)

    def _dropPreview(self) -> None:
        self._nodes.removePreview(None if self.parameters is None else self.parameters.outputVolume)

    def _compare(self) -> None:
        p = self.parameters
        compares = p.comparisonVolume is not None and p.outputVolume is not None
        self.ui.comparedLabel.text = ""
        if compares:
            self.ui.comparedLabel.text = _("Result: {result}\nWith: {other}").format(
                result=_how(p.outputVolume), other=_how(p.comparisonVolume)
            )
            slicer.util.setSliceViewerLayers(
                background=p.outputVolume, foreground=p.comparisonVolume, foregroundOpacity=p.blend
            )


def _how(node: Any) -> str:
    """Method and settings that the image in a node was made by."""
    said = [node.GetAttribute(PROVENANCE_ATTRIBUTE + key) for key in ("method", "parameters")]
    return ", ".join(text for text in said if text) or _("not reconstructed here")


def _contrasts(scan: Encoding) -> list[str]:
    """What the contrasts of a scan are, and whether its view is tilted."""
    words = {"spectral bins": _("{number} spectral bins"), "SEMAC": _("{number} steps of slice encoding (SEMAC)")}
    several = words.get(combined_by(scan), _("{number} echoes"))
    tilt = viewAngle(scan)
    return [
        *([several.format(number=scan.contrasts)] if scan.contrasts > 1 else []),
        *([_("view tilted by {angle}°").format(angle=f"{tilt:.0f}")] if tilt else []),
    ]


def _answer(option: str, value: int | str) -> str:
    """An answer to what a file leaves open."""
    words = {
        "encoding_space": _("encoding {value}"),
        "slice_index": _("slice {value}"),
        "phase": _("phase {value}"),
        "set_index": _("set {value}"),
        "assume_axial": _("axial: readout to the patient's left, phase encoding to the back"),
    }
    return words.get(option, "{value}").format(value=value)


def _words(name: str) -> str:
    """Name of a parameter with its unit in brackets."""
    what, underscore, unit = name.rpartition("_")
    if underscore and unit in UNITS:
        return f"{what} ({UNITS[unit]})".replace("_", " ")
    return name.replace("_", " ")
