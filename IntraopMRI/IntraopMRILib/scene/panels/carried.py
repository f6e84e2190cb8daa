"""The planned things on page 4: how far the brain shift moved each, and how sure that is."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Level
from slicer.i18n import tr as _

from ...register.carry_over import Carried
from ..display import number
from .style import LEVEL_COLORS, colored, sized


class PlannedThings:
    """See :class:`.one_by_one.Things`."""

    def __init__(self, running: Any) -> None:
        self._running = running
        self.headers: tuple[str, ...] = (_("Planned"), _("Moved"), _("± 95 %"), _("Position"))
        self.widths: tuple[int, ...] = (105, 62, 62)
        self.title = _("All of the plan")
        self.definition = _(
            "How far the brain shift moved each planned thing beyond the rigid pose (mean), and its uncertainty (95 %, "
            "largest of its points)"
        )
        self.verbs, self.open, self.basis = (_("Accept"), _("Reject")), False, True
        self.tips = (
            _("It moves with the brain shift; distances, alarms and the report rest on that position from now on"),
            _("It stays where the rigid pose puts it, and is marked so"),
        )

    def items(self) -> dict[str, Carried]:
        """All that was planned; nothing without a tumour, since bone does not follow a brain shift."""
        view, session = self._running.view, self._running.session
        if view is None or session is None or session.plan.tumour is None:
            return {}
        return dict(view.items)

    def blocked(self) -> str:
        """Nothing is accepted before the registration is confirmed."""
        return "" if self._running.trusted else _("Confirm first.")

    def cells(self, item: Carried) -> tuple[str, str, str, str]:
        """Name, shift, uncertainty, position."""
        moved = number(item.mean_shift_mm, "mm") if item.offered else "–"
        return item.name, moved, number(item.uncertainty_mm, "mm"), position(item)

    def words(self, item: Carried, place: str) -> str:
        """Name, place in the list, shift and state; against it, the first reason."""
        moved = ""
        if item.offered:
            moved = _("moved {mean:.1f} ± {radius:.1f} mm").format(mean=item.mean_shift_mm, radius=item.uncertainty_mm)
        against = [reason for reason in item.verdict.reasons if reason.level is not Level.GOOD]
        why = ""
        if against and not item.accepted:
            why = f" – {against[0].name} {number(against[0].value, against[0].unit)}"
        state = colored(position(item) + why, LEVEL_COLORS[self.level(item)], 13)
        return f"{sized(item.name, 15)}&nbsp;&nbsp;{place}<br>{escape(moved)}&nbsp;&nbsp;{state}"

    def tip(self, item: Carried) -> list[str]:
        """Kind, shifts, verdict, what its position rests on."""
        return [
            _("{kind}: moved {mean} on average, {largest} at most, beyond the rigid pose").format(
                kind=item.kind, mean=number(item.mean_shift_mm, "mm"), largest=number(item.shift_mm, "mm")
            ),
            _("Uncertainty: radius that holds the true position in 95 of 100 cases, largest of its points"),
            item.verdict.text,
            _("Now at: {basis}").format(basis=item.basis),
        ]

    def level(self, item: Carried) -> Level:
        """Only what a person accepted is good."""
        return Level.GOOD if item.accepted else Level.CHECK

    def middle(self, item: Carried) -> npt.NDArray[np.float64]:
        """The point of it that is nearest to their mean."""
        points = item.position_mm
        return np.asarray(points[np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1))])

    def count(self, waiting: int, offered: int) -> str:
        """Undecided ones in words."""
        return _("{waiting} of {offered} plan items undecided").format(waiting=waiting, offered=offered)

    def decide(self, item: Carried, accepted: bool, by: str) -> str:
        """Into the record, then into the views."""
        decided = self._running.session.decide(item, accepted, by)
        self._running.view.decided(decided)
        return decided.basis if accepted else str(_("rejected by {name}").format(name=decided.decided_by))

    def leave(self, names: str, by: str) -> None:
        """Into the record."""
        text = f"left undecided by {by}, not shown in navigation: {names}"
        self._running.session.journal.event("carried over", text)

    def show(self, _current: str, undecided: frozenset[str], hidden: bool) -> None:
        """All of them are drawn."""
        self._running.view.bridge.leaveOut(undecided if hidden else frozenset())


def position(item: Carried) -> str:
    """Where a thing is shown, in a few words."""
    if item.accepted:
        return _("Carried over")
    if item.accepted is False:
        return _("Rigid pose (rejected)")
    if not item.offered:
        return _("Rigid pose (not offered)")
    return _("Rigid pose: decide") if item.verdict.level is Level.GOOD else _("Rigid pose: check")
