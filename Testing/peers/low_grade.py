"""An operated head with a low-grade tumour, made from distance functions: T1, T2 or FLAIR with known truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from IntraopMRILib.assess.proposal import Proposal, propose_non_enhancing
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about

#: Signal of fluid, grey and white matter, tumour, swelling and blood.
SIGNAL = {
    "FLAIR": (90.0, 600.0, 480.0, 900.0, 760.0, 1050.0),
    "T2": (1500.0, 640.0, 450.0, 900.0, 740.0, 330.0),
    "T1": (150.0, 560.0, 800.0, 480.0, 620.0, 1100.0),
}
TUMOUR_AT, RADIUS_MM = np.array([18.0, 8.0, 12.0]), 13.0
SHIFT_MM = np.array([2.5, -1.0, -3.0])
DIRECTIONS = {
    "RAS": np.eye(3),
    "LAS": np.diag([-1.0, 1.0, 1.0]),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "oblique": rotation_about((0.3, -0.5, 0.8), 37.0),
}


@dataclass
class Head:
    """An operated head. ``left``: true residual on the grid of the scan (k, j, i)."""

    scan: Image
    preop: Image
    flair: Image
    tumour: Image
    cavity: Image
    brain: Image
    pose: np.ndarray
    left: np.ndarray
    error_mm: float = 1.0

    def carried(self, points: np.ndarray) -> np.ndarray:
        return np.asarray(apply(self.pose, points + shifted(points)))

    def propose(self, **other: Any) -> Proposal:
        given = {name: getattr(self, name) for name in ("scan", "tumour", "cavity", "brain", "preop", "flair")}
        return propose_non_enhancing(
            **{**given, "intraop_from_preop": self.carried, "error_mm": self.error_mm, **other}
        )

    @property
    def left_cm3(self) -> float:
        return float(self.left.sum()) * self.scan.voxel_volume_ml


def followed(
    pose: np.ndarray, carried: Callable[[np.ndarray], np.ndarray], cavity: Image, brain: Image, scan_uid: str
) -> Any:
    """The brain shift as a registration gives it, of a known truth: in the scan with that uid, good to 1 mm."""
    doubt = cavity.with_array(np.ones(cavity.array.shape, np.float32))
    deformable = SimpleNamespace(
        intraop_from_preop=pose,
        intraop_from_preop_points=carried,
        cavity=cavity,
        brain=brain,
        uncertainty=doubt,
        fixed_uid=scan_uid,
        moving_uid="preop",
    )
    return SimpleNamespace(deformable=deformable)


def moved(scan: Image, mm: float, deg: float, at_mm: Any) -> tuple[Image, np.ndarray]:
    """A scan of the patient who has moved by so much about a place: (the scan, now_from_before (4, 4)).

    The scanner's slices are moved with him, so that the voxels are the same and only the header is another.
    """
    motion = np.eye(4)
    motion[:3, :3] = rotation_about((0.4, 0.3, 1.0), deg)
    motion[:3, 3] = np.asarray(at_mm) - motion[:3, :3] @ at_mm + mm * np.array([0.6, -0.64, 0.48])
    return replace(scan, ras_from_ijk=motion @ scan.ras_from_ijk, uid=f"{scan.uid} moved"), motion


def shifted(points: np.ndarray) -> np.ndarray:
    """The brain shift of points before surgery, smooth about the tumour."""
    near = np.exp(-((points - TUMOUR_AT) ** 2).sum(axis=-1) / (2 * 25.0**2))
    return np.asarray(near[..., None] * SHIFT_MM)


def share(distance_mm: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(0.5 - distance_mm / 1.5, 0, 1))


def painted(ras: np.ndarray, kind: str) -> np.ndarray:
    """Signal before surgery of fluid, folded grey matter, white matter and tumour; outside the brain a scalp."""
    fluid, grey, white, tumour, _swollen, _blood = SIGNAL[kind]
    x, y, z = np.moveaxis(ras, -1, 0)
    out = np.sqrt((x / 52) ** 2 + (y / 56) ** 2 + (z / 50) ** 2)
    folds = np.sin(x / 4.1) * np.sin(y / 4.7) + np.sin(z / 4.3 + 1.0) * np.sin(x / 5.3)
    in_grey = share((0.62 - out) * 50 - 6 * folds) * 0.9
    in_fluid = np.maximum(share((0.9 - out) * 50 + 8 * np.abs(folds)), share((np.hypot(x, z) - 5.0) + np.abs(y) / 12))
    value = white + (grey - white) * in_grey
    value = value + (fluid - value) * in_fluid
    value = value + (tumour - value) * share(tumour_mm(ras))
    return np.where(out < 1.0, value, np.where(out < 1.12, 0.6 * white, 0.0))


def tumour_mm(ras: np.ndarray) -> np.ndarray:
    """Signed distance to the tumour's irregular border before surgery."""
    off = ras - TUMOUR_AT
    x, y, z = np.moveaxis(off, -1, 0)
    return np.asarray(np.linalg.norm(off, axis=-1) - RADIUS_MM - 1.5 * np.sin(x / 4) * np.cos(y / 5 + z / 6))


def operated(
    left: float,
    kind: str = "FLAIR",
    way: str = "RAS",
    seed: int = 0,
    noise: float = 0.03,
    bias: float = 0.25,
    swollen_mm: float = 2.5,
    blood_mm: float = 1.2,
    spacing: tuple[float, float, float] = (1.6, 1.6, 1.6),
) -> Head:
    """A head of whose tumour the part ``left`` (0..1) is still there, the deep side of it."""
    rng, directions = np.random.default_rng(seed), DIRECTIONS[way]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation_about((0.2, 1.0, 0.4), 9.0), (6.0, -4.0, 9.0)

    def grid(step: Any, axes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = np.ceil(126.0 / np.asarray(step)).astype(int)
        matrix = np.eye(4)
        matrix[:3, :3] = axes * step
        matrix[:3, 3] = at - matrix[:3, :3] @ ((size - 1) / 2)
        k, j, i = np.indices(tuple(size[::-1]))
        return matrix, np.asarray(apply(matrix, np.stack([i, j, k], axis=-1).astype(float)))

    def noisy(values: np.ndarray, level: float) -> np.ndarray:
        real, imaginary = (level * rng.standard_normal(values.shape) for _ in range(2))
        return np.hypot(values + real, imaginary).astype(np.float32)

    before, ras = grid((2.0, 2.0, 2.0), np.eye(3), np.zeros(3))
    preop = Image(noisy(painted(ras, "T1"), 10.0), before, "T1 before")
    flair = Image(noisy(painted(ras, kind if kind != "T1" else "FLAIR"), 8.0), before, "FLAIR before")
    tumour = Image(np.where(tumour_mm(ras) < 0, 3, 0).astype(np.uint8), before, "tumour")

    matrix, world = grid(spacing, directions, apply(pose, np.zeros(3)))
    aligned = was = apply(invert(pose), world)
    for _ in range(8):
        was = aligned - shifted(was)
    inside = tumour_mm(was)
    along = (was - TUMOUR_AT) @ np.array([0.6, 0.3, 0.74])
    cut = np.quantile(along[inside < 0], left) if 0 < left < 1 else (-99.0 if left == 0 else 99.0)
    # With the tumour a layer of 1 mm around it is taken, and the way to it.
    axis = np.linalg.norm(np.cross(was - TUMOUR_AT, np.array([0.6, 0.3, 0.74])), axis=-1)
    taken = np.maximum(np.minimum(inside - 1.0, np.maximum(axis - 7.0, -along)), cut - along)
    fluid, _grey, white, _tumour, swollen, blood = SIGNAL[kind]
    value = painted(was, kind)
    # Patchy, as swelling and blood are.
    patch = np.sin(was[..., 0] / 6) + np.sin(was[..., 1] / 5 + was[..., 2] / 7)
    value = value + np.maximum(swollen - value, 0) * share(taken - swollen_mm - 0.5 * patch) * (swollen_mm > 0)
    value = value + (blood - value) * share(taken - blood_mm) * np.clip(patch, 0, 1) * (blood_mm > 0)
    value = value + (fluid - value) * share(taken)
    shade = 1 + bias * np.tanh((world @ rng.normal(size=3)) / 60)
    scan = Image(noisy(value * shade, noise * white), matrix, f"{kind} now")
    out = np.linalg.norm(was / np.array([52, 56, 50]), axis=-1)
    gone = (taken < 0) & (out < 1)
    return Head(
        scan,
        preop,
        flair,
        tumour,
        Image(gone.astype(np.uint8), matrix, "cavity"),
        Image(((out < 0.98) & ~gone).astype(np.uint8), matrix, "brain"),
        pose,
        (inside < 0) & (taken > 0),
    )


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
