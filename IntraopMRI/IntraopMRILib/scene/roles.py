"""What each node of a session plays, by the name of its role, and what that means for it: one table for all of scene.

Roles are paths: ``preop.plan.A.line`` lies below ``preop.plan.A``, which lies below ``preop``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from IntraopMRIReconstructionLib.errors import DataError

from . import colors, recipes
from .display import Line

Frame = Literal["preop", "intraop"]

#: Role of the transform above all preoperative nodes, and the prefixes of roles that rest on it.
REGISTRATION = "registration"
#: Roles of the grid transform, when the brain shift is followed, and of the linear one below it.
SHIFT = "shift"
CARRIED = "registration.carried"
PREOP = "preop."
RESULT = "result."
INTRAOP = "intraop."
IMPLANT = f"{INTRAOP}implant."
RESIDUAL = f"{RESULT}residual"
#: Around the piece of the residual that the views stand at.
PIECE = f"{RESULT}piece"
AT_RISK = f"{PREOP}risk."
BONE = "bone."
MAP = "map."
HEAT = "heat."
#: Edge of what a map of a quantity shows, and the scan, dimmed, that stands around it.
FRAME, AROUND = f"{MAP}frame", "around"
#: What was found with a registration goes with it.
FOUND = (RESULT, IMPLANT)
#: Planned things, that are carried over one by one; and the preoperative volume where the rigid pose alone puts it.
ITEMS = ("target.", "plan.", "risk.", "landmark.")
UNMOVED = f"{PREOP}rigid"
POINTER, POINTER_POSE = "pointer", "pointer.pose"

#: What the colours of the slices mean, by the prefix of the roles that have them.
_KINDS = {
    RESIDUAL: ("Residual", colors.RESIDUAL),
    PIECE: ("Chosen piece", colors.MARK),
    f"{PREOP}tumour": ("Tumour before", colors.TUMOUR),
    recipes.CAVITY: ("Cavity", colors.CAVITY),
    AT_RISK: ("At risk", colors.AT_RISK),
    f"{PREOP}plan.": ("Planned", colors.PLANNED),
    f"{INTRAOP}plan.": ("Planned", colors.PLANNED),
    IMPLANT: ("Actual", colors.ACTUAL),
    FRAME: ("Measured inside", colors.FRAME),
    f"{HEAT}lethal": ("Lethal dose", colors.LETHAL),
    f"{HEAT}mark": ("Marked as heated", colors.MARK),
    f"{BONE}outline.": ("Vertebra before", colors.TUMOUR),
    f"{BONE}plan.": ("Planned", colors.PLANNED),
    f"{BONE}implant.": ("Actual", colors.ACTUAL),
}


def prefixOf(frame: Frame) -> str:
    """What roles of things in a frame begin with."""
    if frame not in ("preop", "intraop"):
        raise DataError(f"frame must be 'preop' or 'intraop', got '{frame}'")
    return PREOP if frame == "preop" else INTRAOP


def isScan(role: str) -> bool:
    """Whether a volume that was scanned plays the role."""
    return role.startswith(INTRAOP) and "." not in role.removeprefix(INTRAOP)


def isMeasured(role: str) -> bool:
    """Whether it shows what a session found, which holds only while that session does."""
    return role.startswith((*FOUND, HEAT, BONE))


def belongs(role: str, key: str) -> bool:
    """Whether a role shows the planned thing ``key``; a trajectory has a line and its dashes."""
    return role in (f"{PREOP}{key}", f"{PREOP}{key}.line", f"{PREOP}{key}.dashes")


def legend(shown: Iterable[str], stored: bool = False) -> tuple[Line, ...]:
    """One line for each kind of thing among the roles that are ``shown``.

    ``stored``: of an earlier session, so that what was found is drawn in :data:`.colors.STORED`.
    """
    shown, entries = tuple(shown), {}
    for prefix, (text, color) in _KINDS.items():
        if any(role.startswith(prefix) for role in shown):
            earlier = stored and isMeasured(prefix)
            entries[f"{text}, stored" if earlier else text] = colors.STORED if earlier else color
    return tuple(Line(text, color=color, bold=True) for text, color in entries.items())
