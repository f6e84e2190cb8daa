"""What is shown of a spine that no single pose fits: the vertebra that is decided on, and what rests on accepted ones.

Main thread only, but for :func:`prepared_bones`. None of it is saved: a loaded scene must not show what nobody in it
has confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.geometry import apply
from scipy import ndimage

from ..register.sampling import Volume, mask_on
from ..session import Plan
from ..session.bones import Bone, shown_implants
from ..session.updates import BonesFound, ImplantFound
from . import recipes
from .contents import Content
from .display import shownOfImplant

#: Soft tissue around a vertebra that is shown with it, mm: more of it moves with others.
CONTEXT_MM = 4.0


@dataclass(frozen=True, eq=False)
class PreparedBone:
    """Outline of a vertebra and the preoperative volume around it, both at its own pose."""

    outline: Content
    volume: Content


def prepared_bones(update: BonesFound) -> dict[str, PreparedBone]:
    """Convert vertebrae, by key; in any thread."""
    return {bone.key: _prepared(bone, update.preoperative) for bone in update.bones if bone.offered}


class LoneBones:
    """Vertebrae by key with what a person has decided, and the implants that were found in them."""

    def __init__(self, bridge: Any, plan: Plan) -> None:
        self._bridge, self._plan = bridge, plan
        self._contents: Mapping[str, PreparedBone] = {}
        self._implants: dict[str, ImplantFound] = {}
        self._drawn: dict[str, dict[str, Content]] = {}
        self._current = ""
        self.items: dict[str, Bone] = {}

    def implant(self, found: ImplantFound) -> None:
        """An implant was found whose vertebra a person decides on."""
        planned, actual, name = found.planned, found.detected.trajectory, found.planned.name
        self._implants[name] = found
        self._drawn[name] = {
            role: replace(content, saved=False)
            for recipe, each in ((recipes.planned, planned), (recipes.actual, actual))
            for role, content in recipe(name, each.entry_ras_mm, each.tip_ras_mm, each.diameter_mm / 2.0).items()
        }

    def judged(self, found: ImplantFound) -> None:
        """A person has decided on an implant: it is drawn as before."""
        if found.planned.name in self._implants:
            self._implants[found.planned.name] = found

    def take(self, update: BonesFound, contents: Mapping[str, PreparedBone]) -> None:
        """Vertebrae to decide on; an implant comes before its vertebra."""
        self._contents, self._current = contents, ""
        self.items = {bone.key: bone for bone in update.bones}
        self._show()

    def clear(self) -> None:
        """The registration has gone, and all decisions with it."""
        self._contents, self._current = {}, ""
        self.items, self._implants, self._drawn = {}, {}, {}
        self._bridge.setBones({})

    def decided(self, bone: Bone) -> None:
        """A person has decided about one vertebra."""
        self.items[bone.key] = bone
        self._show()

    def review(self, key: str) -> None:
        """Show the vertebra that is decided on now beside the accepted ones; none for an empty key."""
        if key != self._current:
            self._current = key
            self._show()

    @property
    def accepted(self) -> tuple[str, ...]:
        """Names of the vertebrae that something may rest on."""
        return tuple(bone.name for bone in self.items.values() if bone.accepted)

    def implants(self) -> dict[str, ImplantFound | str]:
        """Each planned implant by name as far as its vertebra was accepted, otherwise why it is not shown."""
        return shown_implants(self._plan, self.items.values(), self._implants)

    def readout(self) -> dict[str, tuple[Measurement, ...]]:
        """What stands beside the picture of each implant: its numbers, or a dash with its reason."""
        result: dict[str, tuple[Measurement, ...]] = {}
        for name, found in self.implants().items():
            if isinstance(found, str):
                result[name] = (Measurement(f"{name}: deviation", None, "mm", "", missing_because=found),)
            else:
                result[name] = shownOfImplant(found.measurements)
        return result

    def _show(self) -> None:
        shown = {
            f"outline.{bone.name}": self._contents[key].outline for key, bone in self.items.items() if bone.accepted
        }
        current = self._contents.get(self._current)
        if current is not None:
            shown |= {f"outline.{self.items[self._current].name}": current.outline, "volume": current.volume}
        for name, found in self.implants().items():
            if not isinstance(found, str):
                shown |= self._drawn[name]
        self._bridge.setBones(shown)


def _prepared(bone: Bone, preoperative: Image) -> PreparedBone:
    pose = bone.found.intraop_from_preop
    label = replace(bone.label, ras_from_ijk=pose @ bone.label.ras_from_ijk)
    outline = recipes.bone(label, f"{bone.name} (before, its own pose)")
    volume = recipes.piece(_piece(bone, preoperative), f"{bone.name}, before surgery at its own pose")
    return PreparedBone(replace(outline, saved=False), replace(volume, saved=False))


def _piece(bone: Bone, preoperative: Image) -> Image:
    """The preoperative volume around a vertebra, at its own pose; below the darkest of it where something else is."""
    voxels = np.argwhere(bone.label.array != 0)[:, ::-1].astype(np.float64)
    there = apply(np.linalg.inv(preoperative.ras_from_ijk) @ bone.label.ras_from_ijk, voxels)
    margin = CONTEXT_MM / preoperative.spacing_mm + 1.0
    low = np.maximum(np.floor(there.min(axis=0) - margin).astype(int), 0)
    high = np.ceil(there.max(axis=0) + margin).astype(int) + 1
    i, j, k = (slice(int(start), int(end)) for start, end in zip(low, high, strict=True))
    array, grid = np.abs(preoperative.array[k, j, i]).astype(np.float32), preoperative.ras_from_ijk.copy()
    grid[:3, 3] = apply(preoperative.ras_from_ijk, low.astype(np.float64))
    inside = mask_on(bone.label, Volume(array, grid), bone.name)
    away_mm = ndimage.distance_transform_edt(~inside, sampling=preoperative.spacing_mm[::-1])
    cut = np.where(away_mm <= CONTEXT_MM, array, array.min() - 1.0)
    return Image(cut.astype(np.float32), bone.found.intraop_from_preop @ grid)
