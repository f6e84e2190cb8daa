"""An ablation in front of the scanner: slices of a head while a spot is heated and cools down and the field drifts.

The temperature is a closed form, so that every number made of the frames can be held against the truth. k-space is
that of an object on a grid finer than the image, written without the reconstruction's operators.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.ndimage import map_coordinates

from ..data import Acquisition, Encoding, Image, LineFlag
from ..errors import DataError
from ..geometry import apply, invert
from .coils import coil_maps
from .grids import stream
from .raw_scans import RADIANS_PER_C_S_T

Array = npt.NDArray[np.float64]

#: Name of the scan, its field and its echo time: -0.096 radians for a degree.
THERMOMETRY = "Thermometry"
FIELD_T, ECHO_S = 3.0, 12e-3
#: Points along each side of a voxel in the plane, and through a slice.
FINE, THROUGH = 2, 2
#: Phase of the head itself from the middle to the edge of the picture, radians.
OBJECT_PHASE = 2.0


@dataclass(frozen=True)
class Ablation:
    """What happens to the head; times in seconds since the first frame.

    Temperature rises by a Gaussian of ``sigma_mm`` about ``spot_ras_mm``: from ``starts_s`` to ``stops_s`` up to
    ``peak_c``, with the time constant ``rises_s``, then it falls with ``falls_s``. The field drifts as ``drift_c``
    would at the end of the scan in the middle, and by the share ``drift_slope`` more at the edge. The head moves by
    ``moves_mm`` (RAS) at ``moves_at_s``.
    """

    spot_ras_mm: tuple[float, float, float]
    peak_c: float = 25.0
    sigma_mm: float = 6.0
    starts_s: float = 9.0
    stops_s: float = 90.0
    rises_s: float = 30.0
    falls_s: float = 30.0
    frames: int = 40
    interval_s: float = 3.0
    drift_c: float = 5.0
    drift_slope: float = 0.4
    moves_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    moves_at_s: float = float("inf")

    def peak_rise_c(self, time_s: float) -> float:
        """Rise in the middle of the spot, C."""
        if time_s <= self.starts_s:
            return 0.0
        whole = 1 - np.exp(-(self.stops_s - self.starts_s) / self.rises_s)
        rise = self.peak_c * (1 - np.exp(-(min(time_s, self.stops_s) - self.starts_s) / self.rises_s)) / whole
        return float(rise * np.exp(-max(0.0, time_s - self.stops_s) / self.falls_s))

    def rise_c(self, time_s: float, ras_mm: Array) -> Array:
        """Rise of the temperature at points (..., 3), C."""
        away = np.sum((ras_mm - np.asarray(self.spot_ras_mm)) ** 2, axis=-1)
        return np.asarray(self.peak_rise_c(time_s) * np.exp(-away / (2 * self.sigma_mm**2)))

    def frame_time_s(self, frame: int) -> float:
        """When a frame is taken."""
        return frame * self.interval_s


class HeatedScan:
    """Raw data of ``slices`` of ``image`` about the spot, in the plane of its i and j, frame after frame.

    ``noise``: standard deviation of a real channel in an image of one coil, as a fraction of bright tissue.
    ``encoding``: names the scan for temperature. Raises DataError when the spot lies outside the image.
    """

    def __init__(
        self,
        image: Image,
        ablation: Ablation,
        *,
        matrix: int = 96,
        slices: int = 3,
        thickness_mm: float = 4.0,
        coils: int = 8,
        noise: float = 0.02,
        scan_id: str = THERMOMETRY,
        seed: int = 0,
    ) -> None:
        self.ablation, self._noise, self._rng = ablation, noise, stream(seed, f"heat {scan_id}")
        spacing, size = image.spacing_mm, np.array(image.array.shape[::-1])
        spot_ijk = apply(invert(image.ras_from_ijk), ablation.spot_ras_mm)
        if (spot_ijk < 0).any() or (spot_ijk > size - 1).any():
            raise DataError(f"the heated spot {ablation.spot_ras_mm} lies outside the image '{image.name}'")
        if matrix % 2 or matrix < 16 or slices < 1:
            raise DataError(f"thermometry needs an even matrix of at least 16 and a slice, got {matrix} and {slices}")
        field_mm = float((spacing * size)[:2].max())
        axes = image.ras_from_ijk[:3, :3] / spacing * np.array([field_mm / matrix, field_mm / matrix, thickness_mm])
        middle = apply(image.ras_from_ijk, [*((size[:2] - 1) / 2), spot_ijk[2]])
        ras_from_ijk = np.eye(4)
        ras_from_ijk[:3, :3] = axes
        ras_from_ijk[:3, 3] = middle - axes @ np.array([matrix // 2, matrix // 2, (slices - 1) / 2])
        self._points = self._fine_points(ras_from_ijk, matrix, slices)
        self._image, self._level = image, float(np.percentile(image.array, 98))
        self._still = self._object(np.zeros(3))
        fine = ras_from_ijk @ np.diag([1 / FINE, 1 / FINE, 1.0, 1.0])
        self._coils = coil_maps(fine, (max(slices, 2), FINE * matrix, FINE * matrix), coils)[:, :slices]
        self.encoding = Encoding(
            scan_id, "cartesian", (slices, matrix, matrix), (slices, matrix, matrix),
            (slices * thickness_mm, field_mm, field_mm), (slices * thickness_mm, field_mm, field_mm), coils,
            ras_from_ijk, is_3d=False, repetitions=ablation.frames, protocol=THERMOMETRY, patient_id=image.patient_id,
            field_t=FIELD_T, echo_times_s=(ECHO_S,),
            metadata={"scan_for": "temperature", "frame_interval_s": repr(ablation.interval_s)},
        )  # fmt: skip

    def blocks(self) -> Iterator[Acquisition]:
        """A block a slice; the last one says so."""
        slices, matrix, _ = self.encoding.encoded_matrix
        lines = np.arange(matrix, dtype=np.int32)
        for frame in range(self.ablation.frames):
            samples = self._samples(frame)
            for number in range(slices):
                last = frame == self.ablation.frames - 1 and number == slices - 1
                flags = np.zeros(matrix, np.uint32)
                flags[-1] = int(LineFlag.LAST_IN_SCAN) if last else 0
                yield Acquisition(
                    self.encoding.scan_id, samples[number], lines, np.full(matrix, number, np.int32), flags,
                    repetition=frame, last=last,
                )  # fmt: skip

    def rise_c(self, frame: int) -> Array:
        """True rise in a frame at the voxels' centres (z, y, x), C."""
        z, y, x = self.encoding.recon_matrix
        k, j, i = np.meshgrid(np.arange(z), np.arange(y), np.arange(x), indexing="ij")
        centres = apply(self.encoding.ras_from_ijk, np.stack([i, j, k], axis=-1))
        return self.ablation.rise_c(self.ablation.frame_time_s(frame), centres)

    @staticmethod
    def _fine_points(ras_from_ijk: Array, matrix: int, slices: int) -> Array:
        """RAS of the object's points (slice, through, fine y, fine x, 3)."""
        plane = np.arange(FINE * matrix) / FINE
        through = (np.arange(THROUGH) + 0.5) / THROUGH - 0.5
        k = np.arange(slices)[:, None] + through
        grid = np.meshgrid(k.ravel(), plane, plane, indexing="ij")
        points = apply(ras_from_ijk, np.stack(grid[::-1], axis=-1))
        return np.asarray(points.reshape(slices, THROUGH, *points.shape[1:]))

    def _object(self, moved_mm: Array) -> npt.NDArray[np.complex64]:
        """Brightness and phase of the head, moved, at all points."""
        points = self._points - moved_mm
        ijk = apply(invert(self._image.ras_from_ijk), points)
        brightness = map_coordinates(self._image.array.astype(np.float32), np.moveaxis(ijk[..., ::-1], -1, 0), order=1)
        off = (points - self._points.reshape(-1, 3).mean(axis=0)) / np.abs(self._points - self._points.mean()).max()
        phase = OBJECT_PHASE * (off[..., 0] - 0.7 * off[..., 1] + off[..., 0] * off[..., 1] + 0.4 * off[..., 2])
        return np.asarray(brightness * np.exp(1j * phase), dtype=np.complex64)

    def _samples(self, frame: int) -> npt.NDArray[np.complex64]:
        """Lines (slice, line, coil, readout) of a frame."""
        what, time_s = self.ablation, self.ablation.frame_time_s(frame)
        head, moved = self._still, np.asarray(what.moves_mm)
        if time_s >= what.moves_at_s:
            head = self._object(moved)
        share = frame / max(1, what.frames - 1)
        reach = self._points[..., 0] - self._points[..., 0].mean()
        drift = what.drift_c * share * (1 + what.drift_slope * reach / np.abs(reach).max())
        per_c = RADIANS_PER_C_S_T * FIELD_T * ECHO_S
        turned = head * np.exp(1j * per_c * (what.rise_c(time_s, self._points) + drift)).astype(np.complex64)
        seen = turned.mean(axis=1) * self._coils
        matrix = self.encoding.encoded_matrix[1]
        edge = (FINE - 1) * matrix // 2
        whole: Any = fft.fft2(fft.ifftshift(seen, axes=(-2, -1)), norm="ortho", workers=2)
        kept = fft.fftshift(whole, axes=(-2, -1))[..., edge : edge + matrix, edge : edge + matrix] / FINE
        noise = self._rng.standard_normal((*kept.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
        lines = np.moveaxis(kept + self._noise * self._level * noise, 0, 2)  # coils behind slices and lines
        return np.ascontiguousarray(lines, dtype=np.complex64)
