"""One thing at a time on page 4, with accept, reject and next; all of them in a table below.

What nobody has decided on is shown on page 4 only: elsewhere it would be something that no person stands for. What the
things are, :class:`Things` says: planned things that a brain shift moved, or vertebrae that were found each on its own.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import qt
import slicer
from IntraopMRIReconstructionLib.data import Level
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from .page import Action
from .style import LEVEL_COLORS, choiceButton, quietButton, readable


class Things(Protocol):
    """What is decided on. Items are by key and have ``name``, ``offered``, ``undecided``, ``accepted``, ``verdict``."""

    #: Titles of four columns, the widths of the first three; title of the table, what its numbers are, and what it
    #: means to accept and to reject.
    headers: tuple[str, str, str, str]
    widths: tuple[int, int, int]
    title: str
    definition: str
    tips: tuple[str, str]

    def items(self) -> dict[str, Any]:
        """All of them."""

    def blocked(self) -> str:
        """Why nothing may be decided now, in two words; empty when it may."""

    def cells(self, item: Any) -> tuple[str, str, str, str]:
        """Row of the table."""

    def words(self, item: Any, place: str) -> str:
        """The current one, rich text; ``place``: in the list."""

    def tip(self, item: Any) -> list[str]:
        """More of it, line by line."""

    def level(self, item: Any) -> Level:
        """Its colour."""

    def middle(self, item: Any) -> npt.NDArray[np.float64]:
        """Where the views look at it, (3,) RAS mm."""

    def count(self, waiting: int, offered: int) -> str:
        """How many are undecided, in words."""

    def decide(self, item: Any, accepted: bool, by: str) -> str:
        """A person decides; returns it in words. Raises IntraopError."""

    def leave(self, names: str, by: str) -> None:
        """A person goes on without deciding on those. Raises IntraopError."""

    def show(self, current: str, undecided: frozenset[str], hidden: bool) -> None:
        """Bring the undecided ones and the ``current`` one into the views, or hide them."""


class OneByOne:
    """Current thing, table, accept and reject of one page. Call :meth:`refresh` whenever something changed.

    ``kinds``: the first that has items is decided on.
    """

    def __init__(self, page: Any, kinds: tuple[Things, ...]) -> None:
        self._page, self._ui, self._kinds = page, page.ui, kinds
        self._keys: list[str] = []
        self._shown: Any = None
        self._headed: Any = None
        #: The registration for which a person has chosen to go on without deciding.
        self._leftFor: Any = None
        table = self._ui.carriedTable
        table.setColumnCount(4)
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
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
    def _things(self) -> Things:
        return next((kind for kind in self._kinds if kind.items()), self._kinds[0])

    @property
    def _items(self) -> dict[str, Any]:
        return self._things.items()

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

    def nextStep(self) -> Action:
        """What the person does next with the current thing; what to enter first leads there."""
        if not self._page.parameters.surgeon.strip():
            return self._page.pointTo(_("Enter who accepts"), "acceptedByEdit")
        item = self._items.get(self._selected() or "")
        if item is None or not item.undecided:
            return Action(self.open)
        return Action(_("Accept or reject: {name}").format(name=item.name))

    def count(self) -> str:
        """How many of the things that are offered nobody has decided on; empty for none."""
        waiting, offered = len(self.undecided()), sum(item.offered for item in self._items.values())
        return self._things.count(waiting, offered) if waiting else ""

    def hideUndecided(self, hidden: bool) -> None:
        """Show in the views what nobody has decided on, or not."""
        if self._page.running.view is not None:
            self._things.show(self._selected() or "", self.undecided(), hidden)

    def refresh(self) -> None:
        """One row a thing, and the current one above them."""
        things, items, ui = self._things, list(self._items.items()), self._ui
        # One thing after the other: before the registration is confirmed there is nothing to decide here.
        ui.carriedSection.visible = bool(items) and not things.blocked()
        before = self._before()
        shown = [(key, item, before.get(key)) for key, item in items]
        if self._headed is not things:
            self._headed = things
            ui.carriedTable.setHorizontalHeaderLabels(list(things.headers))
            for column, width in enumerate(things.widths):
                ui.carriedTable.setColumnWidth(column, width)
            ui.tableSection.text, ui.carriedTable.toolTip = things.title, things.definition
            ui.acceptButton.toolTip, ui.rejectButton.toolTip = things.tips
        if shown != self._shown:
            self._shown = shown
            self._fill(dict(items))
        self._showCurrent()

    def _fill(self, items: dict[str, Any]) -> None:
        table, things = self._ui.carriedTable, self._things
        selected = self._selected()
        self._keys = list(items)
        table.blockSignals(True)
        table.setRowCount(len(items))
        for row, (key, item) in enumerate(items.items()):
            tip = self._tip(key, item)
            for column, text in enumerate(things.cells(item)):
                cell = qt.QTableWidgetItem(text)
                cell.setToolTip(tip)
                if column == 3:
                    cell.setForeground(qt.QBrush(qt.QColor(readable(LEVEL_COLORS[things.level(item)]))))
                table.setItem(row, column, cell)
        table.resizeRowsToContents()
        undecided = [key for key, item in items.items() if item.undecided]
        if selected is None or selected not in undecided:
            selected = undecided[0] if undecided else selected
        if selected in self._keys:
            table.selectRow(self._keys.index(selected))
        table.blockSignals(False)
        self._jump()

    def _tip(self, key: str, item: Any) -> str:
        lines, before = self._things.tip(item), self._before().get(key, "")
        if before and item.accepted is None:
            lines.append(_("On an earlier scan: {before}. Decide again.").format(before=before))
        return "\n".join(lines)

    def _selected(self) -> str | None:
        row = self._ui.carriedTable.currentRow()
        return self._keys[row] if 0 <= row < len(self._keys) else None

    def _onSelected(self) -> None:
        self._showCurrent()
        self.hideUndecided(not self._page.panel.shows(self._page))
        self._jump()
        self._page.panel.askRefresh()

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
        if item is None or self._things.blocked() or not self._page.panel.shows(self._page):
            return
        middle, manager = self._things.middle(item), slicer.app.layoutManager()
        for name in manager.sliceViewNames():
            manager.sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(*middle)

    def _showCurrent(self) -> None:
        items, ui, blocked = self._items, self._ui, self._things.blocked()
        key = self._selected() or ""
        item, named = items.get(key), bool(self._page.parameters.surgeon.strip())
        place = f"{self._keys.index(key) + 1}/{len(self._keys)}" if item is not None else ""
        ui.itemLabel.text = "" if item is None else self._things.words(item, place)
        ui.itemLabel.toolTip = "" if item is None else "\n".join((self._things.definition, self._tip(key, item)))
        may = not blocked and named and item is not None and item.offered
        ui.acceptButton.enabled = bool(may and item and item.accepted is not True)
        ui.rejectButton.enabled = bool(may and item and item.accepted is not False)
        style = choiceButton() if may and item and item.accepted is None and not self.left else quietButton()
        for button in (ui.acceptButton, ui.rejectButton):
            if button.styleSheet != style:
                button.setStyleSheet(style)
        ui.nextItemButton.enabled = len(items) > 1
        good = sum(_isGood(each) for each in items.values())
        ui.acceptGoodButton.enabled = not blocked and named and good > 0
        ui.acceptGoodButton.text = _("Accept all good ({count})").format(count=good)
        waiting = bool(self.undecided())
        ui.leaveButton.visible = not blocked and waiting and not self.left
        why = blocked
        if not blocked and waiting and not named:
            why = _("Enter who accepts.")
        elif not blocked and waiting and self.left:
            why = _("Left undecided.")
        ui.carriedLabel.text = why
        ui.carriedLabel.visible = bool(why)

    def decide(self, accepted: bool) -> None:
        """Accept or reject the current thing."""
        key = self._selected() or ""
        if key in self._items:
            self._decide([key], accepted)

    def acceptGood(self) -> None:
        """Accept all whose verdict is good and that nobody has decided on."""
        self._decide([key for key, item in self._items.items() if _isGood(item)], True)

    def leave(self) -> None:
        """A person goes on without deciding: nothing rests on those things, and the record says so."""
        running, things = self._page.running, self._things
        names = ", ".join(self._items[key].name for key in sorted(self.undecided()))
        if not things.blocked() and names:
            try:
                things.leave(names, self._page.parameters.surgeon.strip() or _("nobody named"))
                self._leftFor, running.reportPath = running.registered, ""
            except IntraopError as error:
                running.problem = str(error)
        self._page.panel.refresh()

    def _decide(self, keys: list[str], accepted: bool) -> None:
        running, parameters, things = self._page.running, self._page.parameters, self._things
        if things.blocked():
            return
        before = self._before()
        try:
            for key in keys:
                before[key] = things.decide(self._items[key], accepted, parameters.surgeon)
        except IntraopError as error:
            running.problem = str(error)
        # A report that was written says what was decided before.
        running.reportPath = ""
        parameters.carriedBefore = json.dumps(before)
        self._page.panel.refresh()

    def _before(self) -> dict[str, str]:
        """What was decided last about each thing, also before the scene was loaded."""
        try:
            found = json.loads(self._page.parameters.carriedBefore or "{}")
        except json.JSONDecodeError:
            return {}
        return {str(key): str(text) for key, text in found.items()} if isinstance(found, dict) else {}


def _isGood(item: Any) -> bool:
    return item.accepted is None and item.verdict.level is Level.GOOD
