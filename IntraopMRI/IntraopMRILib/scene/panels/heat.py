"""Rows on page 4: a person marks what is heated, and reads peak, dose and the structures at risk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import slicer
from IntraopMRIReconstructionLib.data import Measurement
from IntraopMRIReconstructionLib.errors import IntraopError
from IntraopMRIReconstructionLib.reconstruct.quantities import Heating
from slicer.i18n import tr as _

from .. import colors
from ..display import interval, number
from ..heat_texts import dose_gone, dose_words, gone, shown
from .page import Action, offer
from .style import CHECK, DANGER, colored, sized

#: Name of the mark that a click makes.
MARK_NAME = "Heated spot"


class HeatSection:
    """Adds itself to ``layout`` of ``page`` at a place; its widgets are bound with those of the page."""

    def __init__(self, page: Any, layout: Any, place: int) -> None:
        self._page, self._running = page, page.running
        self._widget = slicer.util.loadUI(page.panel.resourcePath("UI/HeatSection.ui"))
        self.ui = slicer.util.childWidgetVariables(self._widget)
        self._widget.setMRMLScene(slicer.mrmlScene)
        layout.insertWidget(place, self._widget)
        vars(page.ui).update(vars(self.ui))
        self.ui.markHottestButton.connect("clicked()", self.markHottest)
        self.ui.newReferenceButton.connect("clicked()", self.newReference)
        #: What the session was told, and what was seen at the last look: a mark that is dragged is told when it rests.
        self._told: tuple[Any, Heating | None] = (None, None)
        self._seen: Heating | None = None
        self._opened: Any = None
        self._gone = ""

    @property
    def measures(self) -> bool:
        """Whether temperature is what this page is about now: its newest frame is shown, as it is in the views."""
        return self._running.heat is not None and not self.ui.heatSection.collapsed

    def action(self) -> Action | None:
        """What the ablation needs next; None when it needs nothing here."""
        found = self._running.heat
        why = "" if found is None else gone(found, time.monotonic())
        if why.startswith("drift") and self.ui.markHottestButton.enabled:
            return Action(_("Mark the hottest spot"), self.markHottest)
        if found is not None and not why and self._running.progress is not None:
            return Action(_("Temperature is measured"))
        return None

    def refresh(self) -> None:
        """Open when heat is measured for the first time in a session; offer what can be done."""
        found = self._running.heat
        if found is not None and self._opened is not self._running.session:
            self._opened, self.ui.heatSection.collapsed = self._running.session, False
        elif self._opened not in (None, self._running.session):
            # What was opened for one session is folded again for the next.
            self._opened, self.ui.heatSection.collapsed = None, True
        nothing = _("no temperature is measured yet") if found is None else ""
        nowhere = _("nothing stands out in the map") if found is not None and found.hottest_ras_mm is None else ""
        offer(self.ui.markHottestButton, nothing, nowhere)
        ended = _("the temperature scan has ended") if found is not None and found.ended else ""
        offer(self.ui.newReferenceButton, nothing, ended)
        self.tick()

    def tick(self) -> None:
        """Tell the session of the mark; numbers go when their frame is stale."""
        self._tell()
        found = self._running.heat
        why = "" if found is None else gone(found, time.monotonic()).partition(",")[0]
        if why != self._gone:
            self._gone = why
            self._page.panel.askRefresh()
        text = self._words()
        if self.ui.heatLabel.text != text:
            self.ui.heatLabel.text = text

    def markHottest(self) -> None:
        """Put the mark where the map stands out most."""
        found, parameters = self._running.heat, self._page.parameters
        if found is None or found.hottest_ras_mm is None:
            return
        node = parameters.heatedPlace
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", MARK_NAME)
            node.CreateDefaultDisplayNodes()
            # Slicer's own is red, which is what is left or dangerous.
            node.GetDisplayNode().SetColor(*colors.MARK)
            node.GetDisplayNode().SetSelectedColor(*colors.MARK)
            # Its circle has a line in the legend; a name would lie over those of the plan, which is where it is heated.
            node.GetDisplayNode().SetPointLabelsVisibility(False)
            node.SetMaximumNumberOfControlPoints(1)
        node.RemoveAllControlPoints()
        node.AddControlPoint(*found.hottest_ras_mm.tolist(), _("heat"))
        parameters.heatedPlace = node
        self._seen = self._chosen()
        self._page.panel.refresh()

    def newReference(self) -> None:
        """The next frame is the reference; what the dose was so far stays in the record."""
        try:
            self._running.session.heat.new_reference()
        except IntraopError as error:
            self._running.problem = str(error)
        self._page.panel.refresh()

    @contextmanager
    def dose(self) -> Iterator[list[tuple[str, Any]]]:
        """The dose over its own picture in the axial view, for the report: caption and window; nothing without heat."""
        found, widget = self._running.heat, slicer.app.layoutManager().sliceWidget("Red")
        if found is None or widget is None or not widget.visible:
            yield []
            return
        node, composite = widget.mrmlSliceNode(), widget.mrmlSliceCompositeNode()
        before = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).copy()
        known = self._running.view.bridge.node
        shown = known("map.1") or known("map.0")
        self._page.compare.layQuantity(composite, shown)
        self._page.panel.annotate()
        if found.heating.spot_ras_mm is not None:
            node.JumpSliceByCentering(*found.heating.spot_ras_mm)
        try:
            yield [
                (
                    _("Thermal dose of the newest temperature scan; outline: lethal dose (240 CEM43)"),
                    widget.sliceView().renderWindow(),
                )
            ]
        finally:
            slicer.util.updateVTKMatrixFromArray(node.GetSliceToRAS(), before)
            node.UpdateMatrices()
            self._page.compare.apply()

    def _chosen(self) -> Heating:
        p, spot = self._page.parameters, None
        if p.heatedPlace is not None and p.heatedPlace.GetNumberOfControlPoints():
            x, y, z = slicer.util.arrayFromMarkupsControlPoints(p.heatedPlace, world=True)[0].tolist()
            spot = (x, y, z)
        return Heating(spot_ras_mm=spot, radius_mm=p.heatedRadius, baseline_c=p.heatBaseline)

    def _tell(self) -> None:
        session = self._running.session
        if session is None:
            self._told = (None, None)
            return
        chosen = self._chosen()
        rests, self._seen = chosen == self._seen, chosen
        before = self._told[1] if self._told[0] is session else Heating()
        if not rests or chosen == before:
            return
        self._told = session, chosen
        try:
            session.heat.mark(chosen)
        except IntraopError as error:
            self._running.problem = str(error)

    def _words(self) -> str:
        """Large what is decided on, with its interval; amber what is missing, and red only danger."""
        if not self._running.connected:
            return str(escape(_("Connect the scanner first.")))
        found = self._running.heat
        if found is None:
            return str(escape(_("No temperature yet: start the thermometry scan before heating.")))
        now_s = time.monotonic()
        why = gone(found, now_s)
        peak, volume = found.numbers.peak, shown(found.numbers.volume, dose_gone(found, now_s))
        lines = [
            _line(_("Peak {number}"), shown(peak, why), 18),
            # A reason stands once, at the peak.
            _line(_("Lethal dose: {number}"), volume, 15, reason=not why),
        ]
        dose = shown(found.numbers.dose, dose_gone(found, now_s))
        if dose.value is not None:
            lines.append(escape(_("Highest dose {number}").format(number=dose_words(dose))))
        for risk in found.risks:
            words = f"{risk.name}: {{number}}"
            color = DANGER if risk.alarm and not why else ""
            lines.append(_line(words, shown(risk.temperature, why), 14, color, reason=not why))
        notes = [*found.numbers.notes, *(risk.note for risk in found.risks if risk.note and not why)]
        lines += [str(colored(note, CHECK, 13)) for note in notes]
        lines.append(
            escape(
                _("Frame {frame}, from {baseline:g} °C before").format(
                    frame=found.frame, baseline=found.heating.baseline_c
                )
            )
        )
        return "<br>".join(lines)


def _line(words: str, measurement: Measurement, size: int, color: str = "", reason: bool = True) -> str:
    """A number with its interval, or a dash in amber with the ``reason`` unless that was said."""
    if measurement.value is None:
        why = f" ({measurement.missing_because})" if reason else ""
        return str(colored(words.format(number=f"–{why}"), CHECK, 14))
    text = words.format(number=number(measurement.value, measurement.unit))
    text = str(colored(text, color, size) if color else sized(text, size))
    if measurement.interval is not None:
        between = interval(measurement.interval, measurement.unit, measurement.value)
        text += f"&nbsp;&nbsp;{escape(between).replace(' ', '&nbsp;')}"
    return text
