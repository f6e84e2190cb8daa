"""An operated head with a residual of known volume, made from distance functions, not from our own code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about
from scipy import ndimage


@dataclass
class Operation:
    contrast: Image
    native: Image
    tumour: Image
    intraop_from_preop: np.ndarray
    residual_cm3: float
    preop_cm3: float
    residual_centroid_ras_mm: np.ndarray
    truth: np.ndarray


def part(distance_mm: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Share of each voxel inside a surface, from its signed distance (negative inside)."""
    return np.clip(0.5 - distance_mm / voxel_mm, 0.0, 1.0)


def operate(
    seed: int,
    directions: np.ndarray,
    residual: bool = True,
    noise: float = 0.03,
    shift_mm: float = 2.0,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    thin: bool = True,
    gain: float = 1.3,
    faint: bool = False,
) -> Operation:
    rng = np.random.default_rng(seed)
    size = np.array([88, 92, 84]) / np.array(spacing)
    shape_ijk = np.rint(size).astype(int)
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = directions * np.asarray(spacing)
    ras_from_ijk[:3, 3] = -ras_from_ijk[:3, :3] @ ((shape_ijk - 1) / 2.0) + rng.normal(0, 10, 3)
    centre = apply(ras_from_ijk, (shape_ijk - 1) / 2.0)
    k, j, i = np.indices(tuple(shape_ijk[::-1]))
    ras = apply(ras_from_ijk, np.stack([i, j, k], axis=-1))
    voxel = float(np.prod(spacing) ** (1 / 3))

    def sphere(at: np.ndarray, radius: float) -> np.ndarray:
        return np.linalg.norm(ras - at, axis=-1) - radius

    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    tumour_at = centre + rng.normal(0, 4, 3)
    tumour_radius = rng.uniform(12, 15)
    cavity_radius = tumour_radius + 0.5
    tumour_now = tumour_at + direction * shift_mm
    in_tumour = sphere(tumour_now, tumour_radius)
    cavity = sphere(tumour_now - direction * rng.uniform(3.0, 5.0), cavity_radius)
    left = np.maximum(in_tumour, -cavity) if residual else np.full(cavity.shape, 99.0)

    def texture(sigma: float) -> np.ndarray:
        field = ndimage.gaussian_filter(rng.normal(size=cavity.shape), sigma / voxel)
        return np.clip(0.5 + 4 * (field / np.abs(field).max()), 0, 1)

    tissue = 75 + 30 * texture(4.0)
    head = part(np.linalg.norm(ras - centre, axis=-1) - 40, voxel)
    open_cavity = part(cavity, voxel)
    blood = part(np.maximum(np.abs(cavity) - 0.8, sphere(tumour_now + direction[::-1] * 12, 9)), voxel)
    native = (tissue * (1 - open_cavity) + 25 * open_cavity) * (1 - blood) + 150 * blood
    in_residual = part(left, voxel)
    wall = part(np.maximum(np.abs(cavity - 0.5) - 0.5, in_tumour + 1.0), voxel) if thin else 0.0
    vessel_at = tumour_now + np.cross(direction, [1.0, 0.0, 0.0]) * (tumour_radius + 4)
    off = ras - vessel_at
    along = off @ direction
    vessel = part(np.linalg.norm(off - along[..., None] * direction, axis=-1) - 1.3, voxel)
    shell = part(np.abs(np.linalg.norm(ras - centre, axis=-1) - 39) - 0.8, voxel)
    added = 60 * in_residual * (1 - open_cavity) + 30 * wall + 90 * vessel + 50 * shell
    if faint:
        # A solid patch of weak enhancement on the far wall, inside the carried-over tumour.
        added = added + 24 * part(np.maximum(sphere(tumour_now - direction * (tumour_radius + 5), 5.0), -cavity), voxel)
    bias_at = (ras - centre) / 45.0
    bias = np.exp(0.25 * (bias_at @ rng.normal(size=3)) / 1.7 + 0.1 * bias_at[..., 0] * bias_at[..., 1])
    level = 90 * noise

    def scan(signal: np.ndarray, scale: float) -> np.ndarray:
        noisy = signal * head * bias + level * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))
        return (scale * np.abs(noisy)).astype(np.float32)

    rigid = np.eye(4)
    rigid[:3, :3] = rotation_about(rng.normal(size=3), rng.uniform(-12, 12))
    rigid[:3, 3] = rng.normal(0, 8, 3)
    intraop_from_preop = rigid
    preop_grid = np.eye(4)
    preop_grid[:3, 3] = apply(invert(rigid), tumour_at) - 22
    kk, jj, ii = np.indices((45, 45, 45))
    preop_ras = apply(preop_grid, np.stack([ii, jj, kk], axis=-1))
    from_centre = np.linalg.norm(preop_ras - apply(invert(rigid), tumour_at), axis=-1)
    labels = np.where(from_centre <= tumour_radius, np.where(from_centre <= tumour_radius - 6, 2, 1), 0)
    volume_ml = float(abs(np.linalg.det(ras_from_ijk[:3, :3]))) / 1000.0
    centroid = (ras * in_residual[..., None]).sum(axis=(0, 1, 2)) / max(in_residual.sum(), 1e-9)
    return Operation(
        Image(scan(native + added, gain), ras_from_ijk, "T1 with contrast"),
        Image(scan(native, 1.0), ras_from_ijk, "T1 native"),
        Image(labels.astype(np.uint8), preop_grid, "tumour"),
        intraop_from_preop,
        float(in_residual.sum()) * volume_ml,
        float((labels == 1).sum()) / 1000.0,
        centroid,
        in_residual > 0.5,
    )


@pytest.fixture(scope="session")
def operation() -> Any:
    """The maker of operated heads: (seed, directions, ...) -> Operation."""
    return operate


@dataclass
class Screwed:
    image: Image
    entry: np.ndarray
    tip: np.ndarray
    planned_entry: np.ndarray
    planned_tip: np.ndarray
    diameter_mm: float


def screwed(
    seed: int,
    directions: np.ndarray,
    bloom_mm: float = 0.8,
    noise: float = 0.03,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    implant: bool = True,
) -> Screwed:
    rng = np.random.default_rng(seed)
    shape_ijk = np.rint(np.array([96, 90, 70]) / np.array(spacing)).astype(int)
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = directions * np.asarray(spacing)
    ras_from_ijk[:3, 3] = -ras_from_ijk[:3, :3] @ ((shape_ijk - 1) / 2.0) + rng.normal(0, 10, 3)
    centre = apply(ras_from_ijk, (shape_ijk - 1) / 2.0)
    k, j, i = np.indices(tuple(shape_ijk[::-1]))
    ras = apply(ras_from_ijk, np.stack([i, j, k], axis=-1))
    voxel = float(np.prod(spacing) ** (1 / 3))
    diameter = 5.5
    planned_entry = centre + np.array([14, -18, 1])
    planned_tip = centre + np.array([4, 20, -2])
    entry = planned_entry + rng.normal(0, 1.5, 3)
    tip = planned_tip + rng.normal(0, 1.5, 3)
    axis = (tip - entry) / np.linalg.norm(tip - entry)
    off = ras - entry
    along = off @ axis
    radial = np.linalg.norm(off - along[..., None] * axis, axis=-1)
    void = np.maximum(radial - diameter / 2, np.maximum(-along, along - np.linalg.norm(tip - entry))) - bloom_mm
    body = np.linalg.norm((ras - centre - [0, 16, 0]) / [22, 15, 12], axis=-1)
    canal = np.linalg.norm((ras - centre - [0, -8, 0])[..., :2], axis=-1) - 8
    tissue = np.where(body < 1, 110.0, 75.0)
    tissue = tissue * (1 - part((np.abs(body - 1) - 0.06) * 15, voxel) * 0.6)
    tissue = np.where(canal < 0, 35.0, tissue)
    tissue += 10 * ndimage.gaussian_filter(rng.normal(size=tissue.shape), 3) / 0.03 * 0.2
    signal = tissue * (1 - part(void, voxel)) if implant else tissue
    bias = np.exp(((ras - centre) / 60.0) @ rng.normal(0, 0.3, 3))
    level = 90 * noise
    noisy = signal * bias + level * (rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape))
    image = Image(np.abs(noisy).astype(np.float32), ras_from_ijk, "spine")
    return Screwed(image, entry, tip, planned_entry, planned_tip, diameter)


@pytest.fixture(scope="session")
def instrumented() -> Any:
    """The maker of instrumented vertebrae: (seed, directions, ...) -> Screwed."""
    return screwed
