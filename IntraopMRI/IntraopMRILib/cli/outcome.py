"""What a session in the terminal came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from IntraopMRIReconstructionLib.data import Pose

from ..register.carry_over import Carried
from ..workflow.record import SessionRecord


@dataclass(frozen=True, eq=False)
class PointerSample:
    """Where the tip was (RAS, mm) and what the screen said of its distance to the residual (mm, None when blank)."""

    pose: Pose
    distance_mm: float | None


@dataclass(eq=False)
class Outcome:
    """What a session came to. ``overlay_s``: from the last byte of k-space to the picture with the overlay.

    ``carried``: the planned things where the newest registration puts them. ``missing``: why what was asked for is not
    in the record, by the name that it has there.
    """

    record: SessionRecord
    samples: list[PointerSample] = field(default_factory=list)
    overlay_s: float = 0.0
    carried: tuple[Carried, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
