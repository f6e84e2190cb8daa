"""Which lines of Cartesian k-space were acquired, and what kind of sampling that is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_opening

from ..data import Encoding
from .remembered import remembered

Mask = npt.NDArray[np.bool_]
Kind = Literal["full", "regular", "holes", "random"]

#: Largest acceleration along one axis that is looked for; coil arrays in theatre carry at most 32 channels.
MAX_ACCELERATION = 8
#: A lattice that lacks more of its lines than this was not planned as one: the sampling is random.
MAX_HOLES = 0.15
#: Vendors draw an elliptical shutter's edge differently by up to so many lines.
SHUTTER_MARGIN = 2
#: Fewer lines missing on one side than this share of the matrix is not worth a partial-Fourier method.
PARTIAL_SHARE = 0.03
#: Fewer lines lie on a lattice by chance.
LEAST_OUTSIDE = 3
#: An ellipse fills more than this part of the box around it.
DENSE_SHARE = 0.7
#: A gap with at least so many lines on either side is no lattice's, but a loss; so wide it may be, and still be filled.
BESIDE_LOST, MOST_LOST = 2, 2


@dataclass(frozen=True)
class Sampling:
    """What a mask (z, y) of acquired lines is. Tuples are (z, y).

    ``kind``: full, regular (a lattice, perhaps with calibration lines), holes (a full or regular lattice that lacks a
    few lines), random. ``acceleration`` and ``offset`` describe the lattice. ``extent``: first and last + 1 line of
    each axis. ``calibration``: half-open ranges of the fully sampled centre block, empty when there is none; single
    lines of it may have been lost, see :func:`bridged`.
    ``partial``: acquired share of each axis when lines are missing on one side only, else 1.
    ``missing``: (n, 2) lines (z, y) of the lattice that were not acquired. ``empty``: slices of a 2D scan without any.
    """

    kind: Kind
    acceleration: tuple[int, int]
    offset: tuple[int, int]
    extent: tuple[tuple[int, int], tuple[int, int]]
    calibration: tuple[tuple[int, int], tuple[int, int]]
    partial: tuple[float, float]
    missing: npt.NDArray[np.int64]
    empty: tuple[int, ...]

    def __post_init__(self) -> None:
        self.missing.setflags(write=False)

    @property
    def calibration_lines(self) -> tuple[int, int]:
        """Size (z, y) of the fully sampled centre block."""
        (z0, z1), (y0, y1) = self.calibration
        return z1 - z0, y1 - y0


@remembered
def describe(acquired: npt.NDArray[Any], is_3d: bool) -> Sampling:
    """Describe the mask ``acquired`` (z, y). For 2D scans (``is_3d`` False) z counts slices, all sampled alike.

    A mask without any line is described as random with no extent. Frames of a live scan are sampled alike: what was
    found for the newest masks is kept.
    """
    mask: Mask = np.asarray(np.asarray(acquired) > 0)
    if mask.all():
        whole = ((0, mask.shape[0] if is_3d else 1), (0, mask.shape[1]))
        return Sampling("full", (1, 1), (0, 0), whole, whole, (1.0, 1.0), np.empty((0, 2), np.int64), ())
    begun: Mask = np.asarray(mask.any(axis=1))
    empty = () if is_3d else tuple(np.flatnonzero(~begun).tolist())
    plane: Mask = mask if is_3d else np.asarray(mask.any(axis=0, keepdims=True))
    if not plane.any():
        nothing = ((0, 0), (0, 0))
        return Sampling("random", (1, 1), (0, 0), nothing, nothing, (1.0, 1.0), np.argwhere(~mask), empty)
    extent = (_extent(np.asarray(plane.any(axis=1))), _extent(np.asarray(plane.any(axis=0))))
    closed = bridged(plane, is_3d)
    kind: Kind = "random"
    for calibration in (centre_block(closed, True), _dense_box(closed)):
        acceleration, offset = _lattice(plane, extent, calibration)
        lattice = lattice_mask(plane.shape, acceleration, offset, extent)
        if is_3d:
            lattice &= _not_in_corner(plane)
        wanted = lattice if is_3d else np.broadcast_to(lattice, mask.shape) & begun[:, None]
        missing = np.argwhere(wanted & ~mask)
        if len(missing) <= MAX_HOLES * max(1, int(wanted.sum())):
            kind = "holes" if len(missing) else "regular" if max(acceleration) > 1 else "full"
            break
    # What is sampled at random has gaps that nobody lost.
    seen = plane if kind == "random" else closed
    if not is_3d and max(acceleration) > 1:
        seen = mask[begun] if kind == "random" else bridged(mask[begun], False)
    calibration = centre_block(seen, is_3d)
    shares = tuple(
        _partial_share(extent[axis], plane.shape[axis], acceleration[axis]) if kind != "random" else 1.0
        for axis in (0, 1)
    )
    return Sampling(kind, acceleration, offset, extent, calibration, (shares[0], shares[1]), missing, empty)


def lattice_mask(
    shape: tuple[int, ...],
    acceleration: tuple[int, int],
    offset: tuple[int, int],
    extent: tuple[tuple[int, int], tuple[int, int]],
) -> Mask:
    """Mask (z, y) of the lines ``offset + n * acceleration`` within ``extent``."""
    axes = []
    for size, step, start, (first, stop) in zip(shape, acceleration, offset, extent, strict=True):
        index = np.arange(size)
        axes.append((index % step == start % step) & (index >= first) & (index < stop))
    return np.asarray(axes[0][:, None] & axes[1][None, :])


def planned_mask(encoding: Encoding, offset: tuple[int, int] = (0, 0)) -> Mask:
    """Lines (z, y) of one average of one frame that the header announces: lattice from ``offset`` and calibration.

    A centre away from N // 2 means partial Fourier: that many lines are left out on one side.
    """
    extent = []
    for axis, size in enumerate(encoding.encoded_matrix[:2]):
        moved = size // 2 - encoding.centre_index[axis] if axis == 1 or encoding.is_3d else 0
        extent.append((max(0, moved), min(size, size + moved)))
    step = _announced_step(encoding)
    start = (offset[0] % step[0], offset[1] % step[1])
    mask = lattice_mask(encoding.encoded_matrix[:2], step, start, (extent[0], extent[1]))
    (z0, z1), (y0, y1) = planned_calibration(encoding)
    mask[max(z0, extent[0][0]) : min(z1, extent[0][1]), max(y0, extent[1][0]) : min(y1, extent[1][1])] = True
    return mask


@remembered
def lacking_lines(acquired: Mask, encoding: Encoding) -> int:
    """How many of the lines that the header announces are not in the mask ``acquired`` (z, y) of a frame.

    0 where the lines follow another plan than the header's, and for the corners of an elliptical shutter. Those that
    only calibrate are not counted, since they may come in a frame of their own.
    """
    if acquired.all():
        return 0
    alone = replace(encoding, calibration_lines=(0, 0))
    planned = planned_mask(alone, begun_offset(encoding, acquired) or (0, 0))
    if encoding.is_3d:
        planned &= _not_in_corner(acquired)
    else:
        planned &= acquired.any(axis=1, keepdims=True)
    lacking, foreign = int((planned & ~acquired).sum()), acquired & ~planned
    (z0, z1), (y0, y1) = planned_calibration(encoding)
    foreign[z0:z1, y0:y1] = False
    others = int(foreign.sum()) > MAX_HOLES * max(1, int(acquired.sum()))
    found = describe(acquired, encoding.is_3d)
    regular = found.kind in ("full", "regular") and found.acceleration != (_announced_step(encoding))
    return 0 if others or regular else lacking


def planned_calibration(encoding: Encoding) -> tuple[tuple[int, int], tuple[int, int]]:
    """Half-open ranges (z, y) of the fully sampled centre that the header announces, empty when it announces none.

    An axis without lines of its own is sampled as far as the scan goes.
    """
    ranges = []
    for axis, size in enumerate(encoding.encoded_matrix[:2]):
        lines = min(encoding.calibration_lines[axis], size) if axis == 1 or encoding.is_3d else 0
        ranges.append((size // 2 - lines // 2, size // 2 - lines // 2 + lines) if lines else (0, size))
    if not any(encoding.calibration_lines[0 if encoding.is_3d else 1 :]):
        return (0, 0), (0, 0)
    return ranges[0], ranges[1]


def begun_offset(encoding: Encoding, acquired: Mask) -> tuple[int, int] | None:
    """Offset of the announced lattice by the ``acquired`` lines (z, y) outside the calibration, None without any."""
    step = _announced_step(encoding)
    (z0, z1), (y0, y1) = planned_calibration(encoding)
    outside = acquired.copy()
    outside[z0:z1, y0:y1] = False
    line = int(outside.argmax())
    if not outside.flat[line]:
        return None
    z, y = divmod(line, acquired.shape[1])
    return z % step[0], y % step[1]


def _announced_step(encoding: Encoding) -> tuple[int, int]:
    return encoding.acceleration[0] if encoding.is_3d else 1, encoding.acceleration[1]


def _extent(line: Mask) -> tuple[int, int]:
    where = np.flatnonzero(line)
    return int(where[0]), int(where[-1]) + 1


def bridged(mask: Mask, is_3d: bool) -> Mask:
    """``mask`` (z, y) with the gaps closed that only lost lines leave: up to ``MOST_LOST`` lines with at least
    ``BESIDE_LOST`` present ones on either side, along y, and along z of 3D scans."""
    closed = _closed(mask)
    return _closed(closed.T).T if is_3d else closed


def _dense_box(mask: Mask) -> tuple[tuple[int, int], tuple[int, int]]:
    """Half-open ranges (z, y) about all neighbouring lines of ``mask``, empty where they are no region of their own.

    Calibration lines need not fill a rectangle (an ellipse is usual in 3D), and lost ones leave others alone.
    """
    neighbours = np.ones((min(2, len(mask)), 2), dtype=bool)
    dense: Mask = np.asarray(binary_opening(mask, neighbours))
    if not dense.any():
        return (0, 0), (0, 0)
    # Beside them may be single ones behind a gap.
    reach = MOST_LOST + 1
    (z0, z1), (y0, y1) = _extent(np.asarray(dense.any(axis=1))), _extent(np.asarray(dense.any(axis=0)))
    if mask[z0:z1, y0:y1].mean() < DENSE_SHARE:
        return (0, 0), (0, 0)
    return (max(0, z0 - reach), z1 + reach), (max(0, y0 - reach), y1 + reach)


def _closed(mask: Mask) -> Mask:
    """``mask`` (lines, size) with short gaps between longer runs closed."""
    size, result = mask.shape[1], mask.copy()
    for gap in range(1, MOST_LOST + 1):
        places = size - gap - 2 * BESIDE_LOST + 1
        if places < 1:
            break
        lost = np.ones((len(mask), places), dtype=bool)
        for step in range(gap + 2 * BESIDE_LOST):
            part = mask[:, step : step + places]
            lost &= ~part if BESIDE_LOST <= step < BESIDE_LOST + gap else part
        for step in range(BESIDE_LOST, BESIDE_LOST + gap):
            result[:, step : step + places] |= lost
    return result


def centre_block(mask: Mask, is_3d: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Half-open ranges (z, y) of the fully sampled block about the centre of ``mask`` (z, y), empty when there is none.

    Of a 2D scan it is what every slice has: one that lacks a line would be calibrated by zeros.
    """
    # Grown along both axes in turn, until nothing more fits.
    plane = mask if is_3d else np.asarray(mask.all(axis=0, keepdims=True))
    centre_z, centre_y = plane.shape[0] // 2, plane.shape[1] // 2
    if not plane[centre_z, centre_y]:
        return (0, 0), (0, 0)
    low, high = [centre_z, centre_y], [centre_z + 1, centre_y + 1]
    grown = True
    while grown:
        grown = False
        for axis in (1, 0):
            for side, edges in ((-1, low), (1, high)):
                at = edges[axis] - 1 if side < 0 else edges[axis]
                if not 0 <= at < plane.shape[axis]:
                    continue
                z, y = slice(low[0], high[0]), slice(low[1], high[1])
                line = plane[at, y] if axis == 0 else plane[z, at]
                if line.all():
                    edges[axis] += side
                    grown = True
    return (low[0], high[0]), (low[1], high[1])


def _lattice(
    plane: Mask, extent: tuple[tuple[int, int], tuple[int, int]], calibration: tuple[tuple[int, int], tuple[int, int]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sparsest lattice that explains every line outside the calibration block."""
    outside = plane.copy()
    (z0, z1), (y0, y1) = calibration
    if (z0, y0) != (extent[0][0], extent[1][0]) or (z1, y1) != (extent[0][1], extent[1][1]):
        outside[z0:z1, y0:y1] = False
    where = np.argwhere(outside)
    best, best_offset = (1, 1), (0, 0)
    if len(where) < LEAST_OUTSIDE:
        return best, best_offset
    for step_z in range(1, min(MAX_ACCELERATION, plane.shape[0]) + 1):
        if np.ptp(where[:, 0] % step_z):
            continue
        for step_y in range(1, min(MAX_ACCELERATION, plane.shape[1]) + 1):
            if step_z * step_y > best[0] * best[1] and not np.ptp(where[:, 1] % step_y):
                best = (step_z, step_y)
                best_offset = (int(where[0, 0] % step_z), int(where[0, 1] % step_y))
    return best, best_offset


def _not_in_corner(plane: Mask) -> Mask:
    """Everything, or the inside of the ellipse when the mask shows an elliptical shutter (empty corners)."""

    def ellipse(margin: int) -> Mask:
        z, y = ((np.arange(size) - size // 2) / max(1.0, size / 2 + margin) for size in plane.shape)
        return np.asarray(np.hypot(z[:, None], y[None, :]) <= 1.0)

    if min(plane.shape) <= 4 * SHUTTER_MARGIN or plane[~ellipse(SHUTTER_MARGIN)].any():
        return np.ones(plane.shape, dtype=bool)
    return ellipse(-SHUTTER_MARGIN)


def _partial_share(extent: tuple[int, int], size: int, step: int) -> float:
    before, after = extent[0], size - extent[1]
    if abs(before - after) <= max(step, round(PARTIAL_SHARE * size)):
        return 1.0
    return 1.0 - (max(before, after) - min(before, after)) / size
