"""Images of k-space that was acquired on one side of its centre only: homodyne and POCS, along one axis of a plane.

Both take the phase of the image from the symmetric middle. Sources: Noll, Nishimura, Macovski, IEEE Trans Med Imaging
10:154 (1991) for homodyne; Haacke, Lindskog, Lin, J Magn Reson 92:126 (1991) for POCS.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, image_from_kspace, kspace_from_image

Method = Literal["homodyne", "pocs"]

#: Lines beyond the centre on the short side that the phase needs; fewer, and it follows nothing but the coil.
MIN_MIDDLE = 4
#: Rounds of POCS; changes are below the noise after about five.
POCS_ROUNDS = 6
#: Lines over which POCS blends from measured to estimated k-space, against ringing at the border.
BLEND_LINES = 4


def completed(image: ComplexArray, axis: int, acquired: tuple[int, int], method: Method = "homodyne") -> ComplexArray:
    """Image (a, b) as if all of k-space along ``axis`` had been acquired; zero-filled image in, both centred.

    ``acquired``: first and last + 1 sample along ``axis``. Raises ReconstructionError when the short side has fewer
    than ``MIN_MIDDLE`` samples.
    """
    size = image.shape[axis]
    centre = size // 2
    middle = min(centre - acquired[0], acquired[1] - centre)
    if middle < MIN_MIDDLE:
        raise ReconstructionError(
            f"partial Fourier needs at least {MIN_MIDDLE} lines on the short side of the centre, got {middle}: "
            "acquire more lines or use method fft"
        )
    kspace = kspace_from_image(image, (axis,))
    phase = _middle_phase(kspace, axis, middle)
    index = np.arange(size)
    inside = (index >= acquired[0]) & (index < acquired[1])
    if method == "homodyne":
        # Twice the lines whose mirror image is missing, ramping through the middle, so that each pair adds up to 2.
        towards = 1.0 if acquired[1] - centre > centre - acquired[0] else -1.0
        weight = np.clip(1.0 + towards * (index - centre) / middle, 0.0, 2.0) * inside
        weighted = image_from_kspace(kspace * _along(weight, axis), (axis,))
        real = (weighted * phase.conj()).real
        return np.asarray(np.maximum(real, 0) * phase, dtype=np.complex64)
    edge = np.minimum(index - acquired[0], acquired[1] - 1 - index)
    at_border = (edge + 1) / (BLEND_LINES + 1)
    outer = (index < centre) if acquired[0] > size - acquired[1] else (index > centre)
    keep = _along(np.where(inside, np.where(outer, np.clip(at_border, 0, 1), 1), 0), axis)
    estimate = image
    for _ in range(POCS_ROUNDS):
        full = kspace_from_image(np.abs(estimate) * phase, (axis,))
        estimate = image_from_kspace(kspace * keep + full * (1 - keep), (axis,))
    return np.asarray(estimate, dtype=np.complex64)


def _middle_phase(kspace: ComplexArray, axis: int, middle: int) -> ComplexArray:
    """Unit phase of the image of the symmetric middle of k-space, with a Hann window against ringing."""
    index = np.arange(kspace.shape[axis]) - kspace.shape[axis] // 2
    window = np.where(np.abs(index) < middle, 0.5 + 0.5 * np.cos(np.pi * index / middle), 0.0)
    low = image_from_kspace(kspace * _along(window, axis), (axis,))
    return np.asarray(low / (np.abs(low) + np.float32(1e-30)))


def _along(line: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float32]:
    return line.astype(np.float32).reshape((-1, 1) if axis % 2 == 0 else (1, -1))
