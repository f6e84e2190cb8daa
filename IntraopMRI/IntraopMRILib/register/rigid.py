"""Rigid registration of a preoperative to an intraoperative volume that survives brain shift and resection.

Three stages. Starts over a grid of poses are ranked by mutual information (Maes et al., IEEE TMI 16:187, 1997) and
refined by Gauss-Newton on intensities remapped by their conditional mean, which is the correlation ratio (Roche et
al., MICCAI 1998) and so does not mind another contrast. The finish measures the motion of blocks, each normalised on
its own, and fits the pose to the blocks that agree (robust block matching: Ourselin et al., MICCAI 2000): blocks that
the brain shift moved or the resection emptied are outvoted in mm, not in grey values.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image, Level, Matrix, Progress, Reason, Verdict, checked_rigid, no_progress
from IntraopMRIReconstructionLib.errors import Cancelled, RegistrationError
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about, rotation_angle_deg

from .blocks import BlockFit, finish_with_blocks
from .handedness import rival_reasons, rivals
from .sampling import (
    BoolArray,
    Float32Array,
    Volume,
    checked_volume,
    foreground,
    kji_matrix,
    mask_on,
    motion,
    points_of,
    sample,
)
from .tones import Tones

#: Angles (degrees) about each axis of the grid of starts: with basins of about 15 degrees they cover 30.
START_ANGLES_DEG = (-24.0, -12.0, 0.0, 12.0, 24.0)
#: Starts that are refined on the coarse level, and of these on the next one.
KEPT_STARTS = (10, 3)
#: Less of the intraoperative foreground than this inside the preoperative volume is no overlap to judge.
MIN_OVERLAP = 0.3
#: Below this normalised mutual information two volumes share no more than two unrelated heads do.
REFUSED_NMI = 0.10
#: A turn against the headers beyond this is a wrong patient position, not a patient who moved.
MAX_TURN_DEG = 60.0
#: Median fraction of a block's contrast that its own motion does not explain: one patient's images at the right pose
#: stay below the second even through another contrast, two patients' heads come above the first.
REFUSED_UNLIKE, CHECK_UNLIKE = 0.70, 0.45
#: With this many agreeing blocks the pose is right even where another contrast hides the structure.
PROVEN_AGREEMENT = 0.55
#: Fractions of agreeing blocks: pairs of one patient keep more than the second even after resection; two patients'
#: heads stay below the first.
REFUSED_AGREEMENT, CHECK_AGREEMENT = 0.25, 0.45
#: Slices thicker than this leave the pose across them uncertain by more than navigation allows.
CHECK_SPACING_MM = 4.0
BINS = 32
#: A refinement is done when its step is this part of a voxel, at LEVER_MM from the centre too.
SETTLED_VOXELS, LEVER_MM = 0.015, 100.0


@dataclass(frozen=True, eq=False)
class RigidRegistration:
    """A rigid pose with its signs of trust.

    ``intraop_from_preop``: (4, 4), RAS to RAS, mm. ``nmi``: normalised mutual information 2 I / (H1 + H2) at about
    2 mm. ``agreement``: fraction of image blocks within AGREEING_MM of the pose. ``residual_mm``: median distance of
    the agreeing blocks. ``overlap``: fraction of the intraoperative foreground that the preoperative volume covers.
    ``fixed_uid`` / ``moving_uid``: the intraoperative / preoperative image this belongs to.
    """

    intraop_from_preop: Matrix
    verdict: Verdict
    seconds: float
    nmi: float
    agreement: float
    residual_mm: float
    overlap: float
    fixed_uid: str = ""
    moving_uid: str = ""

    @property
    def preop_from_intraop(self) -> Matrix:
        """Inverse pose, (4, 4)."""
        return invert(self.intraop_from_preop)


@dataclass(eq=False)
class _Pair:
    """One resolution: points of the fixed image and the moving volume they are looked up in."""

    fixed: Float32Array
    points_mm: npt.NDArray[np.float64]
    moving: Volume
    threads: int
    moving_kji_from_ras: Matrix = field(init=False)
    fixed_bins: npt.NDArray[np.int32] = field(init=False)
    moving_range: tuple[float, float] = field(init=False)

    def __post_init__(self) -> None:
        swap = kji_matrix(np.eye(4))
        ijk_from_ras = invert(self.moving.ras_from_ijk)
        self.moving_kji_from_ras = np.asarray(swap @ ijk_from_ras[[2, 1, 0, 3]])
        low, high = np.percentile(self.fixed, (0.5, 99.5))
        scale = (BINS - 1) / max(float(high - low), 1e-12)
        self.fixed_bins = np.clip(np.round((self.fixed - low) * scale), 0, BINS - 1).astype(np.int32)
        values = self.moving.values[:: max(1, self.moving.values.shape[0] // 32)]
        low, high = np.percentile(values, (0.5, 99.8))
        self.moving_range = float(low), max(float(high), float(low) + 1e-6)

    def moving_points(self, preop_from_intraop: Matrix) -> Float32Array:
        matrix = self.moving_kji_from_ras @ preop_from_intraop
        return (matrix[:3, :3] @ self.points_mm.T + matrix[:3, 3:]).astype(np.float32)

    def moving_bins(self, values: Float32Array) -> Float32Array:
        low, high = self.moving_range
        return np.clip((values - np.float32(low)) * np.float32((BINS - 1) / (high - low)), 0, BINS - 1)

    def nmi(self, preop_from_intraop: Matrix) -> tuple[float, float]:
        """(normalised mutual information, overlap). Without overlap (0, overlap)."""
        got = sample(self.moving.values, self.moving_points(preop_from_intraop), self.threads, slopes=False)
        overlap = float(got.inside.mean())
        if overlap < MIN_OVERLAP:
            return 0.0, overlap
        codes = self.fixed_bins * BINS + np.round(self.moving_bins(got.values)).astype(np.int32)
        joint = np.bincount(codes[got.inside], minlength=BINS * BINS).reshape(BINS, BINS) / got.inside.sum()
        entropies = [_entropy(joint.sum(1)), _entropy(joint.sum(0)), _entropy(joint.ravel())]
        total = entropies[0] + entropies[1]
        return (2.0 * (total - entropies[2]) / total if total > 0 else 0.0), overlap

    def tones(self, preop_from_intraop: Matrix) -> Tones:
        """What each moving value looks like in the fixed image at this pose."""
        got = sample(self.moving.values, self.moving_points(preop_from_intraop), self.threads, slopes=False)
        return Tones.learnt(got.values[got.inside], self.fixed[got.inside], self.moving_range)

    def refined(self, preop_from_intraop: Matrix, iterations: int) -> Matrix:
        """Gauss-Newton on the correlation ratio: the moving value is replaced by the mean fixed value it goes with."""
        pose = preop_from_intraop
        done_mm = SETTLED_VOXELS * float(self.moving.spacing_kji_mm.max())
        centre = self.points_mm.mean(axis=0)
        lever = (self.points_mm - centre).astype(np.float32).T
        for _ in range(iterations):
            got = sample(self.moving.values, self.moving_points(pose), self.threads)
            if got.inside.mean() < MIN_OVERLAP:
                break
            tones = Tones.learnt(got.values[got.inside], self.fixed[got.inside], self.moving_range)
            values, slopes = tones.mapped(got.values)
            residual = (self.fixed - values) * got.inside
            kji_from_intraop = (self.moving_kji_from_ras @ pose)[:3, :3].astype(np.float32)
            gradient = (kji_from_intraop.T @ got.gradient) * slopes
            scale = 1.5 * float(np.median(np.abs(residual[got.inside]))) + 1e-6
            weights = got.inside / (1.0 + (residual / (2.0 * scale)) ** 2)
            jacobian = np.concatenate([gradient, np.cross(lever, gradient, axis=0)])
            weighted = jacobian * weights
            normal = (weighted @ jacobian.T).astype(np.float64)
            normal += np.diag(np.diag(normal) * 1e-3 + 1e-9)
            step = np.linalg.solve(normal, (weighted @ residual).astype(np.float64))
            step *= min(
                1.0, 12.0 / max(1e-9, float(np.linalg.norm(step[:3]))), 0.2 / max(1e-9, float(np.linalg.norm(step[3:])))
            )
            pose = pose @ motion(step, centre)
            if np.linalg.norm(step[:3]) < done_mm and np.linalg.norm(step[3:]) < done_mm / LEVER_MM:
                break
        return pose


def register_rigid(
    fixed: Image,
    moving: Image,
    *,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    initial: npt.ArrayLike | None = None,
    progress: Progress = no_progress,
    threads: int = 2,
) -> RigidRegistration:
    """Find the pose of the preoperative image ``moving`` in the intraoperative image ``fixed``.

    ``fixed_mask`` / ``moving_mask``: where to look (nonzero inside), on any grid; the foreground when None.
    ``initial``: intraop_from_preop (4, 4) to start from; otherwise the headers and the centres of both heads are
    tried. The same input gives the same pose. A pose that cannot be trusted comes back with the verdict REFUSED and
    must not be shown. Raises DataError for images that are no registrable volumes (slice, NaN, constant), and
    RegistrationError when they nowhere overlap; Cancelled when ``progress`` returns False.
    """
    started = time.perf_counter()
    still = _Steps(progress)
    whole_fixed = Volume(checked_volume(fixed, "intraoperative"), fixed.ras_from_ijk)
    whole_moving = Volume(checked_volume(moving, "preoperative"), moving.ras_from_ijk)
    first = np.eye(4) if initial is None else checked_rigid(initial, "initial")
    still(0.05, "reducing")
    fixed_2mm, moving_2mm = whole_fixed.shrunk(2.0), whole_moving.shrunk(2.0)
    fixed_4mm, moving_4mm = fixed_2mm.shrunk(4.0), moving_2mm.shrunk(4.0)
    fixed_inside = foreground(fixed_4mm) if fixed_mask is None else mask_on(fixed_mask, fixed_4mm, "intraoperative")
    moving_inside = foreground(moving_4mm) if moving_mask is None else mask_on(moving_mask, moving_4mm, "preoperative")
    fixed_centre = points_of(fixed_4mm, np.flatnonzero(fixed_inside)).mean(axis=0)
    moving_centre = points_of(moving_4mm, np.flatnonzero(moving_inside)).mean(axis=0)

    coarse = _pair(fixed_4mm.shrunk(8.0), moving_4mm.shrunk(8.0), fixed_4mm, fixed_inside, threads)
    middle = _pair(fixed_4mm, moving_4mm, fixed_4mm, fixed_inside, threads)
    still(0.15, "trying starts")
    starts = _starts(invert(first), fixed_centre, moving_centre, with_rotations=initial is None)
    ranked = _ranked(coarse, starts, KEPT_STARTS[0])
    if not ranked:
        raise RegistrationError(
            f"the two images nowhere share {MIN_OVERLAP:.0%} of the intraoperative foreground: check that both show "
            "the same body region, or give an initial pose"
        )
    ranked = _ranked(coarse, [coarse.refined(pose, 12) for pose in ranked], KEPT_STARTS[1])
    still(0.35, "refining at 4 mm")
    best = _ranked(middle, [middle.refined(pose, 8) for pose in ranked], 1)[0]
    # What could prove the pose wrong is tried beside the finish, which does not need it.
    with ThreadPoolExecutor(1) as beside:
        trying = beside.submit(rivals, coarse, middle, best, fixed_centre)
        still(0.5, "refining at 2 mm")
        fine = _pair(fixed_2mm, moving_2mm, fixed_4mm, fixed_inside, threads, limit=40000)
        best = fine.refined(best, 6)
        nmi, overlap = fine.nmi(best)
        still(0.65, "matching blocks")
        block_fit = finish_with_blocks(
            (fixed_2mm, moving_2mm),
            (whole_fixed, whole_moving),
            mask=Image(fixed_inside.astype(np.uint8), fixed_4mm.ras_from_ijk),
            preop_from_intraop=best,
            tones=fine.tones(best),
            threads=threads,
            still=still,
        )
        others = trying.result()
    pose = checked_rigid(invert(block_fit.preop_from_intraop), "intraop_from_preop")
    verdict = Verdict(
        tuple(_reasons(pose, first, nmi, overlap, block_fit, middle.nmi(best)[0], others, whole_fixed, whole_moving))
    )
    still(1.0, "done")
    return RigidRegistration(
        pose,
        verdict,
        time.perf_counter() - started,
        nmi,
        block_fit.agreement,
        block_fit.residual_mm,
        overlap,
        fixed.uid,
        moving.uid,
    )


class _Steps:
    """Reports progress and stops when asked to."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, fraction: float, what: str) -> None:
        if not self._progress(fraction, what):
            raise Cancelled(f"rigid registration was stopped while {what}")


def _pair(
    fixed: Volume, moving: Volume, mask_volume: Volume, inside: BoolArray, threads: int, limit: int | None = None
) -> _Pair:
    """Points of ``fixed`` in and around the mask (on ``mask_volume``), at most ``limit``, evenly drawn."""
    mask = mask_on(
        Image(_grown(inside, mask_volume, 8.0).astype(np.uint8), mask_volume.ras_from_ijk), fixed, "foreground"
    )
    chosen = np.flatnonzero(mask)
    if limit is not None and chosen.size > limit:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, limit, replace=False))
    return _Pair(fixed.values.ravel()[chosen], points_of(fixed, chosen), moving, threads)


def _grown(inside: BoolArray, volume: Volume, margin_mm: float) -> BoolArray:
    from scipy import ndimage

    size = 2 * np.ceil(margin_mm / volume.spacing_kji_mm).astype(int) + 1
    return np.asarray(ndimage.maximum_filter(inside.astype(np.uint8), size=tuple(size.tolist())) > 0)


def _starts(
    first: Matrix,
    fixed_centre: npt.NDArray[np.float64],
    moving_centre: npt.NDArray[np.float64],
    *,
    with_rotations: bool,
) -> list[Matrix]:
    """Poses preop_from_intraop: the header (or initial) and the centres brought together, each turned over the grid."""
    by_centre = first.copy()
    by_centre[:3, 3] += moving_centre - apply(first, fixed_centre)
    bases = [first, by_centre] if with_rotations else [first]
    angles = START_ANGLES_DEG if with_rotations else (0.0,)
    starts = []
    for base, (x, y, z) in product(bases, product(angles, repeat=3)):
        turn = np.eye(4)
        turn[:3, :3] = rotation_about((1, 0, 0), x) @ rotation_about((0, 1, 0), y) @ rotation_about((0, 0, 1), z)
        turn[:3, 3] = fixed_centre - turn[:3, :3] @ fixed_centre
        starts.append(base @ turn)
    return starts


def _ranked(pair: _Pair, poses: list[Matrix], keep: int) -> list[Matrix]:
    """Best ``keep`` poses by mutual information; those without overlap are dropped."""
    scored = [(pair.nmi(pose)[0], -index, pose) for index, pose in enumerate(poses)]
    scored = sorted((s for s in scored if s[0] > 0), key=lambda s: s[:2], reverse=True)
    return [pose for _, _, pose in scored[:keep]]


def _reasons(
    pose: Matrix,
    first: Matrix,
    nmi: float,
    overlap: float,
    blocks: BlockFit,
    middle_nmi: float,
    others: dict[str, float],
    fixed: Volume,
    moving: Volume,
) -> list[Reason]:
    def level(refused: bool, check: bool) -> Level:
        return Level.REFUSED if refused else Level.CHECK if check else Level.GOOD

    turn = rotation_angle_deg(pose @ invert(first))
    thickest = float(max(fixed.spacing_kji_mm.max(), moving.spacing_kji_mm.max()))
    reasons = [
        Reason("shared information", nmi, "NMI", f"above {REFUSED_NMI}", level(nmi < REFUSED_NMI, False)),
        Reason(
            "blocks that agree",
            100 * blocks.agreement,
            "%",
            f"above {CHECK_AGREEMENT:.0%}",
            level(blocks.agreement < REFUSED_AGREEMENT, blocks.agreement < CHECK_AGREEMENT),
        ),
        Reason(
            "structure not found again",
            100 * blocks.unlike,
            "%",
            f"below {CHECK_UNLIKE:.0%}",
            level(blocks.unlike > REFUSED_UNLIKE and blocks.agreement < PROVEN_AGREEMENT, blocks.unlike > CHECK_UNLIKE),
        ),
        Reason("overlap", 100 * overlap, "%", "above 60 %", level(overlap < MIN_OVERLAP, overlap < 0.6)),
        Reason(
            "turn against the headers", turn, "deg", f"below {MAX_TURN_DEG:g}", level(turn > MAX_TURN_DEG, turn > 45.0)
        ),
        Reason("voxel size", thickest, "mm", f"below {CHECK_SPACING_MM:g}", level(False, thickest > CHECK_SPACING_MM)),
    ]
    return reasons + rival_reasons(others, middle_nmi)


def _entropy(probabilities: npt.NDArray[np.float64]) -> float:
    present = probabilities[probabilities > 0]
    return float(-np.sum(present * np.log(present)))
