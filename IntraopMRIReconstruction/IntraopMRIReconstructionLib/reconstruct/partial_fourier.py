"""Images of k-space that was acquired on one side of its centre only: homodyne along one axis of a plane, POCS along
one or both.

Both take the phase of the image from the symmetric middle. Sources: Noll, Nishimura, Macovski, IEEE Trans Med Imaging
10:154 (1991) for homodyne; Haacke, Lindskog, Lin, J Magn Reson 92:126 (1991) for POCS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, image_from_kspace, kspace_from_image

Method = Literal["homodyne", "pocs"]
#: An axis of the plane (0 or 1), and its first and last + 1 sample that was acquired.
Side = tuple[int, tuple[int, int]]

#: Lines beyond the centre on the short side that the phase needs; fewer, and it follows nothing but the coil.
MIN_MIDDLE = 4
#: Rounds of POCS; changes are below the noise after about five. Where two sides are missing, more rounds only follow
#: the errors of the phase.
POCS_ROUNDS = 6
#: Lines over which POCS blends from measured to estimated k-space, against ringing at the border.
BLEND_LINES = 4


def completed(image: ComplexArray, sides: Sequence[Side], method: Method = "homodyne") -> ComplexArray:
    """Image (a, b) as if all of k-space had been acquired; zero-filled image in, both centred.

    ``sides``: each axis that was acquired on one side only, with its first and last + 1 sample. Of two, POCS completes
    both at once: homodyne takes what one of them lacks for phase of the object. Raises ReconstructionError when a short
    side has fewer than ``MIN_MIDDLE`` samples.
    """
    middles = [_middle(image.shape[axis], acquired) for axis, acquired in sides]
    axes = tuple(axis for axis, _ in sides)
    kspace = kspace_from_image(image, axes)
    phase = _middle_phase(kspace, axes, middles)
    if method_for(sides, method) == "homodyne":
        ((axis, acquired),) = sides
        index = np.arange(image.shape[axis])
        centre = len(index) // 2
        inside = (index >= acquired[0]) & (index < acquired[1])
        # Twice the lines whose mirror image is missing, ramping through the middle, so that each pair adds up to 2.
        towards = 1.0 if acquired[1] - centre > centre - acquired[0] else -1.0
        weight = np.clip(1.0 + towards * (index - centre) / middles[0], 0.0, 2.0) * inside
        weighted = image_from_kspace(kspace * _along(weight, axis), (axis,))
        real = (weighted * phase.conj()).real
        return np.asarray(np.maximum(real, 0) * phase, dtype=np.complex64)
    keep = math.prod(_along(_kept(image.shape[axis], acquired), axis) for axis, acquired in sides)
    estimate = image
    for _ in range(POCS_ROUNDS):
        full = kspace_from_image(np.abs(estimate) * phase, axes)
        estimate = image_from_kspace(kspace * keep + full * (1 - keep), axes)
    return np.asarray(estimate, dtype=np.complex64)


def method_for(sides: Sequence[Side], method: Method) -> Method:
    """What completes so many sides when ``method`` is asked for."""
    return method if len(sides) == 1 else "pocs"


def _middle(size: int, acquired: tuple[int, int]) -> int:
    """Samples on the short side of the centre."""
    middle = min(size // 2 - acquired[0], acquired[1] - size // 2)
    if middle < MIN_MIDDLE:
        raise ReconstructionError(
            f"partial Fourier needs at least {MIN_MIDDLE} lines on the short side of the centre, got {middle}: "
            "acquire more lines or use method fft"
        )
    return middle


def _kept(size: int, acquired: tuple[int, int]) -> npt.NDArray[np.float64]:
    """How far measured samples are kept by POCS: towards the missing side they blend into the estimate."""
    index = np.arange(size)
    inside = (index >= acquired[0]) & (index < acquired[1])
    at_border = (np.minimum(index - acquired[0], acquired[1] - 1 - index) + 1) / (BLEND_LINES + 1)
    outer = (index < size // 2) if acquired[0] > size - acquired[1] else (index > size // 2)
    return np.where(inside, np.where(outer, np.clip(at_border, 0, 1), 1), 0)


def _middle_phase(kspace: ComplexArray, axes: tuple[int, ...], middles: Sequence[int]) -> ComplexArray:
    """Unit phase of the image of the symmetric middle of k-space, with a Hann window against ringing."""
    low = kspace
    for axis, middle in zip(axes, middles, strict=True):
        index = np.arange(kspace.shape[axis]) - kspace.shape[axis] // 2
        window = np.where(np.abs(index) < middle, 0.5 + 0.5 * np.cos(np.pi * index / middle), 0.0)
        low = low * _along(window, axis)
    low = image_from_kspace(low, axes)
    return np.asarray(low / (np.abs(low) + np.float32(1e-30)))


def _along(line: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float32]:
    return line.astype(np.float32).reshape((-1, 1) if axis % 2 == 0 else (1, -1))
