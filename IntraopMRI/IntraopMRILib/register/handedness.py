"""What could prove a pose wrong although it looks right: the same image turned half round, or mirrored.

Raw data that are read backwards, or a header with an axis the wrong way, make a head that nothing in it gives away. No
half of a head is quite the mirror image of the other: the volume before the operation shares more with the right hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Level, Matrix, Reason

#: A turned pose whose mutual information is better by the first factor proves the found one wrong, a mirrored one by
#: the second; between them nobody can tell the sides. Other contrasts, cavities, surface coils, slabs and thick slices
#: of Colin27 give 0.4 to 0.9 as they are and 1.1 to 1.6 mirrored; of MNI152, an average of many heads, up to 0.8 and
#: from 0.7 to 1.2; heads whose halves were made mirror images of one another up to 1.05.
RIVAL_FACTOR, MIRRORED_FACTOR = 1.03, 1.08
TURNED = "turned by 180 degrees"
#: Each stands for all that differ from it by a turn of less than a quarter.
RIVALS: Mapping[str, tuple[int, int, int]] = {
    "turned about left-right": (1, -1, -1),
    "turned about front-back": (-1, 1, -1),
    "turned about head-foot": (-1, -1, 1),
    "mirrored left-right": (-1, 1, 1),
    "mirrored front-back": (1, -1, 1),
    "mirrored head-foot": (1, 1, -1),
}


class Pair(Protocol):
    """Two images at one resolution."""

    def nmi(self, preop_from_intraop: Matrix) -> tuple[float, float]:
        """(normalised mutual information, overlap)."""

    def refined(self, preop_from_intraop: Matrix, iterations: int) -> Matrix:
        """The pose after so many steps."""


def rivals(coarse: Pair, middle: Pair, best: Matrix, centre: npt.NDArray[np.float64]) -> dict[str, float]:
    """Mutual information of the best half-turned pose (:data:`TURNED`) and of the best mirrored one, by its name; each
    refined as the found one, ``best`` (preop_from_intraop), was. ``centre``: of the intraoperative head, RAS mm."""
    result = {}
    for kind in ("turned", "mirrored"):
        found = []
        for name, signs in RIVALS.items():
            if name.startswith(kind):
                flip = np.diag([*signs, 1.0])
                flip[:3, 3] = centre - flip[:3, :3] @ centre
                pose = coarse.refined(best @ flip, 8)
                found.append((coarse.nmi(pose)[0], name, pose))
        _, name, pose = max(found, key=lambda each: each[0])
        result[TURNED if kind == "turned" else name] = middle.nmi(middle.refined(pose, 4))[0]
    return result


def rival_reasons(found: Mapping[str, float], nmi: float) -> list[Reason]:
    """How :func:`rivals` compare with the found pose, whose mutual information at the same resolution is ``nmi``; the
    better of them alone when it proves the pose wrong."""
    ratios = {name: rival / max(nmi, 1e-9) for name, rival in found.items()}
    name, most = max(ratios.items(), key=lambda each: each[1])
    expected = f"below {RIVAL_FACTOR:g}"
    if most > (RIVAL_FACTOR if name == TURNED else MIRRORED_FACTOR):
        return [Reason(f"the image fits better {name}: shared information", most, "x", expected, Level.REFUSED)]
    return [
        Reason(f"fit {name}", ratio, "x", expected, Level.CHECK if ratio > RIVAL_FACTOR else Level.GOOD)
        for name, ratio in ratios.items()
    ]
