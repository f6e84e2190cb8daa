"""Fully sampled Cartesian k-space to a magnitude image: inverse FFT and root sum of squares, coil by coil.

Source: Roemer et al., The NMR phased array, Magn Reson Med 16:192-225 (1990).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..data import Encoding
from ..operators.fourier import resized
from ..operators.parallel import in_order, shares
from .grid import full_matrix, interpolation_gain
from .result import Step

#: Samples added to each row of a work buffer: rows that are a power of two apart fight for the same cache lines.
ROW_PADDING = 8


def root_sum_of_squares(
    samples: npt.NDArray[np.complex64], encoding: Encoding, step: Step, threads: int = 2
) -> npt.NDArray[np.float32]:
    """Magnitude (z, y, x) on the recon grid from k-space (coils, z, y, x) on the encoded grid, which stays as it is.

    No shifts before and after: coil images then differ from the centred ones by a phase, which a magnitude does not
    see, and a roll, which is done once at the end. One work buffer is transformed in place again and again.
    """
    full = full_matrix(encoding)
    scale = interpolation_gain(encoding) / np.sqrt(np.prod(full if encoding.is_3d else full[1:]))
    result = np.empty(encoding.recon_matrix, dtype=np.float32)
    if not encoding.is_3d:
        for z in range(full[0]):
            step(z / full[0], "Fourier transform")
            _finish(_power_of_slice(resized(samples[:, z], full[1:]), threads), scale, result[z])
        return result
    power = _power_of_volume(samples, full, step, threads)
    first_z = full[0] // 2 - encoding.recon_matrix[0] // 2

    def finish(part: range) -> None:
        for z in part:
            _finish(power[(z + first_z - full[0] // 2) % full[0]], scale, result[z])

    list(in_order(finish, shares(len(result), threads), threads))
    return result


def _finish(power: npt.NDArray[np.float32], scale: float, result: npt.NDArray[np.float32]) -> None:
    """Centred and cropped magnitude of a plane into ``result`` from its power (y, 2 x) in FFT order."""
    plane = power[:, 0::2] + power[:, 1::2]
    np.sqrt(plane, out=plane)
    plane *= np.float32(scale)
    result[...] = resized(scipy.fft.fftshift(plane), result.shape)


def _power_of_slice(kspace: npt.NDArray[np.complex64], threads: int) -> npt.NDArray[np.float32]:
    """Squared real and imaginary parts (y, 2 x) summed over coils, in FFT order, transform not scaled."""
    parts = scipy.fft.ifft2(kspace, norm="forward", workers=threads).view(np.float32)
    return np.asarray(np.einsum("cyx,cyx->yx", parts, parts))


def _power_of_volume(
    samples: npt.NDArray[np.complex64], full: tuple[int, int, int], step: Step, threads: int
) -> npt.NDArray[np.float32]:
    """As for a slice: along z in a strided pass over one coil, then plane by plane while the plane is in the cache."""
    power = np.zeros((full[0], full[1], 2 * full[2]), dtype=np.float32)
    work = np.zeros((*full[:2], full[2] + ROW_PADDING), dtype=np.complex64)[..., : full[2]]
    for coil, kspace in enumerate(samples):
        step(coil / len(samples), "Fourier transform")
        source = resized(kspace, full)

        def along_z(rows: range, source: npt.NDArray[np.complex64] = source) -> None:
            part = work[:, rows.start : rows.stop]
            np.copyto(part, source[:, rows.start : rows.stop])
            scipy.fft.ifft(part, axis=0, norm="forward", overwrite_x=True)

        def planes(part: range) -> None:
            for z in part:
                parts = scipy.fft.ifft2(work[z], norm="forward", overwrite_x=True).view(np.float32)
                np.multiply(parts, parts, out=parts)
                power[z] += parts

        list(in_order(along_z, shares(full[1], threads), threads))
        list(in_order(planes, shares(full[0], threads), threads))
    return power
