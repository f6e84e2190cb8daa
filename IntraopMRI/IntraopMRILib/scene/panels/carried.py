"""The planned things on page 4: how far the brain shift moved each, how sure that is, and what a person decides."""

from __future__ import annotations

import json
from typing import Any

import qt
from IntraopMRIReconstructionLib.data import Level
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from ...register.carry_over import Carried
from ..display import number
from .style import LEVEL_COLORS


class CarriedTable:
    """Table, accept and reject of one page. Call :meth:`refresh` whenever something changed."""

    def __init__(self, page: Any) -> None:
        self._page, self._ui = page, page.ui
        self._keys: list[str] = []
        self._shown: Any = None
        table = self._ui.carriedTable
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Planned"), _("Moved"), _("± 95 %"), _("Position")])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        for column, width in enumerate((105, 62, 62)):
            table.setColumnWidth(column, width)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.connect("itemSelectionChanged()", self._enable)
        self._ui.acceptButton.connect("clicked()", lambda: self.decide(True))
        self._ui.rejectButton.connect("clicked()", lambda: self.decide(False))
        self._ui.acceptGoodButton.connect("clicked()", self.acceptGood)

    @property
    def _items(self) -> dict[str, Carried]:
        view = self._page.running.view
        return {} if view is None else view.items

    def waiting(self) -> int:
        """How many things are offered and not decided."""
        return sum(item.offered and item.accepted is None for item in self._items.values())

    def refresh(self) -> None:
        """One row a thing."""
        items = list(self._items.values())
        session = self._page.running.session
        self._ui.carriedSection.visible = bool(items) and session is not None and session.plan.tumour is not None
        before = self._before()
        shown = [(item.key, item.accepted, item.verdict, item.shift_mm, before.get(item.key)) for item in items]
        if shown != self._shown:
            self._shown = shown
            self._fill(items, before)
        self._enable()

    def _fill(self, items: list[Carried], before: dict[str, str]) -> None:
        table = self._ui.carriedTable
        selected = self._selected()
        self._keys = [item.key for item in items]
        table.setRowCount(len(items))
        for row, item in enumerate(items):
            moved = number(item.mean_shift_mm, "mm") if item.offered else "–"
            texts = (item.name, moved, number(item.uncertainty_mm, "mm"), position(item))
            tip = self._tip(item, before.get(item.key, ""))
            for column, text in enumerate(texts):
                cell = qt.QTableWidgetItem(text)
                cell.setToolTip(tip)
                if column == 3:
                    cell.setForeground(qt.QBrush(qt.QColor(LEVEL_COLORS[_level(item)])))
                table.setItem(row, column, cell)
        table.resizeRowsToContents()
        undecided = [item.key for item in items if item.offered and item.accepted is None]
        if selected is None or selected not in undecided:
            selected = undecided[0] if undecided else selected
        if selected in self._keys:
            table.selectRow(self._keys.index(selected))

    def _tip(self, item: Carried, before: str) -> str:
        lines = [
            _("{kind}: moved {mean} on average, {largest} at most, beyond the rigid pose").format(
                kind=item.kind, mean=number(item.mean_shift_mm, "mm"), largest=number(item.shift_mm, "mm")
            ),
            _("Uncertainty: radius that holds the true position in 95 of 100 cases, largest of its points"),
            item.verdict.text,
            _("Now at: {basis}").format(basis=item.basis),
        ]
        if before and item.accepted is None:
            lines.append(_("On an earlier scan: {before}. Decide again.").format(before=before))
        return "\n".join(lines)

    def _selected(self) -> str | None:
        row = self._ui.carriedTable.currentRow()
        return self._keys[row] if 0 <= row < len(self._keys) else None

    def _enable(self) -> None:
        item = self._items.get(self._selected() or "")
        may = self._page.running.trusted and bool(self._page.parameters.surgeon.strip())
        self._ui.acceptButton.enabled = may and item is not None and item.offered and item.accepted is not True
        self._ui.rejectButton.enabled = may and item is not None and item.offered and item.accepted is not False
        good = sum(_isGood(item) for item in self._items.values())
        self._ui.acceptGoodButton.enabled = may and good > 0
        self._ui.acceptGoodButton.text = _("Accept all good ({count})").format(count=good)
        if not self._page.running.trusted:
            why = _("Confirm the registration first.")
        elif not self._page.parameters.surgeon.strip():
            why = _("Enter who accepts.")
        else:
            why = ""
        self._ui.carriedLabel.text = why
        self._ui.carriedLabel.visible = bool(why)

    def decide(self, accepted: bool) -> None:
        """Accept or reject the selected thing."""
        item = self._items.get(self._selected() or "")
        if item is not None:
            self._decide([item], accepted)

    def acceptGood(self) -> None:
        """Accept all whose verdict is good and that nobody has decided on."""
        self._decide([item for item in self._items.values() if _isGood(item)], True)

    def _decide(self, items: list[Carried], accepted: bool) -> None:
        running, parameters = self._page.running, self._page.parameters
        if not running.trusted:
            return
        before = self._before()
        try:
            for item in items:
                decided = running.session.decide(item, accepted, parameters.surgeon)
                running.view.decided(decided)
                before[item.key] = (
                    decided.basis if accepted else _("rejected by {name}").format(name=decided.decided_by)
                )
        except IntraopError as error:
            running.problem = str(error)
        parameters.carriedBefore = json.dumps(before)
        self._page.panel.refresh()

    def _before(self) -> dict[str, str]:
        """What was decided last about each thing, also before the scene was loaded."""
        try:
            found = json.loads(self._page.parameters.carriedBefore or "{}")
        except json.JSONDecodeError:
            return {}
        return {str(key): str(text) for key, text in found.items()} if isinstance(found, dict) else {}


def position(item: Carried) -> str:
    """Where a thing is shown, in a few words."""
    if item.accepted:
        return _("Carried over")
    if item.accepted is False:
        return _("Rigid pose (rejected)")
    if not item.offered:
        return _("Rigid pose (not offered)")
    return _("Rigid pose: decide") if item.verdict.level is Level.GOOD else _("Rigid pose: check")


def _level(item: Carried) -> Level:
    return Level.GOOD if item.accepted else Level.CHECK


def _isGood(item: Carried) -> bool:
    return item.accepted is None and item.verdict.level is Level.GOOD
