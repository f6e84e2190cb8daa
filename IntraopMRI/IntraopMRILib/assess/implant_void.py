"""Signal voids of implants: the tissue about a plan, the search for a dark shaft in it, fitted cylinders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply, invert
from scipy import ndimage, optimize

from .implant import Trajectory

Array = npt.NDArray[np.float64]
#: Entry and tip, (3,) RAS, mm.
Ends = tuple[Array, Array]

#: Tissue around the search region from which the usual signal is known.
CONTEXT_MM = 8.0
#: The usual signal varies slowly: wider than any implant, narrower than the coil's bias.
LEVEL_SIGMA_MM = 10.0
#: Trajectories that the first search tries at each end, across the search radius.
COARSE_STEPS = 9
#: From so many of them it is refined; voids that are as dark as this part of the darkest one may be the implant's.
STARTS, ALIKE = 4, 0.8
#: A void is fitted in about 20 steps; where there is none, a thousand lead nowhere.
MOST_STEPS = 100
#: Parameters of one cylinder, and of what all share.
OF_ONE, SHARED = 7, 3
#: Of one, those that say where its axis and its tip are.
AXIS_AND_TIP = np.array([0, 1, 2, 3, 5])


@dataclass(frozen=True, eq=False)
class Region:
    """Signal over the usual signal of the tissue around, (k, j, i), 1 tissue, 0 void, and its ``ras_from_ijk``.

    ``box``: its slices (k, j, i) of the image.
    """

    remaining: Array
    grid: Array
    box: tuple[slice, slice, slice]

    @property
    def voxel_mm(self) -> float:
        """Longest side of a voxel."""
        return float(np.linalg.norm(self.grid[:3, :3], axis=0).max())

    @property
    def points(self) -> Array:
        """Of its voxels (k, j, i, 3), RAS, mm."""
        k, j, i = np.indices(self.remaining.shape)
        return apply(self.grid, np.stack([i, j, k], axis=-1))

    def at(self, points: Array, mode: str = "nearest") -> Array:
        """Signal at RAS points (..., 3), mm."""
        index = apply(invert(self.grid), points.reshape(-1, 3))[:, ::-1]
        signal = ndimage.map_coordinates(self.remaining, index.T, order=1, mode=mode)
        return np.asarray(signal.reshape(points.shape[:-1]))


@dataclass(frozen=True, eq=False)
class Void:
    """A fitted void: a round cylinder from ``entry`` to ``tip`` (3,), RAS, whose edge is as wide as ``width``, mm.

    ``depth``: part of the signal that it takes away. ``sigma_mm``: standard deviation of its axis and its tip by the
    fit. Where it comes in from air nothing shows where its entry is, and no number rests on how far out that lies.
    """

    entry: Array
    tip: Array
    radius: float
    width: float
    depth: float
    sigma_mm: float

    @property
    def length(self) -> float:
        """From entry to tip, mm."""
        return float(np.linalg.norm(self.tip - self.entry))

    @property
    def axis(self) -> Array:
        """Unit vector (3,) from entry to tip."""
        return np.asarray((self.tip - self.entry) / self.length)

    def shaft(self, parts: Array) -> Array:
        """Points (n, 3) at ``parts`` (n,) of the way from entry to tip."""
        return np.asarray(self.entry + parts[:, None] * (self.tip - self.entry))

    def cylindrical(self, points: Array) -> tuple[Array, Array]:
        """(distance from the axis, place along it from the entry) of RAS points (..., 3), mm."""
        off = points - self.entry
        along = off @ self.axis
        return np.linalg.norm(off - along[..., None] * self.axis, axis=-1), along


def region_about(image: Image, near: Trajectory, margin_mm: float) -> Region:
    """What lies within ``margin_mm`` of a plan. Raises AssessmentError when the plan leaves the image."""
    ends = apply(invert(image.ras_from_ijk), np.stack([near.entry_ras_mm, near.tip_ras_mm]))
    size = np.array(image.array.shape)[::-1]
    outside = np.maximum(np.maximum(-0.5 - ends, ends - (size - 0.5)), 0.0) * image.spacing_mm
    if outside.any():
        raise AssessmentError(
            f"the planned '{near.name}' leaves the image by {np.linalg.norm(outside, axis=1).max():.1f} mm: scan a "
            "region that covers it, or check the registration"
        )
    pad = margin_mm / image.spacing_mm
    low = np.maximum(np.floor(ends.min(axis=0) - pad), 0).astype(int)
    high = np.minimum(np.ceil(ends.max(axis=0) + pad) + 1, size).astype(int)
    shift = np.eye(4)
    shift[:3, 3] = low
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    signal = _relative_signal(np.asarray(image.array[k, j, i], dtype=np.float64), image.spacing_mm[::-1])
    return Region(signal, np.asarray(image.ras_from_ijk @ shift), (k, j, i))


def _relative_signal(array: Array, spacing: Array) -> Array:
    bright = array > 0.4 * np.percentile(array, 75.0)
    if not bright.any():
        raise AssessmentError("the image is empty around the planned implant: check the registration")
    sigma = LEVEL_SIGMA_MM / spacing
    weight = ndimage.gaussian_filter(bright.astype(np.float64), sigma)
    level = ndimage.gaussian_filter(np.where(bright, array, 0.0), sigma) / np.maximum(weight, 1e-6)
    return np.asarray(np.clip(array / np.maximum(level, 1e-12), 0.0, 2.0))


def across(axis: Array) -> Array:
    """Two unit vectors (2, 3) at right angles to ``axis``."""
    return np.asarray(np.linalg.svd(axis[None])[2][1:])


def search(region: Region, near: Trajectory, radius_mm: float) -> Ends:
    """Entry and tip whose core is darkest against the ring around it, over shifts of both ends."""
    sides = across(near.direction)
    blurred = replace(region, remaining=ndimage.gaussian_filter(region.remaining, 0.7))
    steps = np.linspace(-radius_mm, radius_mm, COARSE_STEPS)
    a, b = np.meshgrid(steps, steps, indexing="ij")
    inside = np.hypot(a, b) <= radius_mm * 1.01
    shifts = a[inside][:, None] * sides[0] + b[inside][:, None] * sides[1]

    def score(entry_shift: Array, tip_shift: Array) -> Array:
        """Ring minus core signal for shifts (n, 3)."""
        along = np.linspace(0.1, 0.9, 17)[:, None]
        line = near.entry_ras_mm + along * (near.tip_ras_mm - near.entry_ras_mm)
        centres = line + (1 - along) * entry_shift[:, None] + along * tip_shift[:, None]
        turn = np.arange(8) * np.pi / 4.0
        ring = np.cos(turn)[:, None] * sides[0] + np.sin(turn)[:, None] * sides[1]
        core = blurred.at(centres).mean(axis=1)
        inner = blurred.at(centres[:, ::2, None] + 0.5 * near.diameter_mm / 2.0 * ring[::2])
        outer = blurred.at(centres[:, ::2, None] + (0.9 * near.diameter_mm + 1.0) * ring)
        return np.asarray(outer.mean(axis=(1, 2)) - 0.5 * (core + inner.mean(axis=(1, 2))))

    first, second = (index.reshape(-1) for index in np.meshgrid(range(len(shifts)), range(len(shifts)), indexing="ij"))
    # An implant lies roughly as planned: ends shifted against each other by more than the radius are not tried.
    likely = np.linalg.norm(shifts[first] - shifts[second], axis=1) <= radius_mm
    first, second = first[likely], second[likely]
    scores = score(shifts[first], shifts[second])
    both = np.concatenate([shifts[first], shifts[second]], axis=1)
    candidates: list[int] = []
    for index in np.argsort(scores)[::-1]:
        # Places that are apart: the darkest four are often all of one void, and that may be a neighbour's.
        if all(
            np.linalg.norm(both[index] - both[other]) > near.diameter_mm + steps[1] - steps[0] for other in candidates
        ):
            candidates.append(int(index))
        if len(candidates) == STARTS:
            break

    def cost(parameters: Array) -> float:
        return -float(score((parameters[:2] @ sides)[None], (parameters[2:] @ sides)[None])[0])

    found = [
        optimize.minimize(
            cost,
            np.concatenate([sides @ shifts[first[c]], sides @ shifts[second[c]]]),
            method="Nelder-Mead",
            options={"xatol": 0.05, "fatol": 1e-4, "maxfev": 250},
        )
        for c in candidates
    ]
    darkest = min(float(each.fun) for each in found)
    # Of voids that are nearly alike it is the one that lies as planned, and not its neighbour's.
    best = min((each for each in found if each.fun <= ALIKE * darkest), key=lambda each: float(np.linalg.norm(each.x)))
    return near.entry_ras_mm + best.x[:2] @ sides, near.tip_ras_mm + best.x[2:] @ sides


def fit_voids(region: Region, starts: Sequence[Ends], diameters_mm: Sequence[float]) -> tuple[list[Void], float]:
    """(voids, cost) by least squares of background x (1 - depth x smooth cylinders) over the voxels about all of them.

    ``starts``: first ends of each cylinder. Depth, edge and background are those of all; what lies in two is dark once.
    """
    voxel_mm = region.voxel_mm
    ras = region.points.reshape(-1, 3)
    frames, keep = [], np.zeros(len(ras), dtype=bool)
    for (entry, tip), diameter in zip(starts, diameters_mm, strict=True):
        length = float(np.linalg.norm(tip - entry))
        axis = (tip - entry) / length
        sides = across(axis)
        off = ras - entry
        x, y, z = off @ sides[0], off @ sides[1], off @ axis
        reach, beyond = diameter + 3.0 * voxel_mm, max(0.25 * length, 6.0)
        keep |= (np.hypot(x, y) < reach) & (z > -beyond) & (z < length + beyond)
        frames.append((entry, axis, sides, length, diameter / 2.0, reach, beyond, np.stack([x, y, z])))
    data = region.remaining.reshape(-1)[keep]
    places = [frame[-1][:, keep] for frame in frames]

    def tissue(p: Array, frame: int) -> Array:
        # x and y of the axis at its two ends, the ends along it, radius; then edge width, depth, background of all.
        (x, y, z), q, width = places[frame], p[frame * OF_ONE :], p[-SHARED]
        t = z / frames[frame][3]
        off = np.hypot(x - (q[0] + (q[2] - q[0]) * t), y - (q[1] + (q[3] - q[1]) * t))
        return np.asarray(_edge(q[6] - off, width) * _edge(z - q[4], width) * _edge(q[5] - z, width))

    def model(p: Array) -> Array:
        left = np.ones_like(data)
        for frame in range(len(frames)):
            left *= 1.0 - tissue(p, frame)
        return np.asarray(p[-1] * (1.0 - p[-2] * (1.0 - left)))

    noise = max(1.4826 * float(np.median(np.abs(data - np.median(data)))) / 2.0, 0.03)
    first, low, high = [], [], []
    for _, _, _, length, radius, reach, beyond, _ in frames:
        first += [0, 0, 0, 0, 0, length, radius]
        low += [-reach] * 4 + [-beyond, 0.5 * length, 0.3 * radius]
        high += [reach] * 4 + [0.5 * length, length + beyond, reach]
    first += [0.4 * voxel_mm, 0.8, float(np.median(data))]
    low += [0.15 * voxel_mm, 0.0, 0.2]
    high += [1.5 * voxel_mm, 1.0, 2.0]
    fitted = optimize.least_squares(
        lambda p: model(p) - data,
        np.clip(first, np.array(low) + 1e-6, np.array(high) - 1e-6),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=noise,
        max_nfev=MOST_STEPS,
    )
    p = fitted.x
    covariance = np.linalg.pinv(fitted.jac.T @ fitted.jac) * float(np.mean((model(p) - data) ** 2))
    variance = np.diag(covariance)
    voids = []
    for number, (entry, axis, sides, length, *_) in enumerate(frames):
        q = p[number * OF_ONE : (number + 1) * OF_ONE]
        ends = [entry + t * axis + (q[:2] + (q[2:4] - q[:2]) * t / length) @ sides for t in q[4:6]]
        sigma = float(np.sqrt(np.max(variance[number * OF_ONE + AXIS_AND_TIP])))
        voids.append(Void(ends[0], ends[1], float(q[6]), float(p[-3]), float(p[-2]), sigma))
    return voids, float(fitted.cost)


def _edge(distance: Array, width: float) -> Array:
    """Smooth step, 0 outside, 1 inside; ``width``: standard deviation of the blur in mm."""
    return np.asarray(0.5 + 0.5 * np.tanh(distance / (1.25 * width)))


def void_mask(region: Region, void: Void) -> npt.NDArray[np.uint8]:
    """Dark voxels connected with the axis, at most about a voxel beyond the fitted surface."""
    radial, along = void.cylindrical(region.points)
    beyond = region.voxel_mm
    about = (radial < void.radius + beyond) & (along > -beyond) & (along < void.length + beyond)
    labels, _ = ndimage.label(about & (region.remaining < 1.0 - 0.5 * void.depth))
    core = labels[(radial < 0.5 * void.radius) & (along > 0) & (along < void.length)]
    return np.isin(labels, np.unique(core[core > 0])).astype(np.uint8)
