"""A section of page 6: what a person outlines or marks on the scan becomes numbers with their intervals."""

from __future__ import annotations

from html import escape
from typing import Any

import slicer
from IntraopMRIReconstructionLib.data import Measurement
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from ...session.measures import RECIPES, Drawn
from ..display import spread
from .nodes import Segments, pointsOf
from .page import offer
from .propose import ProposeButton
from .style import CHECK, colored, sentence, whole

#: Which recipes read the points, and which the planned motion.
POINTS, CORRECTION = ("cord", "cobb", "sagittal", "hip", "leg", "length", "osteotomy"), ("osteotomy",)


class MeasureSection:
    """Adds itself to ``layout`` of ``page`` at a place. Call :meth:`refresh` whenever something changed.

    The session's record is the only source of what is shown: it forgets numbers with the scan that they rest on.
    """

    def __init__(self, page: Any, layout: Any, place: int) -> None:
        self._page, self._running = page, page.running
        self._widget = slicer.util.loadUI(page.panel.resourcePath("UI/MeasureSection.ui"))
        self.ui = slicer.util.childWidgetVariables(self._widget)
        self._widget.setMRMLScene(slicer.mrmlScene)
        layout.insertWidget(place, self._widget)
        vars(page.ui).update(vars(self.ui))
        self.proposal = ProposeButton(self, page)
        self._kinds = list(RECIPES)
        self._offered = ""
        self._said: tuple[str, str] = ("", "")
        #: What a person has drawn and measured: its field, its node, and the uid of the scan it was drawn on.
        self._drawn: list[tuple[str, Any, str]] = []
        for recipe in RECIPES.values():
            self.ui.measureKindBox.addItem(recipe.title)
        self.ui.measureKindBox.connect("currentIndexChanged(int)", lambda _index: self.refresh())
        self.ui.measureButton.connect("clicked()", self.measure)
        self.ui.withdrawButton.connect("clicked()", self.withdraw)

    @property
    def kind(self) -> str:
        """What is to be measured."""
        return self._kinds[max(0, self.ui.measureKindBox.currentIndex)]

    def measurements(self) -> list[Measurement]:
        """All that rests on drawings on the scan that is shown, and the margin of its cavity, for the table."""
        record, uid = self._record(), self._uid()
        if record is None or not uid:
            return []
        margin = record.margin if record.margin is not None and record.margin.image_uid == uid else None
        rows = [] if margin is None else [margin.closest, margin.outside]
        return rows + [m for entry in record.drawn if entry.image_uid == uid for m in entry.measurements]

    def refresh(self) -> None:
        """Show what this measure needs, and what it gave."""
        ui, kind, recipe = self.ui, self.kind, RECIPES[self.kind]
        if self._offered != kind:
            self._offered = kind
            ui.measureOptionBox.clear()
            for option in recipe.options:
                ui.measureOptionBox.addItem(option)
        for name, needed in (
            ("measureOutline", recipe.outline),
            ("measurePoints", kind in POINTS),
            ("measureOptionBox", bool(recipe.options)),
            ("plannedCorrection", kind in CORRECTION),
        ):
            getattr(ui, name).visible = getattr(ui, f"{name}Label").visible = needed
        # The session keeps the plan that it began with.
        ui.plannedCorrection.enabled = not self._running.connected
        ui.measureHint.text = recipe.hint[0].upper() + recipe.hint[1:] + "."
        offer(ui.measureButton, self._running.untrustedBecause)
        self._letGo()
        self.proposal.refresh(kind, self._uid())
        proposed = self.proposal.words(kind)
        # A proposal says itself what is to be done with it, and with both it would stand below a small screen.
        ui.measureHint.visible = not proposed
        found = self._entry()
        offer(ui.withdrawButton, "" if found is not None else _("nothing of this kind was measured"))
        ui.measureResult.text = "<br>".join(words for words in (proposed, self._words(found)) if words)

    def measure(self) -> None:
        """Read what was drawn and hand it to the session; a refusal is said here."""
        parameters, kind = self._page.parameters, self.kind
        self._said = ("", "")
        try:
            label = None
            if RECIPES[kind].outline and parameters.measureOutline is not None:
                label = Segments(parameters.measureOutline, self._running.view.volume()).outline()
            points = tuple(pointsOf(parameters.measurePoints).items()) if kind in POINTS else ()
            option = self.ui.measureOptionBox.currentText if RECIPES[kind].options else ""
            self._running.session.measure(kind, Drawn(self._uid(), points, label, option), parameters.surgeon)
            self.proposal.reviewed(parameters.measureOutline)
            self._drawn += [
                (field, node, self._uid())
                for field, used in (("measureOutline", RECIPES[kind].outline), ("measurePoints", kind in POINTS))
                if used and (node := getattr(parameters, field)) is not None
            ]
        except IntraopError as error:
            self._said = (kind, str(error))
        self._page.panel.refresh()

    def withdraw(self) -> None:
        """Take the numbers of this measure back."""
        try:
            self._running.session.withdraw(self.kind)
        except IntraopError as error:
            self._said = (self.kind, str(error))
        self._page.panel.refresh()

    def _letGo(self) -> None:
        """What was measured on an older scan lies over the new one as if it had been drawn there: it is neither shown
        nor chosen any more, and stays in the scene."""
        found, parameters = self._running.registered, self._page.parameters
        shown = "" if found is None else found.image.uid
        old = [drawn for drawn in self._drawn if drawn[2] != shown]
        self._drawn = [drawn for drawn in self._drawn if drawn[2] == shown]
        for field, node, _uid in old:
            if node.GetScene() is not None:
                node.SetDisplayVisibility(False)
            if getattr(parameters, field) is node:
                setattr(parameters, field, None)

    def _record(self) -> Any:
        return None if self._running.session is None else self._running.session.journal.record

    def _uid(self) -> str:
        """The scan that a person has confirmed the registration of; empty without one."""
        return str(self._running.registered.image.uid) if self._running.trusted else ""

    def _entry(self) -> Any:
        record, uid = self._record(), self._uid()
        entries = () if record is None or not uid else record.drawn
        return next((entry for entry in entries if entry.kind == self.kind and entry.image_uid == uid), None)

    def _words(self, found: Any) -> str:
        if self._said[0] == self.kind and self._said[1]:
            return str(colored(self._said[1], CHECK, 13))
        if why := self._running.untrustedBecause:
            return str(colored(sentence(_("{why}: see page 4.").format(why=why)), CHECK, 13))
        if found is None:
            return ""
        lines = [
            f"{escape(m.name)}: <b>{whole(spread(m)) if m.value is not None else escape(m.missing_because)}</b>"
            for m in found.measurements
        ]
        return "<br>".join([*lines, escape(found.note)] if found.note else lines)
