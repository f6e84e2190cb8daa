"""The resection cavity: dark now, tissue in the preoperative image that is carried over.

Clot and haemostatic material in it are as bright as brain or brighter. What shows them is what is no longer there: the
necrosis, the enhancement and the folds of before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.geometry import bounding_box, closed_mm, within_mm
from scipy import ndimage

from .lattice import LOOSE
from .sampling import BoolArray, Float32Array

#: Dark: below this part of the brain's typical grey value around it (fluid, air and clot-free saline lie lower).
DARK = 0.55
#: Tissue: above this part of it in the preoperative image.
TISSUE = 0.70
#: The neighbourhood, mm to each side, that says what grey value is typical, and what may take part in that.
TYPICAL_MM, ORDINARY = 10.0, (0.6, 1.6)
#: Smaller ones are sulci that opened, not resections.
SMALLEST_ML = 0.4
#: A part of the cavity of which less was tissue before is the necrosis of a tumour that nobody has taken out: of it
#: 0.01 was seen to have changed, of resected tumours 0.6 and more; of a cyst taken out with its thin wall it is less.
CHANGED = 0.1
#: Dark voxels between parts of the cavity that lie nearer than twice this belong to it, mm.
CLOSED_MM = 8.0
#: A hole that the brain embraces has a mouth narrower than twice the first, mm. What lies outside of that, under the
#: dura or in the opening, where the brain has sunk under air or fluid, is cavity only where the tumour was or where (a
#: lobe that was taken out) it is thicker than twice the second: the brain carried over was seen to stand out into such
#: a gap by 12 mm at most.
EMBRACED_MM, SHEET_MM = 25.0, 8.0
#: The cavity's wall is as thick as this, mm; blood on it may be thicker and is seen.
RIM_MM = 2.5
#: Blood, clot and haemostatic material lie this near to the cavity, mm, and differ by more than this part of the
#: brain's typical grey value from the tissue that was there: more than another contrast changes. Chosen on seven cases
#: (two shifts solved by elasticity, five of the lab's generator), none of them the benchmark's.
STAIN_REACH_MM, STAIN = 6.0, 0.22
#: So near to it, mm, what is brighter than this part is clot, even where an enhancing rim was as bright before. Chosen
#: on seven cases (one shift solved by elasticity), none of them the benchmark's: reach and level matter little.
CLOT_MM, CLOT = 4.0, 1.4
#: Brighter than this part of the brain's typical grey value is enhancement, or as bright as that. Agent is looked for
#: in vessels and sinuses: brighter than the second, farther than this from the tumour, mm, and at least so many voxels.
BRIGHT, VESSEL, AWAY_MM, LEAST_VESSELS = 1.25, 1.4, 12.0, 50
#: What fills a cavity is looked for within this distance of the tumour, mm: the way to it is filled as well.
FILLED_REACH_MM = 6.0
#: A cavity that has drawn in by this part of its volume has walls that move on their own. One that was pulled open by a
#: brain that bulges is stretched by the tissue around it: let go, its walls ran 0.15 mm too far.
DRAWN_IN = 0.1


def find_cavity(
    fixed: Float32Array,
    carried: Float32Array,
    brain: BoolArray,
    carried_brain: BoolArray,
    carried_tumour: BoolArray,
    voxel_mm: npt.ArrayLike,
) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Cavity in the intraoperative image ``fixed``, seen against the ``carried`` over preoperative image.

    What is fluid or air, what is gone beside it though clot or packing fills its place, and what is no cavity but shows
    something else: where a sinus was carried to that has stayed with the dura, and its rim; all (k, j, i).
    ``brain``, ``carried_brain``: their brain masks on the same grid; ``carried_tumour``: the preoperative tumour, whose
    necrosis was dark before (all False when unknown: then nothing is seen to be filled). Both images are divided by the
    median grey value of the brain around each voxel, so that neither bias field nor scaling matters. All False where
    there is none.
    """
    voxel, both = np.asarray(voxel_mm, dtype=float), brain & carried_brain
    now, was = (_relative(values, both, voxel) for values in (fixed, carried))
    alike = _agent_alike(now, was, carried_brain, carried_tumour, voxel)
    near_tumour = within_mm(carried_tumour, FILLED_REACH_MM, voxel)
    # What enhanced away from the tumour is a sinus: dark without agent, and stays with the dura when the brain sinks.
    was_tissue = (was > TISSUE) & ((was < BRIGHT) | (near_tumour if carried_tumour.any() else alike))
    dark_now = (now < DARK) & carried_brain & scanned(fixed)
    dark = dark_now & (_in_brain(dark_now & (was_tissue | carried_tumour), brain, voxel) | carried_tumour)
    fluid = _fluid(now, dark, was_tissue, carried_brain & (was_tissue | carried_tumour), voxel)
    replaced = carried_tumour & (was < DARK) & (now > TISSUE)
    # Without agent nothing but clot is bright, and what enhanced tells nothing; with it clot looks like tumour.
    differs = (np.abs(now - was) > STAIN) & ((was < BRIGHT) | (now < BRIGHT)) if alike else now > BRIGHT
    replaced |= near_tumour & differs
    # Without agent every sinus is dark.
    stayed = _large(dark_now & (was > BRIGHT) & ~near_tumour & ~fluid & alike, voxel)
    return fluid, _filled(replaced & both & ~fluid & (now > DARK), voxel), with_rim(stayed, voxel)


def _fluid(
    now: Float32Array, dark: BoolArray, was_tissue: BoolArray, gone: BoolArray, voxel: npt.NDArray[np.float64]
) -> BoolArray:
    candidate = dark & gone
    # One voxel of opening removes what half a voxel of misfit leaves along every sulcus.
    candidate = np.asarray(ndimage.binary_opening(candidate, iterations=max(1, round(2.0 / float(voxel.max())))))
    labels, _ = ndimage.label(candidate)
    sizes = np.bincount(labels.ravel()) * float(np.prod(voxel)) / 1000.0
    sizes[0] = 0.0
    changed = np.bincount(labels[was_tissue], minlength=len(sizes)) * float(np.prod(voxel)) / 1000.0
    kept = np.flatnonzero((sizes >= max(SMALLEST_ML, 0.15 * float(sizes.max()))) & (changed > CHANGED * sizes))
    # Sulci that the resection opened and the necrosis of a tumour were dark before: what the found parts embrace
    # within CLOSED_MM and is dark now belongs to the cavity too.
    found, result = np.isin(labels, kept), np.zeros_like(dark)
    if not kept.size:
        return result
    box = bounding_box(found, np.ceil(2.0 * CLOSED_MM / voxel).astype(int) + 2)
    found, dark, gone, now = found[box], dark[box], gone[box], now[box]
    closed = ~within_mm(~within_mm(found, CLOSED_MM, voxel), CLOSED_MM, voxel)
    grown = ndimage.binary_dilation(found | (closed & dark), mask=dark)
    grown |= ndimage.binary_dilation(grown) & gone & _more_than_half(now, grown)
    result[box] = ndimage.binary_fill_holes(ndimage.binary_closing(grown) | grown)
    return result


def _in_brain(gone: BoolArray, brain: BoolArray, voxel: npt.NDArray[np.float64]) -> BoolArray:
    """Where holes of the ``brain`` may be: all that it embraces, and where what is ``gone`` is no sheet upon it.

    What it embraces is seen on blocks of two voxels, in a tenth of the time.
    """
    even = np.pad(brain, [(0, count % 2) for count in brain.shape])
    k, j, i = (count // 2 for count in even.shape)
    half = even.reshape(k, 2, j, 2, i, 2).mean(axis=(1, 3, 5)) >= 0.5
    embraced = closed_mm(half, EMBRACED_MM, 2.0 * voxel).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    thick = within_mm(~within_mm(~gone, SHEET_MM, voxel), SHEET_MM, voxel)
    return np.asarray(embraced[tuple(slice(count) for count in brain.shape)] | thick)


def _filled(replaced: BoolArray, voxel: npt.NDArray[np.float64]) -> BoolArray:
    """The parts of ``replaced`` that are no misfit.

    What was as bright as an enhancing rim and still is, tumour or clot, is none of it: the border may lie so much
    farther out.
    """
    kept = _large(replaced, voxel)
    return np.asarray(ndimage.binary_dilation(kept, mask=replaced)) if kept.any() else kept


def _large(mask: BoolArray, voxel: npt.NDArray[np.float64]) -> BoolArray:
    """Parts of ``mask`` that are thicker than a misfit and no smaller than SMALLEST_ML."""
    labels, _ = ndimage.label(ndimage.binary_opening(mask, iterations=max(1, round(2.0 / float(voxel.max())))))
    sizes = np.bincount(labels.ravel()) * float(np.prod(voxel)) / 1000.0
    sizes[0] = 0.0
    return np.isin(labels, np.flatnonzero(sizes >= SMALLEST_ML))


def _agent_alike(
    now: Float32Array, was: Float32Array, brain: BoolArray, tumour: BoolArray, voxel: npt.NDArray[np.float64]
) -> bool:
    """Whether vessels and sinuses that were bright away from the ``tumour`` are bright now; True when none were."""
    vessels = brain & ~within_mm(tumour, AWAY_MM, voxel) & (was > VESSEL)
    return bool(np.count_nonzero(vessels) < LEAST_VESSELS or np.median(now[vessels]) > BRIGHT)


def find_stains(
    fixed: Float32Array, carried: Float32Array, both: BoolArray, cavity: BoolArray, voxel_mm: npt.ArrayLike
) -> BoolArray:
    """Where grey values near the ``cavity`` are those of surgery, (k, j, i). ``both``: brain in both images.

    Other than the tissue carried over, or bright at the wall, whatever was there: clot in the place of a rim that
    enhanced looks like it and would draw tissue in. One voxel around is taken along, for it is partly the same.
    """
    voxel = np.asarray(voxel_mm, dtype=float)
    if not cavity.any():
        return np.zeros_like(cavity)
    box = bounding_box(cavity, np.ceil((STAIN_REACH_MM + TYPICAL_MM) / voxel).astype(int))
    now, was = (_relative(values[box], both[box], voxel) for values in (fixed, carried))
    near, nearest = (within_mm(cavity[box], reach, voxel) for reach in (STAIN_REACH_MM, CLOT_MM))
    stained = (near & (np.abs(now - was) > STAIN)) | (nearest & (now > CLOT))
    result = np.zeros_like(cavity)
    result[box] = with_rim(stained & both[box], voxel)
    return result


def find_gap(
    fixed: Float32Array, brain: BoolArray, brain_before: BoolArray, cavity: BoolArray, voxel_mm: npt.ArrayLike
) -> BoolArray:
    """Where the brain has let go of the dura, (k, j, i): it lay there, now ``fixed`` shows fluid or air.

    ``brain``: its mask in ``fixed``; ``brain_before``: the preoperative one where the rigid pose alone puts it. What is
    no thicker than a misfit of the two is left out, and the ``cavity``.
    """
    voxel = np.asarray(voxel_mm, dtype=float)
    dark = (_relative(fixed, brain, voxel) < DARK) & scanned(fixed)
    return _large(dark & brain_before & ~brain & ~cavity, voxel)


def hold_of(cavity: BoolArray, displacement: Float32Array) -> float:
    """What holds the walls of the ``cavity`` together, LOOSE to 1, by how far it drew in: by DRAWN_IN or not at all.

    ``displacement`` (3, k, j, i), voxels: from the cavity (k, j, i) to where its place was before.
    """
    if not cavity.any():
        return 1.0
    box = bounding_box(cavity, 1)
    growth = sum(np.gradient(part[box], axis=axis) for axis, part in enumerate(displacement))
    drawn_in = float(np.clip(growth[cavity[box]].mean() / DRAWN_IN, 0.0, 1.0))
    return float(LOOSE**drawn_in)


def _more_than_half(now: Float32Array, cavity: BoolArray) -> BoolArray:
    """Voxels at the wall that are fluid for the most part: darker than half way to their brightest neighbour.

    Beside clot and enhancing rim, twice as bright as brain, DARK lies far inside the wall.
    """
    wall = ndimage.grey_dilation(now, footprint=ndimage.generate_binary_structure(3, 1))
    return np.asarray(now < (float(np.median(now[cavity])) + wall) / 2.0, dtype=bool)


def scanned(fixed: Float32Array) -> BoolArray:
    """Where ``fixed`` was scanned: an image that ends in the brain is filled up with zeros, which look like fluid.

    One voxel less where it ends, for that may be filled up in part.
    """
    result = np.zeros(fixed.shape, dtype=bool)
    if fixed.any():
        box = bounding_box(fixed != 0)
        result[
            tuple(
                slice(s.start + (s.start > 0), s.stop - (s.stop < count))
                for s, count in zip(box, fixed.shape, strict=True)
            )
        ] = True
    return result


def _relative(values: Float32Array, both: BoolArray, voxel: npt.NDArray[np.float64]) -> Float32Array:
    """``values`` as parts of the typical grey value of the brain (``both``) within TYPICAL_MM.

    What lies outside ORDINARY parts of the whole brain's typical value, fluid and blood, takes no part.
    """
    wide = tuple((2 * np.round(TYPICAL_MM / voxel).astype(int) + 1).tolist())
    typical = float(np.median(values[both])) if both.any() else 1.0
    counted = (both & (values > ORDINARY[0] * typical) & (values < ORDINARY[1] * typical)).astype(np.float32)
    share = ndimage.uniform_filter(counted, size=wide, mode="nearest")
    mean = ndimage.uniform_filter(values * counted, size=wide, mode="nearest") / np.maximum(share, 1e-3)
    return np.asarray(values / np.where(share > 0.02, mean, typical), dtype=np.float32)


def with_rim(cavity: BoolArray, voxel_mm: npt.ArrayLike, rim_mm: float = RIM_MM) -> BoolArray:
    """Cavity and its wall: where the grey values are those of surgery."""
    return within_mm(cavity, rim_mm, voxel_mm)
