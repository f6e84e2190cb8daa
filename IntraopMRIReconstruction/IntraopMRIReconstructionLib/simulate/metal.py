"""What metal does to a picture: the field of a magnetised rod moves the signal around it, and the metal gives none.

The field comes from the dipole kernel in k-space (Marques and Bowtell, Concepts Magn Reson B 25:65, 2005; Salomir et
al., Concepts Magn Reson B 19:26, 2003), for any shape and without the reconstruction's closed forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from ..data import FloatArray, Matrix
from ..errors import DataError
from ..geometry import apply, invert
from .grids import Shape, points_of

#: Proton frequency, Hz/T (CODATA 2018).
PROTON_HZ_PER_TESLA = 42.577478518e6
#: Titanium alloy against tissue (Schenck 1996).
TITANIUM_PPM = 182.0
#: Tissue around the metal that is simulated; beyond, its signal moves by less than a voxel.
MARGIN_MM, RIM_MM = 20.0, 2.0
#: The field is computed on voxels of at most this size.
FINE_MM = 0.6
#: Signal of a fine voxel is moved in so many pieces along the readout, so that stretched signal shows no gaps.
PIECES = 4
#: Multi-spectral scans excite so far to either side; what is farther off resonance gives no signal.
COVERAGE_HZ = 12_000.0
#: What the receiver sees where there is no signal: its noise alone.
FLOOR = 8.0


@dataclass(frozen=True)
class MetalScan:
    """How a scan encodes space beside metal.

    ``readout_hz_per_mm``: gradient while reading along i, negative for the reversed polarity. ``slice_hz_per_mm``:
    gradient while exciting a slice across k, infinite for 3D scans. ``spectral_bin_hz``: width of the bins of a
    multi-spectral scan, whose centre frequencies are known and cost no displacement; None for a plain scan.
    ``field_ras``: direction of the static field.
    """

    field_t: float = 1.5
    susceptibility_ppm: float = TITANIUM_PPM
    readout_hz_per_mm: float = 500.0
    slice_hz_per_mm: float = np.inf
    spectral_bin_hz: float | None = None
    field_ras: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        if not (self.field_t > 0 and self.readout_hz_per_mm and self.slice_hz_per_mm):
            raise DataError(
                f"a scan needs a field and gradients that are not 0, got {self.field_t} T, {self.readout_hz_per_mm} "
                f"and {self.slice_hz_per_mm} Hz/mm"
            )

    def facts(self) -> dict[str, str]:
        """What a scanner says of this in the metadata of an image."""
        facts = {
            "field_t": f"{self.field_t:g}",
            "readout_axis": "i",
            "slice_axis": "k",
            "readout_hz_per_mm": f"{abs(self.readout_hz_per_mm):g}",
            "slice_hz_per_mm": f"{abs(self.slice_hz_per_mm):g}",
        }
        return facts if self.spectral_bin_hz is None else facts | {"spectral_bin_hz": f"{self.spectral_bin_hz:g}"}


Ends = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


def with_rod(
    scan: FloatArray, ras_from_ijk: Matrix, ends_ras_mm: Ends, diameter_mm: float, physics: MetalScan
) -> FloatArray:
    """See :func:`with_rods`, for one."""
    return with_rods(scan, ras_from_ijk, (ends_ras_mm,), diameter_mm, physics)


def with_rods(
    scan: FloatArray, ras_from_ijk: Matrix, rods_ras_mm: Sequence[Ends], diameter_mm: float, physics: MetalScan
) -> FloatArray:
    """``scan`` (k, j, i; readout along i, slices along k) with metal rods: void, displaced signal and pile-up.

    ``rods_ras_mm``: ends of each; their fields add up. Raises DataError when one lies outside the scan.
    """
    spacing_kji = np.linalg.norm(ras_from_ijk[:3, :3], axis=0)[::-1]
    box, grid, factors = _fine_box(scan.shape, ras_from_ijk, np.array([end for ends in rods_ras_mm for end in ends]))
    fine = np.asarray(scan[box], dtype=np.float32)
    for axis, factor in enumerate(factors):
        fine = np.repeat(fine, factor, axis)
    points = points_of(grid, _shape(fine))
    spacing = np.linalg.norm(grid[:3, :3], axis=0)
    metal = np.zeros_like(fine)
    for ends in rods_ras_mm:
        np.maximum(metal, _rod(points, ends, diameter_mm, float(spacing.max())), out=metal)
    hz = _field(metal, grid, physics)
    moved = _moved(fine * (1 - metal), hz, spacing, physics)
    k, j, i = factors
    size = scan[box].shape
    blocks = moved.reshape(size[0], k, size[1], j, size[2], i).mean(axis=(1, 3, 5))
    result = scan.copy()
    # At the rim of the box signal leaves and none comes in.
    rim = tuple(slice(int(np.ceil(RIM_MM / d)), -int(np.ceil(RIM_MM / d))) for d in spacing_kji)
    result[box][rim] = np.maximum(blocks[rim], FLOOR)
    return result


def _fine_box(
    shape: tuple[int, ...], ras_from_ijk: Matrix, ends: npt.NDArray[np.float64]
) -> tuple[tuple[slice, slice, slice], Matrix, tuple[int, int, int]]:
    """Slices (k, j, i) about ends (n, 3) of rods, ``ras_from_ijk`` of the fine grid, how much finer it is (k, j, i)."""
    spacing = np.linalg.norm(ras_from_ijk[:3, :3], axis=0)
    index = apply(invert(ras_from_ijk), ends)
    size = np.array(shape[::-1])
    low = np.clip(np.floor(index.min(axis=0) - MARGIN_MM / spacing), 0, size - 1).astype(int)
    high = np.clip(np.ceil(index.max(axis=0) + MARGIN_MM / spacing) + 1, 1, size).astype(int)
    if (high - low < 2).any():
        raise DataError(f"the rod at index {index.round().tolist()} lies outside the scan of size {size.tolist()}")
    factor = np.ceil(spacing / FINE_MM).astype(int)
    to_coarse = np.diag([*(1 / factor), 1.0])
    to_coarse[:3, 3] = low - 0.5 + 0.5 / factor
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (k, j, i), np.asarray(ras_from_ijk @ to_coarse), (int(factor[2]), int(factor[1]), int(factor[0]))


def _shape(array: FloatArray) -> Shape:
    k, j, i = array.shape
    return k, j, i


def _rod(points: FloatArray, ends: Ends, diameter_mm: float, voxel_mm: float) -> FloatArray:
    """Share of each voxel inside the rod."""
    along = ends[1] - ends[0]
    length = float(np.linalg.norm(along))
    axis = (along / length).astype(np.float32)
    offset = points - ends[0].astype(np.float32)
    t = offset @ axis
    aside = np.linalg.norm(offset - t[..., None] * axis, axis=-1)
    outside = np.maximum(aside - diameter_mm / 2, np.abs(t - length / 2) - length / 2)
    return np.clip(0.5 - outside / voxel_mm, 0, 1)


def _field(metal: FloatArray, grid: Matrix, physics: MetalScan) -> FloatArray:
    """Off-resonance in Hz of the magnetised ``metal`` against far tissue."""
    shape = [fft.next_fast_len(int(1.5 * n), real=True) for n in metal.shape]
    spacing = np.linalg.norm(grid[:3, :3], axis=0)
    k, j = (np.fft.fftfreq(n, d) for n, d in zip(shape[:2], spacing[:0:-1], strict=True))
    i = np.fft.rfftfreq(shape[2], spacing[0])
    north = np.asarray(physics.field_ras, dtype=np.float64) / np.linalg.norm(physics.field_ras)
    x, y, z = (grid[:3, :3] / spacing).T @ north
    along = z * k[:, None, None] + y * j[:, None] + x * i
    square = k[:, None, None] ** 2 + j[:, None] ** 2 + i**2
    square[0, 0, 0] = 1.0
    kernel = (1 / 3 - along**2 / square).astype(np.float32)
    kernel[0, 0, 0] = 0.0
    spectrum = fft.rfftn(metal, shape, workers=2) * kernel
    whole = fft.irfftn(spectrum, shape, workers=2)[tuple(slice(n) for n in metal.shape)]
    hz = whole * np.float32(PROTON_HZ_PER_TESLA * physics.field_t * physics.susceptibility_ppm * 1e-6)
    # The scanner tunes itself to the tissue, which is far from the metal for the most part.
    return np.asarray(hz - np.median(hz[metal == 0]), dtype=np.float32)


def _moved(signal: FloatArray, hz: FloatArray, spacing_ijk: npt.NDArray[np.float64], physics: MetalScan) -> FloatArray:
    """Each voxel's signal where the scan puts it: shifted along i, and along k when slices are excited."""
    if physics.spectral_bin_hz is not None:
        signal = np.where(np.abs(hz) < COVERAGE_HZ, signal, 0)
        hz = hz - physics.spectral_bin_hz * np.round(hz / physics.spectral_bin_hz)
    steepness = np.gradient(hz, axis=2) if physics.spectral_bin_hz is None else np.zeros_like(hz)
    grids: list[FloatArray] = list(np.indices(signal.shape, dtype=np.float32))
    k, j, i = grids
    total = np.zeros(signal.size)
    for piece in ((np.arange(PIECES) + 0.5) / PIECES - 0.5).tolist():
        here = hz + piece * steepness
        at_i = i + piece + here / float(physics.readout_hz_per_mm * spacing_ijk[0])
        at_k = k + here / float(physics.slice_hz_per_mm * spacing_ijk[2])
        total += _splat(signal / PIECES, at_k, j, at_i)
    return np.asarray(ndimage.gaussian_filter(total.reshape(signal.shape).astype(np.float32), 0.5))


def _splat(signal: FloatArray, at_k: FloatArray, j: FloatArray, at_i: FloatArray) -> npt.NDArray[np.float64]:
    """Sum of the signal on the grid, shared linearly between neighbours along k and i."""
    total = np.zeros(signal.size)
    low_k, low_i = np.floor(at_k), np.floor(at_i)
    nk, nj, ni = signal.shape
    for dk in (0, 1):
        weight_k = np.abs(1 - dk - (at_k - low_k))
        if not weight_k.any():
            continue
        for di in (0, 1):
            weight = signal * weight_k * np.abs(1 - di - (at_i - low_i))
            to_k, to_i = low_k + dk, low_i + di
            inside = (weight > 0) & (to_k >= 0) & (to_k < nk) & (to_i >= 0) & (to_i < ni)
            flat = ((to_k[inside] * nj + j[inside]) * ni + to_i[inside]).astype(np.intp)
            total += np.bincount(flat, weight[inside], signal.size)
    return total
