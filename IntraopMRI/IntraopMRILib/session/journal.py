"""Writes down what a session did, as it happens and from any thread: the record that the report is made from."""

from __future__ import annotations

import importlib.metadata
import platform
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Measurement
from IntraopMRIReconstructionLib.errors import SessionError

from ..assess.margin import Margin
from ..assess.pieces import Piece
from ..assess.resection import RanoClass
from ..register.carry_over import Carried
from ..register.rigid import RigidRegistration
from ..register.vertebrae import VertebraRegistration
from ..report.implants import IN_ROW
from ..workflow.record import (
    CarriedEntry,
    CourseEntry,
    DrawnEntry,
    HeatEntry,
    ImageEntry,
    ImplantEntry,
    LookEntry,
    MarginEntry,
    Matrix4,
    PartEntry,
    PieceEntry,
    RegistrationEntry,
    ResidualEntry,
    SessionRecord,
    Timing,
    Vector3,
    image_entry,
    utc_now,
)
from .bones import Bone
from .measures import Found
from .troubles import Troubles
from .updates import ImplantFound, Judged, PlanCarried, ResidualFound, Role, ShiftFound

#: Numbers of an implant that are kept of an earlier look, by the ends of their names.
KEPT_OF_IMPLANT = (*IN_ROW, ": pedicle breach")
#: What a person has decided on an implant, in words.
WORDS_OF_IMPLANT = {"stays": "stays where it lies", "revise": "is to be revised"}
#: Packages whose versions decide on the numbers.
PACKAGES = ("numpy", "scipy", "SimpleITK", "slicer-core")


class Journal:
    """Keeps one :class:`SessionRecord` up to date. Results of an older image go when a newer one replaces it."""

    def __init__(
        self,
        patient_id: str,
        procedure: str,
        planned_measures: Mapping[str, str] | None = None,
        patient: Mapping[str, str] | None = None,
    ) -> None:
        """``planned_measures``: title of what a person has to draw, by kind. ``patient``: further facts of a header."""
        self._lock = threading.Lock()
        self._record = SessionRecord(
            patient_id,
            procedure,
            utc_now(),
            planned_measures=dict(planned_measures or {}),
            software=_versions(),
            patient=dict(patient or {}),
        )
        self._troubles = Troubles()

    @classmethod
    def resumed(cls, record: SessionRecord) -> Journal:
        """Goes on with the record of a session that was finished."""
        journal = cls(record.patient_id, record.procedure)
        journal._record = record
        return journal

    @property
    def record(self) -> SessionRecord:
        """The record as it is now."""
        with self._lock:
            return self._record

    def event(self, kind: str, text: str) -> None:
        """Something happened now."""
        self._change(lambda record: record.with_event(kind, text))

    def repeated(self, kind: str, text: str) -> int:
        """As :meth:`event`, of what may come all night: see :class:`Troubles`. Returns how often it has by now."""
        with self._lock:
            events, times = self._troubles.note(self._record.events, kind, text)
            self._record = replace(self._record, events=events)
        return times

    def decided(self, image_uid: str, text: str) -> SessionRecord:
        """A person has decided on the scan ``image_uid``; returns the record of it.

        Raises SessionError when another scan counts by now: its numbers are not what the person has seen.
        """

        def change(record: SessionRecord) -> SessionRecord:
            if record.registration is None or record.registration.fixed_uid != image_uid:
                raise SessionError("a newer scan has arrived meanwhile: look at it, then decide")
            return record.with_event("decision", text)

        return self._change(change)

    def timing(self, stage: str, seconds: float) -> None:
        """A stage took this long."""
        self._change(lambda record: replace(record, timings=(*record.timings, Timing(stage, seconds))))

    def image(self, image: Image, role: Role | str) -> None:
        """An image was made; what rested on the image it replaces is withdrawn, and kept as an earlier look."""
        entry = image_entry(image, role)

        def change(record: SessionRecord) -> SessionRecord:
            return replace(
                record,
                images=(*record.images, entry),
                looks=(*record.looks, *_look(record, entry)),
                registration=None,
                parts=(),
                residual=None,
                margin=None,
                drawn=(),
                implants=(),
                carried=(),
                # What was measured on older images, or could not be, says nothing of this one; times and the like stay.
                measurements=tuple(m for m in record.measurements if m.value is not None and not m.based_on),
            )

        self._change(change)

    def registration(self, found: RigidRegistration, fixed: Image, moving: Image) -> None:
        """A registration was tried; its verdict says with what result."""
        entry = RegistrationEntry(
            fixed_uid=fixed.uid,
            moving_uid=moving.uid,
            method="rigid: mutual information, correlation ratio, robust block matching",
            intraop_from_preop=_matrix(found.intraop_from_preop),
            error_mm=found.residual_mm,
            verdict=found.verdict,
        )

        def change(record: SessionRecord) -> SessionRecord:
            # When a scan that came late completes a pair, what was drawn on it meanwhile does not count.
            drawn = tuple(each for each in record.drawn if each.image_uid == fixed.uid)
            return replace(record, registration=entry, drawn=drawn).with_event("registration", found.verdict.text)

        self._change(change)

    def parts(self, found: Sequence[VertebraRegistration]) -> None:
        """Vertebrae were registered each on its own."""
        entries = tuple(_part(each) for each in found)
        self._change(lambda record: replace(record, parts=entries))

    def bone(self, bone: Bone) -> None:
        """A person accepted or rejected a vertebra. Raises SessionError when it is not, or no longer, offered."""
        words = "accepted" if bone.accepted else "rejected"
        text = f"{bone.name} {words} by {bone.decided_by}, error {bone.found.error_mm:.2f} mm; {bone.verdict.text}"
        before = _part(bone.found)
        after = replace(before, decision=words, decided_by=bone.decided_by, decided_utc=bone.decided_utc)

        def change(record: SessionRecord) -> SessionRecord:
            offered = [replace(part, decision="open", decided_by="", decided_utc="") for part in record.parts]
            if before not in offered:
                raise SessionError(
                    f"'{bone.name}' belongs to a registration that a newer image has withdrawn: decide on the new one"
                )
            at = offered.index(before)
            entries = (*record.parts[:at], after, *record.parts[at + 1 :])
            return replace(record, parts=entries).with_event("vertebra", text, bone.decided_utc)

        self._change(change)

    def stands(self, implants: Sequence[ImplantFound], measurements: Sequence[Measurement]) -> None:
        """A person has decided on what all these rest on: they take the place of those that were there."""
        entries = tuple(_implant(found) for found in implants)
        self._change(lambda record: replace(record, implants=entries, measurements=tuple(measurements)))

    def shift(self, found: ShiftFound, moving: Image) -> None:
        """The brain shift was followed: the registration that counts from now on."""
        begun = ", begun from what was found ahead in the native scan" if found.deformable.begun_from else ""
        entry = RegistrationEntry(
            fixed_uid=found.image.uid,
            moving_uid=moving.uid,
            method=f"rigid, then cubic B-spline lattice with the cavity masked{begun}",
            intraop_from_preop=_matrix(found.rigid.intraop_from_preop),
            error_mm=found.rigid.residual_mm,
            verdict=found.verdict,
        )
        self._change(lambda record: replace(record, registration=entry))
        self.measurement(found.shift)
        self.measurement(found.cavity)

    def carried(self, found: PlanCarried) -> None:
        """The plan was carried over to the newest image; what was decided about an older registration is void."""
        entries = tuple(_entry(item) for item in found.items)
        self._change(lambda record: replace(record, carried=entries))

    def decision(self, item: Carried) -> None:
        """A person accepted or rejected one item. Raises SessionError when it is not, or no longer, offered."""
        words = "accepted" if item.accepted else "rejected"
        text = (
            f"{item.kind} '{item.name}' {words} by {item.decided_by}: moved {item.mean_shift_mm:.1f} mm "
            f"(at most {item.shift_mm:.1f} mm), uncertainty {item.uncertainty_mm:.1f} mm"
        )

        def change(record: SessionRecord) -> SessionRecord:
            before = _entry(replace(item, accepted=None, decided_by="", decided_utc=""))
            undecided = [replace(entry, decision="open", decided_by="", decided_utc="") for entry in record.carried]
            if before not in undecided:
                raise SessionError(
                    f"'{item.name}' belongs to a registration that a newer image has withdrawn: decide on the new one"
                )
            at = undecided.index(before)
            entries = (*record.carried[:at], _entry(item), *record.carried[at + 1 :])
            return replace(record, carried=entries).with_event("carried over", text, item.decided_utc)

        self._change(change)

    def residual(self, update: ResidualFound) -> None:
        """The residual was assessed."""
        found = update.assessment
        centroid = found.residual_centroid_ras_mm
        entry = ResidualEntry(
            volume=found.measurements[0],
            extent_of_resection=found.measurements[1],
            rano=found.rano.value,
            rano_best=found.rano.best,
            rano_worst=found.rano.worst,
            rano_meaning=found.rano.meaning,
            rano_definition=found.rano.definition,
            rano_source=found.rano.source,
            centroid_ras_mm=None if centroid is None else vector(centroid),
            other=found.measurements[2:],
            notes=update.notes,
            pieces=tuple(_piece(piece, update) for piece in found.listed),
        )
        self._change(lambda record: replace(record, residual=entry))

    def margin(self, found: Margin, image: Image) -> None:
        """The margin of the resection was measured on ``image``."""
        at = None if found.at_ras_mm is None else vector(found.at_ras_mm)
        entry = MarginEntry(image.uid, found.closest, found.outside, found.text, at)
        self._change(lambda record: replace(record, margin=entry))

    def drawn(self, found: Found, image_uid: str, by: str) -> None:
        """A person's outline or landmarks gave numbers; replaces an earlier result of that kind."""
        entry = DrawnEntry(
            found.kind, found.title, image_uid, found.measurements, found.note, by, utc_now(), found.proposed
        )
        how = f"proposed by the software ({found.proposed}), reviewed" if found.proposed else "drawn"
        text = f"{found.title}: {len(found.measurements)} numbers" + (f", {how} by {by}" if by else "")
        self._change(
            lambda record: replace(
                record, drawn=(*(d for d in record.drawn if d.kind != entry.kind), entry)
            ).with_event("measured", text)
        )

    def withdrawn(self, kind: str) -> None:
        """A person takes back what was drawn for a measure of that kind."""

        def change(record: SessionRecord) -> SessionRecord:
            left = tuple(entry for entry in record.drawn if entry.kind != kind)
            if len(left) == len(record.drawn):
                raise SessionError(f"there is no result of the measure '{kind}' to withdraw")
            return replace(record, drawn=left).with_event("withdrawn", kind)

        self._change(change)

    def implant(self, found: ImplantFound) -> None:
        """An implant was compared with its plan; takes the place of an earlier comparison of the same one."""
        entry = _implant(found)

        def change(record: SessionRecord) -> SessionRecord:
            known = {each.name: each for each in record.implants} | {entry.name: entry}
            return replace(record, implants=tuple(known.values()))

        self._change(change)

    def placement(self, found: ImplantFound) -> None:
        """A person has decided on an implant. Raises SessionError when the record holds it no more."""
        entry = _implant(found)
        tip = next(m for m in found.measurements if m.name.endswith(": tip deviation"))
        what = f"'{entry.name}' {WORDS_OF_IMPLANT[entry.decision]}, decided by {entry.decided_by}"
        text = f"{what}: {entry.band}" + ("" if tip.value is None else f", tip {tip.value:.1f} mm from its plan")

        def change(record: SessionRecord) -> SessionRecord:
            if entry.measurements not in [each.measurements for each in record.implants if each.name == entry.name]:
                raise SessionError(f"'{entry.name}' was withdrawn by a newer image: decide on the new one")
            entries = tuple(entry if each.name == entry.name else each for each in record.implants)
            return replace(record, implants=entries).with_event("implant", text, entry.decided_utc)

        self._change(change)

    def heat(self, entry: HeatEntry) -> None:
        """A frame of thermometry was measured; replaces what its scan said before, since the same reference."""
        self._change(
            lambda record: replace(
                record, heating=(*(h for h in record.heating if h.began_utc != entry.began_utc), entry)
            )
        )

    def measurement(self, measurement: Measurement) -> None:
        """One more number of the session; replaces an older one of the same name.

        One that was made while a newer image replaced its own, as in the background, is not written down.
        """

        def change(record: SessionRecord) -> SessionRecord:
            known, counts = {entry.uid for entry in record.images}, {entry.uid for entry in record.images[-1:]}
            if record.registration is not None:
                counts.add(record.registration.fixed_uid)
            based_on = known.intersection(measurement.based_on)
            if based_on and not based_on & counts:
                return record
            others = (m for m in record.measurements if m.name != measurement.name)
            return replace(record, measurements=(*others, measurement))

        self._change(change)

    def missing(self, name: str, why: str) -> None:
        """A number that the plan asks for is not there: a dash with its reason in its place, until the next image."""
        self.measurement(Measurement(name, None, "", "What the plan asks for", missing_because=why))

    def finish(self) -> SessionRecord:
        """Close the record and return it."""
        return self._change(lambda record: replace(record, finished_utc=utc_now()))

    def _change(self, change: Callable[[SessionRecord], SessionRecord]) -> SessionRecord:
        with self._lock:
            self._record = change(self._record)
            return self._record


def _look(record: SessionRecord, newer: ImageEntry) -> tuple[LookEntry, ...]:
    """What the record says of its registered scan, before a ``newer`` one; nothing without a number."""
    registration, residual = record.registration, record.residual
    if registration is None or registration.fixed_uid == newer.uid or registration.verdict.level is Level.REFUSED:
        return ()
    image = next(entry for entry in record.images if entry.uid == registration.fixed_uid)
    if (image.role, newer.role) == ("native", "contrast"):
        # Two scans of one look.
        return ()
    numbers = [] if residual is None else [residual.volume, residual.extent_of_resection]
    numbers += [] if record.margin is None else [record.margin.closest]
    numbers += [m for implant in record.implants for m in implant.measurements if m.name.endswith(KEPT_OF_IMPLANT)]
    known = tuple(m for m in numbers if m.value is not None)
    if not known:
        return ()
    rano = ""
    if residual is not None and residual.volume.value is not None:
        rano = RanoClass(residual.rano, residual.rano_best, residual.rano_worst).text
    began = max((n for n, event in enumerate(record.events) if event.kind == "registration"), default=0)
    since = record.events[began:]
    return (
        LookEntry(
            image.uid,
            image.name,
            image.acquired_utc,
            known,
            rano,
            any(event.kind == "confirmed" for event in since),
            tuple(event.text for event in since if event.kind == "decision"),
        ),
    )


def _piece(piece: Piece, update: ResidualFound) -> PieceEntry:
    judged, course = update.judged.get(piece.number, Judged("", "")), update.courses.get(piece.number)
    return PieceEntry(
        number=piece.number,
        place=piece.place,
        sure=piece.sure.value,
        volume=piece.volume,
        longest=piece.longest,
        at_ras_mm=vector(piece.at_ras_mm),
        near=update.near.get(piece.number),
        excluded_by=judged.by,
        excluded_utc=judged.utc,
        course=CourseEntry(course.text, course.minutes, course.enhancement, course.change) if course else None,
    )


def vector(values: npt.ArrayLike) -> Vector3:
    """Three plain numbers."""
    x, y, z = np.asarray(values, dtype=np.float64).tolist()
    return x, y, z


def _entry(item: Carried) -> CarriedEntry:
    return CarriedEntry(
        name=item.name,
        kind=item.kind,
        moved_mean_mm=item.mean_shift_mm,
        moved_max_mm=item.shift_mm,
        uncertainty_mm=item.uncertainty_mm,
        verdict=item.verdict,
        decision={None: "open", True: "accepted", False: "rejected"}[item.accepted],
        decided_by=item.decided_by,
        decided_utc=item.decided_utc,
    )


def _part(found: VertebraRegistration) -> PartEntry:
    return PartEntry(found.name, _matrix(found.intraop_from_preop), found.error_mm, found.verdict)


def _implant(found: ImplantFound) -> ImplantEntry:
    actual = found.detected.trajectory
    return ImplantEntry(
        name=found.planned.name,
        diameter_mm=found.planned.diameter_mm,
        planned_entry_ras_mm=vector(found.planned.entry_ras_mm),
        planned_tip_ras_mm=vector(found.planned.tip_ras_mm),
        actual_entry_ras_mm=vector(actual.entry_ras_mm),
        actual_tip_ras_mm=vector(actual.tip_ras_mm),
        uncertainty_mm=found.detected.uncertainty_mm,
        band=found.grade,
        verdict=found.detected.verdict,
        measurements=found.measurements,
        planned_basis=found.basis,
        decision={None: "open", True: "stays", False: "revise"}[found.stays],
        decided_by=found.decided_by,
        decided_utc=found.decided_utc,
    )


def _matrix(values: npt.ArrayLike) -> Matrix4:
    return tuple(tuple(row) for row in np.asarray(values, dtype=np.float64).tolist())


def _versions() -> dict[str, str]:
    result = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result
