"""The planned things on page 4: how far the brain shift moved each, how sure that is, and what a person decides.

One thing at a time with accept, reject and next; all of them in a table below. What nobody has decided on is shown on
page 4 only: elsewhere neither place would be one that a person stands for.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

import numpy as np
import qt
import slicer
from IntraopMRIReconstructionLib.data import Level
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from ...register.carry_over import Carried
from ..display import number
from .style import CHOICE_BUTTON, LEVEL_COLORS, colored, sized


class CarriedTable:
    """Current thing, table, accept and reject of one page. Call :meth:`refresh` whenever something changed."""

    def __init__(self, page: Any) -> None:
        self._page, self._ui = page, page.ui
        self._keys: list[str] = []
        self._shown: Any = None
        #: The registration for which a person has chosen to go on without deciding.
        self._leftFor: Any = None
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
        table.connect("itemSelectionChanged()", self._onSelected)
        self._ui.acceptButton.connect("clicked()", lambda: self.decide(True))
        self._ui.rejectButton.connect("clicked()", lambda: self.decide(False))
        self._ui.nextItemButton.connect("clicked()", self.next)
        self._ui.acceptGoodButton.connect("clicked()", self.acceptGood)
        self._ui.leaveButton.connect("clicked()", self.leave)

    @property
    def _items(self) -> dict[str, Carried]:
        view = self._page.running.view
        return {} if view is None else view.items

    def undecided(self) -> frozenset[str]:
        """Keys of what is offered and nobody has decided on."""
        return frozenset(key for key, item in self._items.items() if item.undecided)

    @property
    def left(self) -> bool:
        """Whether a person has chosen to go on without deciding, for the registration that is shown now."""
        return self._leftFor is not None and self._leftFor is self._page.running.registered

    @property
    def open(self) -> str:
        """What is to be decided before anybody goes on, in words; empty when nothing is."""
        return "" if self.left else self.count()

    def count(self) -> str:
        """How many of the things that are offered nobody has decided on; empty for none."""
        waiting, offered = len(self.undecided()), sum(item.offered for item in self._items.values())
        if not waiting:
            return ""
        return _("{waiting} of {offered} plan items undecided").format(waiting=waiting, offered=offered)

    def hideUndecided(self, hidden: bool) -> None:
        """Show in the views what nobody has decided on, or not."""
        view = self._page.running.view
        if view is not None:
            view.bridge.leaveOut(self.undecided() if hidden else frozenset())

    def refresh(self) -> None:
        """One row a thing, and the current one above them."""
        items = list(self._items.values())
        session = self._page.running.session
        self._ui.carriedSection.visible = bool(items) and session is not None and session.plan.tumour is not None
        before = self._before()
        shown = [(item.key, item.accepted, item.verdict, item.shift_mm, before.get(item.key)) for item in items]
        if shown != self._shown:
            self._shown = shown
            self._fill(items, before)
        self._showCurrent()

    def _fill(self, items: list[Carried], before: dict[str, str]) -> None:
        table = self._ui.carriedTable
        selected = self._selected()
        self._keys = [item.key for item in items]
        table.blockSignals(True)
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
        undecided = [item.key for item in items if item.undecided]
        if selected is None or selected not in undecided:
            selected = undecided[0] if undecided else selected
        if selected in self._keys:
            table.selectRow(self._keys.index(selected))
        table.blockSignals(False)
        self._jump()

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

    def _onSelected(self) -> None:
        self._showCurrent()
        self._jump()

    def next(self) -> None:
        """The next thing, of those that nobody has decided on while there are any."""
        open_ = [key for key in self._keys if key in self.undecided()] or self._keys
        if open_:
            now = self._selected()
            at = -1 if now is None or now not in open_ else open_.index(now)
            self._ui.carriedTable.selectRow(self._keys.index(open_[(at + 1) % len(open_)]))

    def _jump(self) -> None:
        """All slice views to the current thing, so that it is decided on where it is seen."""
        item = self._items.get(self._selected() or "")
        if item is None or not self._page.running.trusted or not self._page.panel.shows(self._page):
            return
        points = item.position_mm
        middle = points[np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1))]
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames():
            manager.sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(*middle)

    def _showCurrent(self) -> None:
        items, ui, trusted = self._items, self._ui, self._page.running.trusted
        item, named = items.get(self._selected() or ""), bool(self._page.parameters.surgeon.strip())
        place = f"{self._keys.index(item.key) + 1}/{len(self._keys)}" if item is not None else ""
        ui.itemLabel.text = "" if item is None else _words(item, place)
        ui.itemLabel.toolTip = "" if item is None else self._tip(item, self._before().get(item.key, ""))
        may = trusted and named and item is not None and item.offered
        ui.acceptButton.enabled = bool(may and item and item.accepted is not True)
        ui.rejectButton.enabled = bool(may and item and item.accepted is not False)
        style = CHOICE_BUTTON if may and item and item.accepted is None and not self.left else ""
        for button in (ui.acceptButton, ui.rejectButton):
            if button.styleSheet != style:
                button.setStyleSheet(style)
        ui.nextItemButton.enabled = len(items) > 1
        good = sum(_isGood(each) for each in items.values())
        ui.acceptGoodButton.enabled = trusted and named and good > 0
        ui.acceptGoodButton.text = _("Accept all good ({count})").format(count=good)
        waiting = bool(self.undecided())
        ui.leaveButton.visible = trusted and waiting and not self.left
        why = ""
        if not trusted:
            why = _("Confirm first.")
        elif waiting and not named:
            why = _("Enter who accepts.")
        elif waiting and self.left:
            why = _("Left undecided.")
        ui.carriedLabel.text = why
        ui.carriedLabel.visible = bool(why)

    def decide(self, accepted: bool) -> None:
        """Accept or reject the current thing."""
        item = self._items.get(self._selected() or "")
        if item is not None:
            self._decide([item], accepted)

    def acceptGood(self) -> None:
        """Accept all whose verdict is good and that nobody has decided on."""
        self._decide([item for item in self._items.values() if _isGood(item)], True)

    def leave(self) -> None:
        """A person goes on without deciding: nothing rests on those things, and the record says so."""
        running = self._page.running
        names = ", ".join(self._items[key].name for key in sorted(self.undecided()))
        if running.trusted and names:
            self._leftFor = running.registered
            by = self._page.parameters.surgeon.strip() or _("nobody named")
            running.session.journal.event("carried over", f"left undecided by {by}, not shown in navigation: {names}")
        self._page.panel.refresh()

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


def _words(item: Carried, place: str) -> str:
    """Name, place in the list, shift and state of one thing as rich text; against it, the first reason."""
    moved = ""
    if item.offered:
        moved = _("moved {mean:.1f} ± {radius:.1f} mm").format(mean=item.mean_shift_mm, radius=item.uncertainty_mm)
    against = [reason for reason in item.verdict.reasons if reason.level is not Level.GOOD]
    why = f" – {against[0].name} {number(against[0].value, against[0].unit)}" if against and not item.accepted else ""
    state = colored(position(item) + why, LEVEL_COLORS[_level(item)], 13)
    return f"{sized(item.name, 15)}&nbsp;&nbsp;{place}<br>{escape(moved)}&nbsp;&nbsp;{state}"


def _level(item: Carried) -> Level:
    return Level.GOOD if item.accepted else Level.CHECK


def _isGood(item: Carried) -> bool:
    return item.accepted is None and item.verdict.level is Level.GOOD
