"""Implants on page 4: how each lies against its plan, and whether it stays or is to be revised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Level, Measurement, Reason, Verdict
from slicer.i18n import tr as _

from ...report.implants import IN_ROW
from ...session.updates import ImplantFound, deviation
from ..display import CLEARANCE, number, shownOfImplant, spread
from .style import CHECK, colored, graded, sized

#: A band in a narrow column.
SHORT = {"inaccurate": "inacc.", "unacceptable": "unacc."}


@dataclass(frozen=True, eq=False)
class Placed:
    """A planned implant as it was found, or ``why`` it was not. ``where``: its middle (3,), RAS mm."""

    name: str
    found: ImplantFound | None
    why: str
    where: npt.NDArray[np.float64] | None

    @property
    def offered(self) -> bool:
        """Whether there is anything to decide on."""
        return self.found is not None

    @property
    def accepted(self) -> bool | None:
        """Whether it stays; None until a person has decided."""
        return None if self.found is None else self.found.stays

    @property
    def undecided(self) -> bool:
        """Whether it was found and nobody has decided."""
        return self.offered and self.accepted is None

    @property
    def verdict(self) -> Verdict:
        """Of its detection; good only with the best of all grades, without a doubt."""
        if self.found is None:
            return Verdict((Reason("found", 0, "", "1", Level.REFUSED),))
        reasons = self.found.detected.verdict.reasons
        optimal = self.found.band.text == "optimal" and (self.found.breach is None or self.found.breach.text == "A")
        return Verdict((*reasons, Reason("optimal", float(optimal), "", "1", Level.GOOD if optimal else Level.CHECK)))


class FoundImplants:
    """See :class:`.one_by_one.Things`."""

    def __init__(self, running: Any) -> None:
        self._running = running
        self.headers: tuple[str, ...] = (
            _("Implant"),
            _("Entry\nmm"),
            _("Tip\nmm"),
            _("Angle"),
            _("Grade"),
            _("Decision"),
        )
        self.widths: tuple[int, ...] = (84, 40, 40, 46, 62)
        self.title = _("All implants")
        self.definition = _(
            "Distance of the implant that was found from its planned entry and tip, angle to the planned axis, and its "
            "grade: the Gertzbein-Robbins grade (A to E) where its pedicle is known, otherwise the accuracy band"
        )
        self.verbs, self.open, self.basis = (_("Leave"), _("Revise")), True, False
        self.tips = (
            _("The implant stays where it lies; the record and the report say so"),
            _("The implant is to be revised, or what was found is not this implant; the record and the report say so"),
        )

    def items(self) -> dict[str, Placed]:
        """All that are planned, in the order of the plan, once one of them was looked for."""
        session, shown = self._running.session, self._running.shownImplants()
        if session is None or not shown:
            return {}
        missing = {m.name: m.missing_because for m in session.journal.record.measurements if m.value is None}
        result = {}
        for planned in session.plan.trajectories:
            found = shown.get(planned.name, missing.get(deviation(planned.name), ""))
            if isinstance(found, ImplantFound):
                actual = found.detected.trajectory
                middle = (actual.entry_ras_mm + actual.tip_ras_mm) / 2.0
                result[f"implant.{planned.name}"] = Placed(planned.name, found, "", middle)
            elif found:
                result[f"implant.{planned.name}"] = Placed(planned.name, None, found, None)
        return result

    def blocked(self) -> str:
        """Nothing is decided before the registration, or the vertebra, is confirmed."""
        return "" if self._running.trusted or self._running.bones else _("Confirm first.")

    def cells(self, item: Placed) -> tuple[str, ...]:
        """Name, entry, tip, angle, grade, decision."""
        if item.found is None:
            return item.name, "–", "–", "–", "–", self._state(item)
        numbers = _inRow(item.found)
        # The unit stands once, above its column: with it in every row, none would fit on one line.
        texts = ["–" if m.value is None else number(m.value, m.unit).removesuffix(" mm") for m in numbers]
        return item.name, *texts, short_grade(item.found), self._state(item)

    def words(self, item: Placed, place: str) -> str:
        """Name and grade, the numbers with their intervals, the structure at risk that is nearest."""
        if item.found is None:
            return f"{sized(item.name, 15)}&nbsp;&nbsp;{place}<br>{colored(item.why, CHECK, 12)}"
        numbers = _inRow(item.found)
        names = (_("entry"), _("tip"), _("angle"))
        shown = ", ".join(f"{name} {spread(m)}" for name, m in zip(names, numbers, strict=True) if m.value is not None)
        # What lies nearest decides whether a screw off its plan has to be revised.
        near = [m for m in shownOfImplant(item.found.measurements) if CLEARANCE in m.name]
        shown += "".join(f"; {spread(m)} " + _("to {name}").format(name=m.name.partition(CLEARANCE)[2]) for m in near)
        return f"{graded(item.name, item.found, 14)}&nbsp;&nbsp;{place}<br>{escape(shown)}"

    def tip(self, item: Placed) -> list[str]:
        """Grade in full, every deviation, detection, who has decided."""
        if item.found is None:
            return [item.why]
        found = item.found
        lines = [found.grade, *(f"{m.name}: {spread(m)}" for m in found.measurements if m.value is not None)]
        lines.append(_("Detection: {verdict}").format(verdict=found.detected.verdict.text))
        lines.append(_("Plan: {basis}").format(basis=found.basis))
        if found.stays is not None:
            lines.append(_("{state}, decided by {name}").format(state=self._state(item), name=found.decided_by))
        return lines

    def level(self, item: Placed) -> Level:
        """Only what a person leaves where it is is good."""
        return Level.GOOD if item.accepted else Level.CHECK

    def middle(self, item: Placed) -> npt.NDArray[np.float64] | None:
        """Its middle; None where it was not found."""
        return item.where

    def count(self, waiting: int, offered: int) -> str:
        """Undecided ones in words."""
        return _("{waiting} of {offered} implants undecided").format(waiting=waiting, offered=offered)

    def decide(self, item: Placed, accepted: bool, by: str) -> str:
        """Into the record."""
        running = self._running
        decided = running.session.decide_implant(item.found, accepted, by)
        running.judged(decided)
        return str(_("{state} (by {name})").format(state=self._state(replace(item, found=decided)), name=by.strip()))

    def leave(self, names: str, by: str) -> None:
        """Into the record."""
        self._running.session.journal.event("implant", f"left undecided by {by}: {names}")

    def show(self, _current: str, _undecided: frozenset[str], _hidden: bool) -> None:
        """All of them are drawn: where metal lies is seen, whatever is decided of it."""

    def _state(self, item: Placed) -> str:
        if item.found is None:
            return str(_("Not found"))
        if item.accepted is None:
            return str(_("Decide"))
        return str(_("Stays") if item.accepted else _("Revise"))


def _inRow(found: ImplantFound) -> list[Measurement]:
    return [next(m for m in found.measurements if m.name.endswith(end)) for end in IN_ROW]


def short_grade(found: ImplantFound) -> str:
    """Gertzbein-Robbins letters where the pedicle is known, otherwise the band, for a narrow column."""
    graded_by = found.breach or found.band
    best, worst = graded_by.best, graded_by.worst
    best, worst = (SHORT.get(each, each) for each in (best, worst))
    return best if best == worst else f"{best}–{worst}"
