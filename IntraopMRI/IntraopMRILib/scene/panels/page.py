"""What every page of the session panel has: widgets, a state with its reason, and one next useful action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import qt
import slicer
from IntraopMRIReconstructionLib.scene.panel import inOrder
from slicer.i18n import tr as _

from ..parameters import Phase

if TYPE_CHECKING:
    from ..widget import SessionPanel


#: Behind this a tooltip says why its widget is disabled.
NOT_NOW = "\n\n" + _("Not now: ")


class Readiness(Enum):
    """Where a phase stands; the mark says it without colour."""

    BLOCKED = "○"
    READY = "●"
    DONE = "✓"


@dataclass(frozen=True)
class State:
    """Readiness with one sentence: what was done, what can be done now, or what is missing."""

    readiness: Readiness
    text: str


@dataclass(frozen=True)
class Action:
    """The next useful thing. ``run`` None: the person has to do something first, which ``text`` says."""

    text: str
    run: Callable[[], None] | None = None


class Page:
    """One phase. Subclasses set ``phase`` and ``uiFile`` and answer :meth:`state` and :meth:`action`."""

    phase: Phase
    uiFile: str

    def __init__(self, panel: SessionPanel) -> None:
        self.panel = panel
        self.widget = slicer.util.loadUI(panel.resourcePath(f"UI/{self.uiFile}"))
        self.ui = slicer.util.childWidgetVariables(self.widget)
        self.widget.setMRMLScene(slicer.mrmlScene)

    @property
    def parameters(self) -> Any:
        """The typed parameter node; only to be used while there is one."""
        return self.panel.parameters

    @property
    def running(self) -> Any:
        """Session, theatre and what came of them."""
        return self.panel.running

    def state(self) -> State:
        """Where this phase stands."""
        raise AssertionError(f"{type(self).__name__} does not say its state")

    def action(self) -> Action | None:
        """The next useful action on this page, None when there is nothing left to do here."""
        return None

    def refresh(self) -> None:
        """Show the present state; called whenever something changed."""

    def pointTo(self, text: str, name: str) -> Action:
        """The next useful thing is done in the widget of that name: the action leads there."""
        return Action(text, lambda: leadTo(getattr(self.ui, name)))

    def tick(self) -> None:
        """Show what changes by itself, such as ages; called about twenty times a second while the page is open."""

    def enter(self) -> None:
        """The page becomes visible."""

    def leave(self) -> None:
        """Another page becomes visible, or the panel is left."""

    def close(self) -> None:
        """The panel or its scene goes away for good: leave no node, thread or observer behind."""


def offer(widget: Any, *reasons: str) -> None:
    """Enable the widget unless there is a reason against it; its tooltip says the first one."""
    first = next((why for why in reasons if why), "")
    widget.enabled = not first
    widget.toolTip = widget.toolTip.partition(NOT_NOW)[0] + (f"{NOT_NOW}{first}." if first else "")


def fitRows(table: Any, most: int) -> None:
    """Rows as high as their words, and as many of them in sight as there are, at most ``most``."""
    table.resizeRowsToContents()
    rows = sum(table.rowHeight(row) for row in range(min(table.rowCount, most)))
    table.setFixedHeight(table.horizontalHeader().height + rows + 4)


def leadTo(widget: Any) -> None:
    """Unfold what the widget lies in, and put the cursor there."""
    above = widget.parentWidget()
    while above is not None:
        if above.inherits("ctkCollapsibleButton"):
            above.collapsed = False
        above = above.parentWidget()
    widget.setFocus(qt.Qt.OtherFocusReason)


def tabInOrder(widget: Any) -> None:
    """Let the Tab key go from top to bottom: sections that were put into a page would come after all of it."""
    before = None
    for each in inOrder(widget.layout()):
        if each.focusPolicy != qt.Qt.NoFocus:
            if before is not None:
                qt.QWidget.setTabOrder(before, each)
            before = each


def blocked(text: str) -> State:
    """Something is missing."""
    return State(Readiness.BLOCKED, text)


def ready(text: str) -> State:
    """Can be done now."""
    return State(Readiness.READY, text)


def done(text: str) -> State:
    """Was done."""
    return State(Readiness.DONE, text)


def connectFirst() -> State:
    """What most pages say before there is a session."""
    return blocked(_("Connect the scanner first."))
