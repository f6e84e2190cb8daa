"""Numbers that come behind the residual, which is shown meanwhile: the margin, and the course of each enhancement.

Until one is measured its place says that it is still to come, and whoever writes the record waits for it. A stop, or
what goes wrong, takes nothing else along: its place says that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from IntraopMRIReconstructionLib.data import Progress
from IntraopMRIReconstructionLib.errors import Cancelled

from ..assess.margin import no_margin
from .decide import Decisions
from .journal import Journal
from .pair import ScanPair
from .plan import Plan
from .receive import ArrivedScan
from .resection import TO_COME, margin_found, with_courses, without_courses
from .tell import Teller

#: Stands in the place of a number of which nothing came.
NOT_MADE = "it could not be measured"


class Behind:
    """Of one session; used by its worker alone, but :attr:`waits`."""

    def __init__(self, plan: Plan, pair: ScanPair, decisions: Decisions, journal: Journal, teller: Teller) -> None:
        self._plan, self._pair, self._decisions, self._journal, self._teller = plan, pair, decisions, journal, teller

    @property
    def waits(self) -> bool:
        """Whether the record holds a number that is still to be measured."""
        record = self._journal.record
        pieces = () if record.residual is None else record.residual.pieces
        numbers = [piece.course.change for piece in pieces if piece.course is not None]
        numbers += [] if record.margin is None else [record.margin.closest]
        return any(number.missing_because == TO_COME for number in numbers)

    def stages(self) -> Iterator[tuple[str, Callable[[ArrivedScan], None]]]:
        """Name of each, and what it does after a scan; nothing when no contrast scan counts."""
        if self._plan.tumour is not None and self._pair.newest == "contrast":
            yield "measure the margin", self._margin
            yield "follow the enhancement", self._courses

    def _margin(self, scan: ArrivedScan) -> None:
        tumour, placed = self._plan.tumour, self._pair.placed.get("contrast")
        if tumour is None or placed is None or placed.deformable is None:
            return
        image, found = self._pair.images["contrast"], placed.deformable
        self._measure(
            "measure the margin",
            "measuring the margin",
            scan,
            lambda _progress: self._journal.margin(margin_found(self._pair, found, tumour), image),
            lambda: self._journal.margin(no_margin(NOT_MADE, (image.uid, tumour.uid)), image),
        )

    def _courses(self, scan: ArrivedScan) -> None:
        found = self._decisions.found
        if found is None or not found.courses:
            return
        told = found
        self._measure(
            "follow the enhancement",
            "measuring the course of enhancement",
            scan,
            lambda progress: self._decisions.completed(told, with_courses(self._pair, told, progress)),
            lambda: self._decisions.completed(told, without_courses(told, NOT_MADE)),
        )

    def _measure(
        self, stage: str, what: str, scan: ArrivedScan, work: Callable[[Progress], None], failed: Callable[[], None]
    ) -> None:
        """``work`` writes its number down; ``failed``: that there is none."""
        tell = self._teller.progress(stage)
        with self._teller.reporting(stage, False, scan.protocol) as done:
            if not tell(0.0, what):
                raise Cancelled(f"{what} was stopped")
            work(tell)
            done.append(stage)
        if not done:
            failed()
        tell(1.0, what)
