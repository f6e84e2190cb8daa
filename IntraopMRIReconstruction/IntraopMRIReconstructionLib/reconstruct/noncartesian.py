"""Radial and spiral frames to images: gridding where the readouts lie densely, iterative SENSE where they do not.

Sources as in :mod:`.radial` and :mod:`.gradient_delays`; for gridding Jackson et al., Selection of a convolution
function for Fourier inversion using gridding, IEEE Trans Med Imaging 10:473 (1991).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, kspace_from_image, resized
from ..operators.nufft import Nufft
from ..operators.remembered import remembered
from ..operators.sensitivity import low_resolution
from ..operators.trajectory import STRAIGHT, density, radial, radial_density
from . import koosh, sense
from .gradient_delays import gradient_delays
from .methods import Options
from .radial import iterative_sense
from .result import Step, Work
from .shots import Shots
from .unmixing import Calibrations

#: Share of k-space that must lie within half a gap of a sample.
COVERED = 0.95
#: Spokes that gradient delays are found from; more pairs of them cost time and add nothing.
DELAY_SPOKES = 48
#: Delays below this, in cycles per field of view, change no picture.
MIN_DELAY = 0.01
#: Spokes count as evenly spread when no gap of angles exceeds the mean by more than this factor.
EVEN = 2.0
#: Sides (samples) of the centre of k-space that coil maps are made from.
MAP_SIDE = (8, 32)


@dataclass(frozen=True, eq=False)
class _Slice:
    samples: ComplexArray
    k: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float32]
    images: ComplexArray


def image(
    frame: Shots,
    work: Work,
    options: Options,
    step: Step,
    threads: int,
    calibrations: Calibrations | None,
    phased: bool,
) -> npt.NDArray[Any]:
    """Image (z, y, x) on the encoded grid; fills in ``work.method``, reason, parameters and warnings.

    Magnitude by root sum of squares for gridding unless ``phased``, else complex. ``calibrations`` keep the coil maps.
    Raises ReconstructionError when no slice has enough readouts.
    """
    if frame.k.shape[-1] == 3:
        return koosh.volume(frame, work, step, threads, phased)
    z, y, x = frame.encoding.encoded_matrix
    shots = np.bincount(frame.slices, minlength=z)
    numbers = np.flatnonzero(shots).tolist()
    # The slice with the fewest readouts has the widest gaps.
    fewest = min(numbers, key=lambda number: shots[number])
    gap, dense = _coverage(frame.k[frame.slices == fewest], (y, x))
    _choose(frame, work, int(shots[fewest]), gap)
    corrected = _Trajectory(frame, work, options, (y, x))
    result = np.zeros((z, y, x), dtype=np.complex64)
    iterations = options.iterations or sense.ITERATIONS
    work.parameters["density"] = "area of each sample"
    if work.method == "iterative-sense":
        work.parameters.update(iterations=iterations, maps="low-resolution")
    for order, number in enumerate(numbers):
        step(order / len(numbers), f"{work.method}, slice {number + 1} of {z}")
        part = corrected.slice(number, threads)

        def made(part: _Slice = part) -> ComplexArray:
            kspace = kspace_from_image(part.images, (-2, -1), threads)
            return low_resolution(resized(kspace, (dense, dense)), (y, x))

        def tick(fraction: float, order: int = order) -> None:
            step((order + fraction) / len(numbers), f"{work.method} iterations")

        if work.method == "gridding" and not phased:
            result[number] = np.sqrt(np.sum(np.abs(part.images) ** 2, axis=0))
            continue
        key = ("maps", len(part.samples), number)
        maps = made() if calibrations is None else calibrations.weights(key, made)
        if work.method == "gridding":
            result[number] = np.sum(maps.conj() * part.images, axis=0)
        else:
            result[number] = iterative_sense(part.samples, part.k, maps, part.weights, iterations, threads, tick=tick)
    empty = sorted(set(range(z)) - set(numbers))
    if empty:
        work.warnings.append(f"slices without any readout are black: {', '.join(map(str, empty))}")
    return result


class _Trajectory:
    """Where the readouts really lie, their densities, and the transform; kept while slices share them."""

    def __init__(self, frame: Shots, work: Work, options: Options, shape: tuple[int, int]) -> None:
        self._frame, self._shape = frame, shape
        self._delays: npt.NDArray[np.float64] | None = None
        if options.delays and frame.encoding.trajectory == "radial" and shape[0] == shape[1]:
            self._find_delays(work)
        self._planned: npt.NDArray[np.float32] | None = None
        self._nufft: Nufft | None = None
        self._weights = np.zeros(0, np.float32)

    def slice(self, number: int, threads: int) -> _Slice:
        """Everything about one slice."""
        frame, chosen = self._frame, self._frame.slices == number
        samples, planned = frame.samples[:, chosen], frame.k[chosen]
        if self._nufft is None or self._planned is None or not np.array_equal(planned, self._planned):
            self._planned = planned
            k, self._weights = self._placed(planned)
            self._nufft = Nufft(k, self._shape, len(samples), threads)
        images = self._nufft.adjoint(samples * self._weights)
        return _Slice(samples, self._nufft.k.reshape(planned.shape), self._weights, images)

    def _placed(self, planned: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        angles, size, readout = spoke_angles(planned, self._shape), self._shape[0], planned.shape[1]
        if angles is None:
            return planned, density(planned)
        k = radial(angles, readout, size, self._delays)
        if not _even(angles):
            return k, density(k)
        return k, radial_density(angles, readout, size, len(angles), self._delays)

    def _find_delays(self, work: Work) -> None:
        frame, size = self._frame, self._shape[0]
        chosen = np.flatnonzero(frame.slices == frame.slices[0])[:DELAY_SPOKES]
        angles = spoke_angles(frame.k[chosen], self._shape)
        if angles is None:
            return
        try:
            found = gradient_delays(frame.samples[:, chosen], angles, size)
        except ReconstructionError as error:
            work.warnings.append(f"gradient delays are not corrected: {error}")
            return
        if np.abs(found.matrix).max() < MIN_DELAY:
            work.parameters["gradient_delays"] = "none found"
            return
        self._delays = found.matrix
        (xx, xy), (_, yy) = found.matrix
        work.parameters["gradient_delays"] = f"xx {xx:.3f} yy {yy:.3f} xy {xy:.3f} cycles per field of view"


def spoke_angles(k: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float64] | None:
    """Angles (shots,) of straight spokes through the centre that :func:`radial` describes, None for anything else."""
    if shape[0] != shape[1]:
        return None
    along = k[:, -1] - k[:, 0]
    angles = np.arctan2(along[:, 1], along[:, 0]).astype(np.float64)
    planned = radial(angles, k.shape[1], shape[0])
    return angles if float(np.abs(planned - k).max()) < STRAIGHT else None


def _even(angles: npt.NDArray[np.float64]) -> bool:
    turned = np.sort(angles % np.pi)
    gaps = np.diff(np.append(turned, turned[0] + np.pi))
    return bool(gaps.max() <= EVEN * np.pi / len(angles))


@remembered
def _coverage(k: npt.NDArray[np.float32], shape: tuple[int, int]) -> tuple[float, int]:
    """(width of the gaps in cycles per field of view, side of the square in the centre that has none)."""
    places = k.reshape(-1, 2)
    axes = [np.arange(size) - size // 2 + 0.5 for size in shape]
    y, x = np.meshgrid(*axes, indexing="ij")
    reach = min(float(np.hypot(*places.T).max()), min(shape) / 2)
    radius = np.hypot(x, y)
    inside = radius <= reach
    away, _ = cKDTree(places).query(np.stack([x[inside], y[inside]], axis=-1))
    # Holes in the middle are few and cost most of the signal.
    middle = away[radius[inside] <= MAP_SIDE[0] / 2]
    gap = 2 * max(float(np.quantile(away, COVERED)), float(middle.max(initial=0.0)))
    holes = radius[inside][away > koosh.MAX_GAP / 2]
    side = int(np.sqrt(2) * (holes.min() if len(holes) else reach))
    return gap, int(np.clip(side, MAP_SIDE[0], min(MAP_SIDE[1], *shape)))


def _choose(frame: Shots, work: Work, shots: int, gap: float) -> None:
    name = "spokes" if frame.encoding.trajectory == "radial" else "interleaves"
    gaps = f"{shots} {name} leave gaps of {gap:.1f} cycles per field of view"
    work.parameters["shots"] = shots
    if work.method == "auto":
        if gap <= koosh.MAX_GAP:
            work.method, work.reason = "gridding", f"{shots} {name} cover k-space"
        elif frame.encoding.coils > 1:
            work.method, work.reason = "iterative-sense", f"{gaps}, which the coils can fill"
        else:
            work.method, work.reason = "gridding", f"{gaps} and a single coil cannot fill them"
    if work.method == "gridding" and gap > koosh.MAX_GAP:
        work.warnings.append(f"{gaps}: expect streaks or aliases")
    if work.method == "iterative-sense" and frame.encoding.coils == 1:
        raise ReconstructionError("iterative SENSE needs more than one live coil: use method gridding")
