"""One thing at a time on page 4, with accept, reject and next; all of them in a table below.

What nobody has decided on is shown on page 4 only: elsewhere it would be something that no person stands for. What the
things are, :class:`Things` says: planned things that a brain shift moved, vertebrae that were found each on its own, or
implants that were found.
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

from .page import Action, fitRows
from .style import LEVEL_COLORS, choiceButton, quietButton, readable

#: So many rows are seen at once; more are scrolled to.
MOST_ROWS = 7


class Things(Protocol):
    """What is decided on. Items are by key and have ``name``, ``offered``, ``undecided``, ``accepted``, ``verdict``."""

    #: Titles of the columns, the last of which is the decision, and the widths of the others; title of the table, what
    #: its numbers are, the words of both ways to decide, and what they mean. ``open``: the table is read at once.
    #: ``basis``: numbers rest on the decision, and nothing undecided is shown in navigation.
    headers: tuple[str, ...]
    widths: tuple[int, ...]
    title: str
    definition: str
    verbs: tuple[str, str]
    tips: tuple[str, str]
    open: bool
    basis: bool

    def items(self) -> dict[str, Any]:
        """All of them."""

    def blocked(self) -> str:
        """Why nothing may be decided now, in two words; empty when it may."""

    def cells(self, item: Any) -> tuple[str, ...]:
        """Row of the table."""

    def words(self, item: Any, place: str) -> str:
        """The current one, rich text; ``place``: in the list."""

    def tip(self, item: Any) -> list[str]:
        """More of it, line by line."""

    def level(self, item: Any) -> Level:
        """Its colour."""

    def middle(self, item: Any) -> npt.NDArray[np.float64] | None:
        """Where the views look at it, (3,) RAS mm; None where nobody knows."""

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

    ``kinds``: decided on one after the other; where all is decided, Next leads on to the other ones.
    """

    def __init__(self, page: Any, kinds: tuple[Things, ...]) -> None:
        self._page, self._ui, self._kinds = page, page.ui, kinds
        self._keys: list[str] = []
        self._shown: Any = None
        self._headed: Any = None
        self._kind = kinds[0]
        #: Whose things the table shows: another session begins with its first one.
        self._session: Any = None
        #: The registration for which a person has chosen to go on without deciding, by kind.
        self._leftFor: dict[Things, Any] = {}
        table = self._ui.carriedTable
        table.horizontalHeader().setStretchLastSection(True)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
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
        """Of which something is to be decided; otherwise those of before, as long as there are any."""
        there = [kind for kind in self._kinds if kind.items()]
        waiting = [kind for kind in there if _undecided(kind) and not self._isLeft(kind)]
        if self._kind not in (waiting or there):
            self._kind = next(iter(waiting or there), self._kinds[0])
        return self._kind

    @property
    def _items(self) -> dict[str, Any]:
        return self._things.items()

    def undecided(self) -> frozenset[str]:
        """Keys of what is offered and nobody has decided on."""
        return _undecided(self._things)

    @property
    def left(self) -> bool:
        """Whether a person has chosen to go on without deciding, for the registration that is shown now."""
        return self._isLeft(self._things)

    def _isLeft(self, kind: Things) -> bool:
        left = self._leftFor.get(kind)
        return left is not None and left is self._page.running.registered

    @property
    def open(self) -> str:
        """What is to be decided before anybody goes on, in words; empty when nothing is."""
        return "" if self.left else self.count()

    @property
    def openBasis(self) -> str:
        """The same of what numbers rest on: those of an implant are there before anybody decides on it."""
        return "" if self.listsImplants else self.open

    @property
    def listsImplants(self) -> bool:
        """Whether the table has a row for each implant."""
        things = self._things
        return not things.basis and bool(things.items()) and not things.blocked()

    def nextStep(self) -> Action:
        """What the person does next with the current thing; what to enter first leads there."""
        if not self._page.parameters.surgeon.strip():
            return self._page.pointTo(_("Enter who accepts"), "acceptedByEdit")
        item = self._items.get(self._selected() or "")
        if item is None or not item.undecided:
            return Action(self.open)
        yes, no = self._things.verbs
        return Action(_("{yes} or {no}: {name}").format(yes=yes, no=no.lower(), name=item.name))

    def count(self) -> str:
        """How many of the things that are offered nobody has decided on; empty for none."""
        return _count(self._things)

    def hideUndecided(self, hidden: bool) -> None:
        """Show in the views what nobody has decided on, or not."""
        if self._page.running.view is not None:
            for kind in self._kinds:
                kind.show((self._selected() or "") if kind is self._things else "", _undecided(kind), hidden)

    def hidden(self) -> str:
        """How many of what is not shown in navigation nobody has decided on, in words; empty for none."""
        kinds = [kind for kind in self._kinds if kind.basis]
        return next((words for words in map(_count, kinds) if words), "")

    def refresh(self) -> None:
        """One row a thing, and the current one above them."""
        things, items, ui = self._things, list(self._items.items()), self._ui
        # One thing after the other: before the registration is confirmed there is nothing to decide here.
        ui.carriedSection.visible = bool(items) and not things.blocked()
        before = self._before()
        shown = [(key, item, before.get(key)) for key, item in items]
        if self._headed is not things:
            self._headed = things
            self.hideUndecided(not self._page.panel.shows(self._page))
            ui.carriedTable.setColumnCount(len(things.headers))
            ui.carriedTable.setHorizontalHeaderLabels(list(things.headers))
            for column, width in enumerate(things.widths):
                ui.carriedTable.setColumnWidth(column, width)
            ui.tableSection.text, ui.carriedTable.toolTip = things.title, things.definition
            ui.acceptButton.toolTip, ui.rejectButton.toolTip = things.tips
            ui.acceptButton.text, ui.rejectButton.text = things.verbs
            ui.tableSection.collapsed = not things.open
        if shown != self._shown:
            self._shown = shown
            self._fill(dict(items))
        self._showCurrent()

    def _fill(self, items: dict[str, Any]) -> None:
        table, things, session = self._ui.carriedTable, self._things, self._page.running.session
        selected, self._session = self._selected() if session is self._session else None, session
        self._keys = list(items)
        table.blockSignals(True)
        table.setRowCount(len(items))
        for row, (key, item) in enumerate(items.items()):
            tip = self._tip(key, item)
            for column, text in enumerate(things.cells(item)):
                cell = qt.QTableWidgetItem(text)
                cell.setToolTip(tip)
                if column == len(things.headers) - 1:
                    cell.setForeground(qt.QBrush(qt.QColor(readable(LEVEL_COLORS[things.level(item)]))))
                table.setItem(row, column, cell)
        fitRows(table, MOST_ROWS)
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
        waiting = [key for key in self._keys if key in self.undecided()]
        open_, now = waiting or self._keys, self._selected()
        others = [kind for kind in self._kinds if kind.items()]
        if not waiting and len(others) > 1 and now == self._keys[-1]:
            self._kind = others[(others.index(self._kind) + 1) % len(others)]
            self.refresh()
        elif open_:
            at = -1 if now is None or now not in open_ else open_.index(now)
            self._ui.carriedTable.selectRow(self._keys.index(open_[(at + 1) % len(open_)]))

    def _jump(self) -> None:
        """All slice views to the current thing, so that it is decided on where it is seen."""
        item = self._items.get(self._selected() or "")
        if item is None or self._things.blocked() or not self._page.panel.shows(self._page):
            return
        middle, manager = self._things.middle(item), slicer.app.layoutManager()
        if middle is None:
            return
        for name in manager.sliceViewNames():
            manager.sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(*middle)

    def _showCurrent(self) -> None:
        things, items, ui, blocked = self._things, self._items, self._ui, self._things.blocked()
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
        ui.acceptGoodButton.text = _("{verb} all good ({count})").format(verb=things.verbs[0], count=good)
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
                self._leftFor[things], running.reportPath = running.registered, ""
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


def _undecided(kind: Things) -> frozenset[str]:
    return frozenset(key for key, item in kind.items().items() if item.undecided)


def _count(kind: Things) -> str:
    waiting, offered = len(_undecided(kind)), sum(item.offered for item in kind.items().values())
    return kind.count(waiting, offered) if waiting else ""
