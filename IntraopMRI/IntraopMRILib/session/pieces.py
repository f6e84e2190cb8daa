"""The pieces of a residual beside the structures at risk, and what a person has judged of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.errors import SessionError

from ..assess.pieces import Piece, counted
from ..assess.residual import excluding
from ..navigate.distance import SurfaceDistance
from ..register.carry_over import Carried
from .updates import Judged, ResidualFound

#: Of each piece, by its number: mm to each structure at risk by name, where the rigid pose puts that and where its
#: tissue is now (None when that is not offered), with what both outlines leave open.
Distances = Mapping[int, Mapping[str, tuple[float, float | None, float]]]


def distances(pieces: Iterable[Piece], labels: Mapping[str, tuple[Image, Image | None]]) -> Distances:
    """How far each piece lies from each structure; ``labels`` as of :class:`.updates.PlanCarried`."""
    # Nothing is near to a structure that the scan does not reach.
    surfaces = {
        name: tuple(None if label is None else SurfaceDistance(label, name) for label in (rigid, now))
        for name, (rigid, now) in labels.items()
        if rigid.array.any() and (now is None or now.array.any())
    }
    found: dict[int, dict[str, tuple[float, float | None, float]]] = {}
    for piece in pieces:
        own = SurfaceDistance(piece.label)
        for name, (rigid, now) in surfaces.items():
            assert rigid is not None
            known = own.between(rigid), None if now is None else own.between(now)
            open_mm = float(np.hypot(own.uncertainty_mm, rigid.uncertainty_mm))
            found.setdefault(piece.number, {})[name] = (*known, open_mm)
    return found


def nearest(found: Distances, items: Mapping[str, Carried], based_on: str) -> dict[int, Measurement]:
    """The nearest structure at risk of each piece, as a person has decided on them; nothing of the undecided ones."""
    result = {}
    for number, by_name in found.items():
        places, undecided = [], []
        for name, (rigid, now, open_mm) in by_name.items():
            item = items.get(f"risk.{name}")
            if item is None or item.undecided:
                undecided.append(name)
                continue
            moved = item.accepted and now is not None
            places.append((now if moved and now is not None else rigid, open_mm, item))
        left_out = f"; not decided on: {', '.join(undecided)}" if undecided else ""
        if not places:
            why = f"not decided on: {', '.join(undecided)}"
            result[number] = Measurement(
                f"Piece {number} to structure at risk", None, "mm", "nearest structure at risk", missing_because=why
            )
            continue
        distance, open_mm, item = min(places, key=lambda place: place[0])
        error = float(np.hypot(open_mm, item.uncertainty_mm))
        result[number] = Measurement(
            f"Piece {number} to {item.name}",
            distance,
            "mm",
            f"Least distance between this piece and {item.name} ({item.basis}), the nearest structure at risk, 0 where "
            f"they touch; interval: half a voxel of both and the uncertainty of its place{left_out}",
            interval=(max(0.0, distance - error), distance + error),
            based_on=(based_on,),
        )
    return result


def judged(whole: ResidualFound, excluded: Mapping[int, Judged]) -> ResidualFound:
    """What was found, without the pieces that a person has ``excluded``: the numbers change, and notes say so.

    ``whole``: in which all pieces count. Raises AssessmentError for what is no piece that can be excluded.
    """
    rest = excluding(whole.assessment, frozenset(excluded))
    if not excluded:
        return replace(whole, judged={})
    before = whole.assessment
    out_cm3 = sum(piece.volume.value or 0.0 for piece in before.listed if piece.number in excluded)
    by = ", ".join(dict.fromkeys(one.by for one in excluded.values()))
    which = ", ".join(str(number) for number in sorted(excluded))
    note = (
        f"{counted(len(excluded))} of {out_cm3:.2f} cm3 (number {which}) judged not tumour by {by}, for this scan: "
        f"residual {rest.volume_cm3:.2f} cm3, with it {before.volume_cm3:.2f} cm3 "
        f"({before.interval_cm3[0]:.2f} to {before.interval_cm3[1]:.2f})."
    )
    alone = "That nothing is left rests on this exclusion alone: the scan shows enhancement."
    notes = (*whole.notes, note, *((alone,) if rest.volume_cm3 == 0 else ()))
    return replace(whole, assessment=rest, notes=notes, judged=dict(excluded))


def require_listed(found: ResidualFound | None, number: int, by: str) -> ResidualFound:
    """What was found, where it has that piece and somebody judges it. Raises SessionError otherwise."""
    if found is None:
        raise SessionError("there is no residual to judge: a newer image has withdrawn it, or none was assessed")
    if not by.strip():
        raise SessionError("name who judges the piece")
    if number not in {piece.number for piece in found.assessment.listed}:
        raise SessionError(f"there is no piece {number}: judge one of those that are listed")
    return found
