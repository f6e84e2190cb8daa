"""What is left of a vascular malformation, of a spinal cord lesion or of non-enhancing tumour, from outlines."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Measurement
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, within_mm

from .labels import checked_label
from .resection import RANO_SOURCE, extent_of_resection

#: Cross-sections are averaged over this length of cord: thinner slabs hold too few voxels.
SLAB_MM = 3.0
#: Points of the centre line are placed this close.
LINE_STEP_MM = 0.25
#: A cord is 10 to 15 mm wide: what lies farther than this from its centre line for the most part is not in it.
CORD_REACH_MM = 15.0


@dataclass(frozen=True)
class VascularResidual:
    """Residual nidus and shunt. ``shunt``: 'seen', 'not seen' or 'not assessed'; a nidus of zero with a shunt seen

    is not a cure, and ``text`` says so.
    """

    measurements: tuple[Measurement, ...]
    shunt: str
    text: str


def label_volume(label: Image, name: str, source: str = "") -> Measurement:
    """Volume of a label in cm3 with +-1 voxel at the boundary as interval; zero for an empty label."""
    inside = _inside(label, name)
    volume = float(inside.sum()) * label.voxel_volume_ml
    interval = (0.0, label.voxel_volume_ml)
    if inside.any():
        padded = np.pad(inside, 2)
        # In voxels, so that a thick slice is open by its thickness and the plane of it by its own voxels. Distances run
        # between voxel centres; the surface lies half a voxel off.
        least, most = ~within_mm(~padded, 1.5, 1.0), within_mm(padded, 1.5, 1.0)
        interval = float(least.sum()) * label.voxel_volume_ml, float(most.sum()) * label.voxel_volume_ml
    definition = "Voxels of the label times their volume; interval: 1 voxel at the boundary"
    return Measurement(name, volume, "cm3", definition, source, interval, based_on=(label.uid,))


def vascular_residual(preop: Image, residual: Image, shunt_seen: bool | None) -> VascularResidual:
    """Residual nidus against the preoperative one, and whether a shunt (early draining vein) is seen on MRA or SWI.

    ``shunt_seen`` None when nobody looked. Raises AssessmentError when the preoperative nidus is empty.
    """
    before = label_volume(preop, "Nidus before surgery")
    after = label_volume(residual, "Residual nidus")
    if not before.value:
        raise AssessmentError("the preoperative nidus is empty: segment it before the residual is assessed")
    assert after.value is not None
    assert after.interval is not None

    assert before.interval is not None

    def percent(volume: float, of: float) -> float:
        return max(0.0, 100.0 * (of - volume) / of) if of > 0 else 0.0

    occlusion = Measurement(
        "Nidus removed",
        percent(after.value, before.value),
        "%",
        f"100 x (V_pre - V_residual) / V_pre, V_pre = {before.value:.2f} cm3; interval: 1 voxel at both boundaries",
        interval=(percent(after.interval[1], before.interval[0]), percent(after.interval[0], before.interval[1])),
        based_on=(preop.uid, residual.uid),
    )
    shunt = "not assessed" if shunt_seen is None else "seen" if shunt_seen else "not seen"
    gone = after.value == 0
    if gone and shunt_seen is False:
        text = "No nidus and no shunt seen; confirm by angiography."
    elif gone:
        text = f"No nidus seen, shunt {shunt}: this is not a proof of cure."
    else:
        text = f"Residual nidus, shunt {shunt}."
    return VascularResidual((before, after, occlusion), shunt, text)


def non_enhancing_residual(residual: Image, preop: Image | None = None) -> tuple[Measurement, ...]:
    """Volume of non-enhancing tumour (T2 / FLAIR) that is left, outlined, and its extent of resection.

    ``preop``: its label before surgery; without it, or when it is empty, there is no extent.
    """
    name = "Residual non-enhancing tumour"
    volume = replace(
        label_volume(residual, name, RANO_SOURCE),
        definition="Non-enhancing tumour (T2 / FLAIR) that is left, as outlined; interval: 1 voxel at the boundary",
    )
    before = 0.0 if preop is None else label_volume(preop, "non-enhancing tumour before surgery").value
    if not before:
        return (volume,)
    assert volume.value is not None
    of = "non-enhancing tumour (T2 / FLAIR)"
    return volume, extent_of_resection(before, volume.value, volume.interval, (residual.uid,), of)


def cord_residual(residual: Image, centreline_ras_mm: npt.ArrayLike) -> tuple[Measurement, ...]:
    """Length of a residual along the cord (mm) and its largest cross-section (mm2).

    ``centreline_ras_mm``: (n >= 2, 3) points along the cord in the frame of ``residual``. Length is measured along
    the line, not along an axis of the scan. Raises AssessmentError for a line that is too short.
    """
    line = np.asarray(centreline_ras_mm, dtype=np.float64)
    if line.ndim != 2 or line.shape[1] != 3 or len(line) < 2 or not np.isfinite(line).all():
        raise AssessmentError(f"the centre line of the cord needs at least two finite points (n, 3), got {line.shape}")
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    total = float(steps.sum())
    if total < SLAB_MM:
        raise AssessmentError(f"the centre line of the cord is {total:.1f} mm long, at least {SLAB_MM:g} mm are needed")
    volume = label_volume(residual, "Residual cord lesion")
    names = ("Length along the cord", "mm", "Extent of the residual along the centre line of the cord")
    section = ("Largest cross-section", "mm2", f"Largest area across the cord, mean over {SLAB_MM:g} mm or a voxel")
    inside = _inside(residual, "residual cord lesion")
    if not inside.any():
        zero = (0.0, float(residual.spacing_mm.max()))
        return (
            volume,
            Measurement(*names[:1], 0.0, *names[1:], interval=zero, based_on=(residual.uid,)),
            Measurement(*section[:1], 0.0, *section[1:], interval=(0.0, zero[1] ** 2), based_on=(residual.uid,)),
        )
    at = np.concatenate([[0.0], np.cumsum(steps)])
    fine = np.linspace(0.0, total, max(2, int(total / LINE_STEP_MM)))
    dense = np.stack([np.interp(fine, at, line[:, axis]) for axis in range(3)], axis=1)
    along, beside = _along(apply(residual.ras_from_ijk, np.argwhere(inside)[:, ::-1]), dense, fine)
    if float(np.median(beside)) > CORD_REACH_MM:
        raise AssessmentError(
            f"the residual lies {np.median(beside):.0f} mm beside the cord's centre line: check which segment was "
            "chosen, and that the line is drawn on this scan"
        )
    # Voxels beyond the ends of the line would pile up there and shorten the length without a word.
    if min(along.min(), total - along.max()) < LINE_STEP_MM:
        raise AssessmentError("the residual reaches the end of the cord's centre line: draw the line further")
    tangent = line[-1] - line[0]
    voxel = float(np.abs(residual.ras_from_ijk[:3, :3].T @ (tangent / np.linalg.norm(tangent))).max())
    length = float(np.ptp(along)) + voxel
    # A voxel reaches into a slab as far as it is long: whole ones would be four slices of 1 mm in 3 mm, or one of 5 mm.
    slab = max(SLAB_MM, voxel)
    starts = np.arange(float(along.min()) - voxel, float(along.max()) + voxel, LINE_STEP_MM)
    ends = along - voxel / 2.0, along + voxel / 2.0
    within = [np.maximum(np.minimum(ends[1], s + slab) - np.maximum(ends[0], s), 0.0).sum() for s in starts]
    area = float(np.max(within)) / voxel * residual.voxel_volume_ml * 1000.0 / slab
    # A voxel at the boundary all round, half of it inside, as of a disc of that area.
    radius, half = float(np.sqrt(area / np.pi)), 0.5 * float(residual.spacing_mm.max())
    across = (np.pi * max(0.0, radius - half) ** 2, np.pi * (radius + half) ** 2)
    return (
        volume,
        Measurement(
            *names[:1],
            length,
            *names[1:],
            "",
            (max(0.0, length - 2 * voxel), length + 2 * voxel),
            based_on=(residual.uid,),
        ),
        Measurement(*section[:1], area, *section[1:], interval=across, based_on=(residual.uid,)),
    )


def _inside(label: Image, name: str) -> npt.NDArray[np.bool_]:
    return np.asarray(checked_label(label, f"outline '{name}'") != 0)


def _along(
    points: npt.NDArray[np.float64], line: npt.NDArray[np.float64], at: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Length along the line at the point of it that is nearest to each point, and how far that is, mm."""
    from scipy.spatial import cKDTree

    beside, nearest = cKDTree(line).query(points)
    forward = np.gradient(line, at, axis=0)
    beyond = ((points - line[nearest]) * forward[nearest]).sum(axis=1)
    return np.asarray(at[nearest] + beyond), np.asarray(beside)
