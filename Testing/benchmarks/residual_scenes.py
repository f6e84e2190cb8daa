"""Simulated operations that the interval of the residual volume was set on, and others to hold it against.

A world of 0.5 mm steps, made from distance functions: a resection cavity, residual of six shapes beside a wall that may
enhance to two thirds of the residual, clot, a vessel, dura, texture. It is scanned through k-space on voxels of 0.8 to
1.6 mm, isotropic or not, with three point spreads, a bias field, Rician noise of 1.5 to 8 % and a registration error.
``SET_ON`` are the seeds that the constants of IntraopMRILib/assess/interval.py come from; no benchmark, no test looks
at them. ``UNSEEN`` are those to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image
from scipy import fft, ndimage

SET_ON, UNSEEN = range(90), range(1000, 1060)
SHAPES = ("crescent", "nodule", "flat", "shell", "irregular", "two")
SIDE_MM, FINE_MM = 80.0, 0.5
#: Voxels along k, j, i, before the axes are exchanged at random.
MATRICES = (
    *((100, 100, 100), (80, 80, 80), (64, 64, 64), (64, 80, 80)),
    *((50, 80, 80), (50, 100, 100), (80, 64, 64)),
)
SPREADS = ("gauss", "box", "hann")
TISSUE, FLUID, CLOT = 75.0, 25.0, 150.0
Array = npt.NDArray[np.floating]

_FINE = round(SIDE_MM / FINE_MM)
_AXIS = ((np.arange(_FINE) + 0.5) * FINE_MM - SIDE_MM / 2).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Operation:
    """Two scans and what went before. ``intraop_from_preop`` errs; ``error_mm`` is the 95 % radius that is said."""

    contrast: Image
    native: Image
    tumour: Image
    intraop_from_preop: Array
    error_mm: float
    residual_cm3: float
    shape: str
    wall: float


@dataclass(frozen=True, eq=False)
class World:
    """Fine (k, j, i): ``native`` signal, ``gain`` by the agent, ``residual`` 0..1, ``labels`` of the tumour before."""

    native: Array
    gain: Array
    residual: Array
    labels: npt.NDArray[np.uint8]
    shape: str
    wall: float


def operations(seed: int, scans: int = 2) -> list[Operation]:
    """Scans of one world; the same seed gives the same."""
    made = world(seed)
    spectra = [fft.fftn(part.astype(np.float32)) for part in (made.native, made.gain)]
    return [_scanned(made, spectra, 10 * seed + number) for number in range(scans)]


def world(seed: int) -> World:
    """The operated head of ``seed``; its shape of residual goes round with the seed."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[seed % len(SHAPES)]
    z, y, x = np.meshgrid(_AXIS, _AXIS, _AXIS, indexing="ij")

    def ball(at: Array, radius: float) -> Array:
        return np.sqrt((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2) - radius

    def from_axis(at: Array, axis: Array) -> tuple[Array, Array]:
        """Square of the distance across and along an axis."""
        px, py, pz = x - at[0], y - at[1], z - at[2]
        along = px * axis[0] + py * axis[1] + pz * axis[2]
        return px**2 + py**2 + pz**2 - along**2, along**2

    centre = rng.normal(0, 2, 3).astype(np.float32)
    radius = rng.uniform(11, 15)
    toward = _unit(rng.normal(size=3))
    wobble = _noise(rng, 5.0)
    tumour = ball(centre, radius) + rng.uniform(0, 1.0) * wobble
    aside = _unit(np.cross(toward, rng.normal(size=3)))
    cavity, left = _resected(rng, shape, tumour, centre, radius, (toward, aside), ball, from_axis)
    residual = _share(left)
    opening = _share(cavity) * (1 - residual)

    tissue = np.clip(TISSUE + rng.uniform(4, 14) * _noise(rng, rng.uniform(2, 5)), 45, 120)
    clot = _share(np.maximum(np.abs(cavity) - rng.uniform(0.4, 1.2), -(_noise(rng, 5.0) - 0.6) * 3))
    clot = clot * (rng.random() < 0.6) * (1 - residual)
    native = (tissue * (1 - opening) + FLUID * opening) * (1 - clot) + CLOT * clot
    level = TISSUE * rng.uniform(0.45, 1.1)
    uptake = 1 + rng.uniform(0, 0.15) * _noise(rng, 3.0)
    wall = rng.uniform(0, 0.65)
    if rng.random() < 0.25:
        wall = 0.0
    deep = rng.uniform(0.8, 1.7)
    patches = np.clip(0.5 + 2 * (_noise(rng, 5.0) + rng.uniform(-0.5, 1.0)), 0, 1)
    lining = _share(np.abs(cavity - deep / 2) - deep / 2) * patches * (1 - residual)
    across, _ = from_axis(centre + aside * (radius + rng.uniform(4, 6)), np.cross(toward, aside))
    vessel = _share(np.sqrt(np.maximum(across, 0)) - rng.uniform(0.8, 1.5)) * (1 - residual)
    surface = ball(np.zeros(3), 38.5)
    dura = _share(np.abs(surface + 1) - 0.8)
    gain = level * np.clip(uptake, 0.5, 1.6) * residual + level * wall * lining
    gain = gain + 90 * vessel * (1 - opening) + 60 * dura
    head = _share(surface)
    labels = np.where(tumour <= 0, np.where(tumour <= -6, 2, 1), 0).astype(np.uint8)
    return World((native * head).astype(np.float32), (gain * head).astype(np.float32), residual, labels, shape, wall)


def _resected(
    rng: np.random.Generator,
    shape: str,
    tumour: Array,
    centre: Array,
    radius: float,
    axes: tuple[Array, Array],
    ball: Callable[[Array, float], Array],
    from_axis: Callable[[Array, Array], tuple[Array, Array]],
) -> tuple[Array, Array]:
    """Signed distances of the cavity and of what was left at its wall."""
    toward, aside = axes
    if shape == "crescent":
        cavity = ball(centre - toward * rng.uniform(2.5, 6), radius + 0.5) + rng.uniform(0, 0.8) * _noise(rng, 4.0)
        return cavity, np.maximum(tumour, -cavity)
    cavity = tumour - rng.uniform(0.3, 1.2) + rng.uniform(0, 0.5) * _noise(rng, 4.0)
    at = centre + toward * (radius - rng.uniform(0.5, 2.0))
    if shape == "nodule":
        left = ball(at, rng.uniform(2.0, 5.0))
    elif shape == "flat":
        wide, flat = rng.uniform(3.0, 6.0), rng.uniform(0.45, 0.8)
        across, along = from_axis(at, toward)
        left = (np.sqrt(across + along / flat**2) - wide) * flat
    elif shape == "irregular":
        left = ball(at, rng.uniform(3.0, 5.5)) + rng.uniform(0.5, 1.3) * _noise(rng, 2.5, 1.0)
    elif shape == "shell":
        left = np.abs(tumour + rng.uniform(0, 1.5)) - rng.uniform(1.3, 2.2)
        left = np.maximum(left, ball(centre + toward * radius, rng.uniform(5, 8)))
    else:
        first = ball(at, rng.uniform(2.2, 4.5))
        left = np.minimum(first, ball(centre + (0.5 * toward + 0.87 * aside) * (radius - 1), rng.uniform(2.2, 4.0)))
    # It stands into the cavity, or the cut runs through it.
    if rng.random() >= 0.5:
        left = np.maximum(left, -(cavity + rng.uniform(0.0, 1.5)))
    return np.maximum(cavity, -left), left


def _scanned(made: World, spectra: list[Array], seed: int) -> Operation:
    rng = np.random.default_rng(10_000_000 + seed)
    shape = tuple(int(n) for n in np.roll(MATRICES[rng.integers(len(MATRICES))], rng.integers(3)))
    spread = SPREADS[rng.integers(len(SPREADS))]
    width = rng.uniform(0.35, 0.65) if spread == "gauss" else rng.uniform(0.2, 0.5)
    native, gain = (_sampled(part, shape, spread, width) for part in spectra)
    spacing = SIDE_MM / np.array(shape[::-1])
    grid = np.diag([*spacing, 1.0])
    grid[:3, 3] = -(SIDE_MM - spacing) / 2
    k, j, i = np.meshgrid(*(((np.arange(n) + 0.5) / n - 0.5) * 2 for n in shape), indexing="ij", sparse=True)
    c = rng.normal(size=6) * rng.uniform(0, 0.2)
    bias = np.exp(c[0] * k + c[1] * j + c[2] * i + 0.5 * (c[3] * k * j + c[4] * i * j + c[5] * k * i))
    noise = TISSUE * rng.uniform(0.015, 0.08)

    def image(signal: Array, scale: float, name: str) -> Image:
        noisy = signal * bias + noise * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
        return Image((scale * np.abs(noisy)).astype(np.float32), grid, name)

    contrast = image(native + gain, rng.uniform(0.7, 1.6), "T1 with contrast")
    plain = image(native, 1.0, "T1 native")
    before = np.eye(4)
    before[:3, 3] = -(SIDE_MM - FINE_MM) / 2
    error = rng.uniform(0.5, 2.5)
    moved = np.eye(4)
    # The 95 % radius of a normal distribution in space is 2.8 standard deviations of one coordinate.
    moved[:3, 3] = rng.normal(size=3) * error / 2.8
    volume = float(made.residual.sum()) * FINE_MM**3 / 1000
    tumour = Image(made.labels[::2, ::2, ::2].copy(), before, "tumour")
    return Operation(contrast, plain, tumour, moved, float(error), volume, made.shape, made.wall)


def _sampled(spectrum: Array, shape: tuple[int, ...], spread: str, width: float) -> Array:
    """The part of a fine spectrum that a scan of ``shape`` acquires, windowed, as voxels (k, j, i)."""
    weights, index = np.ones((1, 1, 1)), []
    for axis, count in enumerate(shape):
        k = np.arange(-(count // 2), count - count // 2)
        index.append(k % _FINE)
        u = k / count
        if spread == "gauss":
            window = np.exp(-2 * (np.pi * u * width) ** 2)
        elif spread == "box":
            window = np.sinc(u)
        else:
            window = (1 - width) + width * np.cos(np.pi * u)
        # Both grids fill the same box: their first voxels lie half the difference of their sizes apart.
        window = window * np.exp(2j * np.pi * k / SIDE_MM * (SIDE_MM / count - FINE_MM) / 2)
        weights = weights * window.reshape([-1 if n == axis else 1 for n in range(3)])
    part = np.roll(spectrum[np.ix_(*index)] * weights, [-(n // 2) for n in shape], axis=(0, 1, 2))
    return np.asarray(fft.ifftn(part.astype(np.complex64)).real * np.float32(np.prod(shape) / _FINE**3))


def _noise(rng: np.random.Generator, sigma_mm: float, step_mm: float = 2.0) -> Array:
    """Smooth noise of unit standard deviation on the fine grid."""
    count = round(SIDE_MM / step_mm)
    field = ndimage.gaussian_filter(rng.normal(size=(count,) * 3), sigma_mm / step_mm, mode="wrap")
    field = (field / field.std()).astype(np.float32)
    return np.asarray(ndimage.zoom(field, step_mm / FINE_MM, order=1, mode="nearest", grid_mode=True))


def _share(distance: Array) -> Array:
    """Part of each fine voxel inside a surface, from its signed distance (negative inside)."""
    return np.clip(0.5 - distance / FINE_MM, 0, 1)


def _unit(vector: Array) -> Array:
    return np.asarray(vector / np.linalg.norm(vector))
