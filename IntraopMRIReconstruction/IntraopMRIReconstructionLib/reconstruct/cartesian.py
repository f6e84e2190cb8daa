"""Fully sampled Cartesian k-space to a magnitude image: inverse FFT and root sum of squares, coil by coil.

No shifts before and after the transform: coil images then differ from the centred ones by a phase, which a magnitude
does not see, and by a roll, which is done once at the end.

Source: Roemer et al., The NMR phased array, Magn Reson Med 16:192-225 (1990).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import scipy.fft

from ..data import Encoding
from ..operators.fourier import ComplexArray, resized
from ..operators.parallel import in_order, shares, spread
from .grid import full_matrix
from .result import Step

FloatArray = npt.NDArray[np.float32]

#: Samples added to each row of a work buffer: rows that are a power of two apart fight for the same cache lines.
ROW_PADDING = 8
#: What is transformed along z at a time: long runs of memory to read, and still in the cache when it is transformed.
BLOCK_BYTES = 2**22
#: Coils whose powers are added at once: two halve what is read and written of the sums, more hold too much memory.
COILS_TOGETHER = 2
#: Parts that each thread takes one after another, so that one which is held up leaves the rest to the others.
PARTS_PER_THREAD = 4
#: Samples below which a second thread costs more than it saves: their transforms take about 0.2 ms.
SAMPLES_FOR_THREADS = 2**16

#: A power beyond single precision becomes infinite: the finished image is refused with the reason.
OVERFLOW: Literal["ignore"] = "ignore"


def root_sum_of_squares(samples: ComplexArray, encoding: Encoding, step: Step, threads: int = 2) -> FloatArray:
    """Magnitude (z, y, x) on the recon grid from k-space (coils, z, y, x) on the encoded grid, which stays as it is."""
    full = full_matrix(encoding)
    # Orthonormal on the encoded matrix: a finer one keeps the brightness.
    power_scale = np.float32(1 / math.prod(encoding.encoded_matrix if encoding.is_3d else encoding.encoded_matrix[1:]))
    threads = threads if samples.size >= SAMPLES_FOR_THREADS else 1
    result = np.empty(encoding.recon_matrix, dtype=np.float32)
    step(0.0, "Fourier transform")
    if encoding.is_3d:
        _volume(samples, full, power_scale, result, step, threads)
    elif len(result) == 1:
        _slice(resized(samples[:, 0], full[1:]), power_scale, result[0], threads)
    else:

        def whole(z: int) -> None:
            _slice(resized(samples[:, z], full[1:]), power_scale, result[z], 1)

        for done, _ in enumerate(in_order(whole, range(len(result)), threads), 1):
            step(done / len(result), "Fourier transform")
    return result


def _slice(kspace: ComplexArray, power_scale: np.float32, result: FloatArray, threads: int) -> None:
    """Magnitude of one slice from its k-space (coils, y, x)."""
    # The coils of a row lie together: their squares add up in the nearest cache. Rows first, then columns.
    by_row = kspace.transpose(1, 0, 2)
    power = _power(scipy.fft.ifft2(by_row, axes=(2, 0), norm="forward", workers=threads))
    power *= power_scale
    _centred_root(power, result)


def _volume(
    samples: ComplexArray,
    full: tuple[int, int, int],
    power_scale: np.float32,
    result: FloatArray,
    step: Step,
    threads: int,
) -> None:
    """A few coils after the others: along z for some rows at a time, then plane by plane while it is in the cache.

    Memory that a process gets afresh costs more time than a transform: few coils are kept, and powers add up in place.
    """
    size_z, size_y, size_x = full
    height = max(1, min(size_y, BLOCK_BYTES // (8 * size_z * size_x)))
    blocks = [range(first, min(first + height, size_y)) for first in range(0, size_y, height)]
    together = min(COILS_TOGETHER, len(samples))
    # The rows of a block lie together, (coil, block, z, row and x): each is one piece of memory to transform.
    work = np.empty((together, len(blocks), size_z, height * size_x + ROW_PADDING), dtype=np.complex64)
    work = work[..., :-ROW_PADDING]
    powers = result if result.shape[1:] == full[1:] else np.empty((len(result), *full[1:]), dtype=np.float32)
    for first in range(0, len(samples), together):
        step(first / len(samples), "Fourier transform")
        coils = [resized(kspace, full) for kspace in samples[first : first + together]]
        last = first + together >= len(samples)

        def along_z(part: range, coils: list[ComplexArray] = coils) -> None:
            for coil, block in (divmod(number, len(blocks)) for number in part):
                rows = blocks[block]
                kept = work[coil, block, :, : len(rows) * size_x]
                np.copyto(kept.reshape(size_z, len(rows), size_x), coils[coil][:, rows.start : rows.stop])
                moved = scipy.fft.ifft(kept, axis=0, norm="forward", overwrite_x=True)
                if not np.may_share_memory(moved, kept):
                    np.copyto(kept, moved)

        def planes(part: range, count: int = len(coils), begun: bool = first > 0, last: bool = last) -> None:
            images = np.empty((count, len(blocks) * height, size_x), dtype=np.complex64)
            for z in part:
                in_fft_order = (z - len(result) // 2) % size_z
                np.copyto(images.reshape(count, len(blocks), -1), work[:count, :, in_fft_order])
                moved = scipy.fft.ifft2(images[:, :size_y], norm="forward", overwrite_x=True)
                power = _power(moved.transpose(1, 0, 2))
                if begun:
                    with np.errstate(over=OVERFLOW):
                        power += powers[z]
                if last:
                    power *= power_scale
                    _centred_root(power, result[z])
                else:
                    powers[z] = power

        spread(along_z, shares(len(coils) * len(blocks), PARTS_PER_THREAD * threads), threads)
        spread(planes, shares(len(result), PARTS_PER_THREAD * threads), threads)


def _power(images: ComplexArray) -> FloatArray:
    """Sum over the coils of the squared magnitudes, (y, x) from (y, coils, x)."""
    parts = images.view(np.float32)
    squares = np.einsum("ycx,ycx->yx", parts, parts)
    with np.errstate(over=OVERFLOW):
        return np.asarray(squares[:, 0::2] + squares[:, 1::2])


def _centred_root(power: FloatArray, result: FloatArray) -> None:
    """Root of a plane's power (y, x), in FFT order, centred and cropped into ``result``."""
    halves = [_halves(size, wanted) for size, wanted in zip(power.shape, result.shape, strict=True)]
    for to_y, from_y in halves[0]:
        for to_x, from_x in halves[1]:
            np.sqrt(power[from_y, from_x], out=result[to_y, to_x])


def _halves(size: int, wanted: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """(where in the middle ``wanted`` of a centred axis, where in FFT order) of what lies before and from N // 2."""
    before = wanted // 2
    return (slice(0, before), slice(size - before, size)), (slice(before, wanted), slice(0, wanted - before))
