"""A section of page 6: the residual piece by piece. The views go to each; a person may judge one not to be tumour."""

from __future__ import annotations

from html import escape
from typing import Any

import qt
import slicer
from IntraopMRIReconstructionLib.data import Measurement
from IntraopMRIReconstructionLib.errors import IntraopError
from slicer.i18n import tr as _

from ...assess.course import Course
from ...assess.pieces import Sure, counted
from ..display import interval, number, spread
from .page import fitRows, offer
from .style import CHECK, DANGER, colored, sized

#: So many rows are seen at once, one less where each piece has a line more; others are scrolled to.
MOST_ROWS = 3


class PieceSection:
    """Adds itself to ``layout`` of ``page`` at a place. Call :meth:`refresh` whenever something changed, and
    :meth:`tick` for what changes by itself: how far the tip is from each.
    """

    def __init__(self, page: Any, layout: Any, place: int) -> None:
        self._page, self._running = page, page.running
        self._widget = slicer.util.loadUI(page.panel.resourcePath("UI/PieceSection.ui"))
        self.ui = slicer.util.childWidgetVariables(self._widget)
        self._widget.setMRMLScene(slicer.mrmlScene)
        layout.insertWidget(place, self._widget)
        vars(page.ui).update(vars(self.ui))
        table = self.ui.pieceTable
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Piece"), _("Volume"), _("Tip"), _("Where")])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().hide()
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setWordWrap(False)  # the current one says where it is above, and the tooltip of each
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        for column, width in enumerate((46, 66, 66)):
            table.setColumnWidth(column, width)
        table.connect("itemSelectionChanged()", self._onSelected)
        self.ui.previousPieceButton.connect("clicked()", lambda: self.step(-1))
        self.ui.nextPieceButton.connect("clicked()", lambda: self.step(+1))
        self.ui.notTumourButton.connect("clicked()", self.judge)

    @property
    def _pieces(self) -> dict[int, Any]:
        """Pieces by number, of a residual whose registration a person has confirmed."""
        view = self._running.view
        return view.pieces if view is not None and self._running.trusted else {}

    @property
    def _current(self) -> Any:
        return self._pieces.get(self._running.view.piece) if self._pieces else None

    def refresh(self) -> None:
        """One row a piece, and the current one above them."""
        pieces, ui, current = self._pieces, self.ui, self._current
        ui.pieceSection.visible = bool(pieces)
        if not pieces:
            return
        ui.pieceSection.text = _("Residual in {count}, one by one").format(count=counted(len(pieces)))
        view = self._running.view
        table = ui.pieceTable
        table.blockSignals(True)
        table.setRowCount(len(pieces))
        for row, piece in enumerate(pieces.values()):
            doubt = view.doubt(piece)
            where = f"{doubt}; {piece.place}" if doubt else piece.place
            texts = (str(piece.number), number(piece.volume.value, "cm3"), "", where)
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip("\n".join(self._tip(piece)))
                table.setItem(row, column, item)
        fitRows(table, MOST_ROWS - bool(view.courses))
        if current is not None:
            table.selectRow(list(pieces).index(current.number))
        table.blockSignals(False)
        named = bool(self._page.parameters.surgeon.strip())
        whom = "" if named else _("enter the surgeon first")
        offer(ui.notTumourButton, "" if current is not None else _("go to a piece first"), whom)
        excluded = current is not None and current.number in view.judged
        ui.notTumourButton.text = _("Count it again") if excluded else _("Not tumour")
        why = "" if named or current is None else _("Enter the surgeon above before judging a piece.")
        small = next((m for m in self._running.residual.measurements if m.name.startswith("Smaller than")), None)
        rest = "" if small is None else f"{small.name}: {spread(small)}"
        still = current is not None and self._page.parameters.tracker.used and not self._page.parameters.followPointer
        stays = _("The views stand still; F7: they follow the pointer again.") if still else ""
        notes = [escape(words) for words in (why, stays, rest) if words]
        ui.pieceNote.text = "<br>".join(notes)
        ui.pieceNote.visible = bool(notes)
        self.tick()

    def tick(self) -> None:
        """How far the tip is now; a dash with its reason while that cannot be told."""
        pieces, table, current = self._pieces, self.ui.pieceTable, self._current
        if not pieces or table.rowCount != len(pieces):
            return
        view = self._running.view
        for row, one in enumerate(pieces):
            tip = view.tipToPiece(one)
            text = "–" if tip is None or tip.value is None else number(tip.value, "mm")
            if table.item(row, 2).text() != text:
                table.item(row, 2).setText(text)
        words = _("Next shows the first piece.") if current is None else self._words(current)
        if self.ui.pieceLabel.text != words:
            self.ui.pieceLabel.text = words

    def step(self, by: int) -> None:
        """To the next piece, or the one before; from none to the first, or the last."""
        numbers = list(self._pieces)
        if not numbers:
            return
        now = self._running.view.piece
        at = (0 if by > 0 else -1) if now not in numbers else (numbers.index(now) + by) % len(numbers)
        self.goTo(numbers[at])

    def goTo(self, piece: int) -> None:
        """All slices and the 3D view to that piece, with a mark around it. The pointer moves the views no more."""
        place = self._running.view.goTo(piece)
        if place is None:
            return
        self._page.parameters.followPointer = False
        manager = slicer.app.layoutManager()
        for name in manager.sliceViewNames():
            manager.sliceWidget(name).mrmlSliceNode().JumpSliceByCentering(*place)
        threeD = manager.threeDWidget(0)
        if threeD is not None:
            view = threeD.threeDView()
            renderer = view.renderWindow().GetRenderers().GetFirstRenderer()
            camera = renderer.GetActiveCamera()
            # As it was turned and as near: only its middle moves.
            before, at = camera.GetFocalPoint(), camera.GetPosition()
            camera.SetPosition(*(p + new - old for p, new, old in zip(at, place, before, strict=True)))
            camera.SetFocalPoint(*place)
            renderer.ResetCameraClippingRange()
            view.scheduleRender()
        self._page.panel.refresh()

    def judge(self) -> None:
        """The surgeon judges the current piece not to be tumour, or to be it again; for this scan."""
        current = self._current
        if current is None:
            return
        tumour = current.number in self._running.view.judged
        try:
            self._running.session.judge_piece(current.number, tumour, self._page.parameters.surgeon)
        except IntraopError as error:
            self._running.problem = str(error)
        # A report that was written says what counted before.
        self._running.reportPath = ""
        self._page.panel.refresh()

    def _onSelected(self) -> None:
        row, numbers = self.ui.pieceTable.currentRow(), list(self._pieces)
        if 0 <= row < len(numbers) and numbers[row] != self._running.view.piece:
            self.goTo(numbers[row])

    def _words(self, piece: Any) -> str:
        """The current piece, its size large; what speaks against it in amber."""
        view = self._running.view
        doubt = view.doubt(piece)
        head = _("Piece {number} of {count}").format(number=piece.number, count=len(self._pieces))
        value, between = number(piece.volume.value, "cm3"), interval(piece.volume.interval, "cm3", piece.volume.value)
        size = sized(value, 18) if doubt else colored(value, DANGER, 18)
        across = escape(_("Longest {value}").format(value=spread(piece.longest)))
        tip = view.tipToPiece(piece.number)
        if self._page.parameters.tracker.used:
            # One line with a number and without: a pose that comes and goes moves no button.
            known = tip is not None and tip.value is not None
            said = f"<b>{escape(spread(tip))}</b>" if known else escape(_("– no live pose"))
            across += f"&nbsp;&nbsp;&nbsp;{escape(_('Tip to it'))}: {said}"
        lines = [
            f"{sized(head, 15)}&nbsp;&nbsp;{size}&nbsp;&nbsp;{escape(between)}",
            sized(piece.place[:1].upper() + piece.place[1:], 14),
            across,
        ]
        near = view.near.get(piece.number)
        if near is not None:
            lines.append(_beside(near.name.partition(" to ")[2].strip(), near))
        course = view.courses.get(piece.number)
        if course is not None:
            lines += _course(course)
        if doubt:
            judged = view.judged.get(piece.number)
            by = _(": {name}, for this scan").format(name=judged.by) if judged is not None else ""
            lines.append(colored(doubt[:1].upper() + doubt[1:] + by, CHECK, 14))
        return "<br>".join(lines)

    def _tip(self, piece: Any) -> list[str]:
        sure = self._running.view.doubt(piece) or Sure.SURE.value
        course = self._running.view.courses.get(piece.number)
        known = [piece.volume, piece.longest, *([] if course is None else [*course.enhancement, course.change])]
        numbers = [f"{m.name}: {spread(m)}. {m.definition}." for m in known if m.value is not None]
        return [piece.place, *numbers, sure]


def _course(course: Course) -> list[str]:
    """One line from the first scan to the newest, what it does first, and what speaks against that in amber."""
    if course.change.value is None:
        return [_beside(_("Course of enhancement"), course.change)]
    first, newest = (number(m.value or 0.0, m.unit) for m in (course.enhancement[0], course.enhancement[-1]))
    ends = _("{first} to {newest} in {minutes:.0f} min").format(first=first, newest=newest, minutes=course.minutes[-1])
    lines = [f"<b>{escape(course.head[:1].upper() + course.head[1:])}</b>: {escape(ends)}"]
    if course.caution:
        lines.append(colored(course.caution[:1].upper() + course.caution[1:], CHECK, 12))
    return lines


def _beside(what: str, measurement: Measurement) -> str:
    what = what[:1].upper() + what[1:]
    if measurement.value is None:
        return f"{escape(what)}: –&nbsp;&nbsp;{escape(measurement.missing_because)}"
    return f"{escape(what)}: <b>{escape(spread(measurement))}</b>"
