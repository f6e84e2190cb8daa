"""A stack of stars or spirals: the same readouts in every partition of a volume, Fourier encoded across them.

The transform across the partitions comes first; what is left are slices, each reconstructed as one of a 2D scan.
Source: Block et al., Towards routine clinical use of radial stack-of-stars 3D gradient-echo sequences, J Korean Soc
Magn Reson Med 18:87 (2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..data import Encoding
from ..errors import ReconstructionError
from ..operators.fourier import ComplexArray, image_from_kspace

#: Readouts of two partitions lie on top of each other within this, in cycles per field of view.
SAME_PLACE = 0.05


def is_flat(trajectory: npt.NDArray[np.floating], partition: npt.NDArray[np.integer], encoding: Encoding) -> bool:
    """Whether readouts ``trajectory`` (lines, readout, 3), in cycles per encoded field of view, stay within their
    ``partition`` (lines,): others fill a sphere, not a stack."""
    planned = (partition - encoding.centre_index[0])[:, None]
    return float(np.abs(trajectory[..., 2] - planned).max(initial=0.0)) <= SAME_PLACE


def slices_of(
    samples: ComplexArray, k: npt.NDArray[np.float32], partition: npt.NDArray[np.int32], encoding: Encoding, centre: int
) -> tuple[ComplexArray, npt.NDArray[np.float32], npt.NDArray[np.int32], str]:
    """(samples (coils, shots, readout), k (shots, readout, 2), slice of each shot, warning or "") from readouts
    ``samples`` and ``k`` likewise with their ``partition`` (shots,), ``centre`` being that of the centre of k-space.

    Readouts that came several times are averaged; those that some partition lacks are left out, which the warning
    says. Raises ReconstructionError when none is in every partition.
    """
    size = encoding.encoded_matrix[0]
    ends = np.round(k[:, [0, -1]].reshape(len(k), -1) / SAME_PLACE).astype(np.int64)
    _, first, number = np.unique(ends, axis=0, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    place = partition - centre + size // 2
    inside = (place >= 0) & (place < size)
    counts = np.zeros((len(first), size), dtype=np.float32)
    np.add.at(counts, (number[inside], place[inside]), 1)
    complete = np.flatnonzero((counts > 0).all(axis=1))
    # In the order of arrival: gradient delays are found from the first ones.
    whole = complete[np.argsort(first[complete])]
    if not len(whole):
        raise ReconstructionError(
            f"none of {len(first)} different readouts is in all {size} partitions: stacks that are turned from one "
            "partition to the next, and those with partitions left out, cannot be reconstructed"
        )
    row = np.full(len(first), -1)
    row[whole] = np.arange(len(whole))
    kept = inside & (row[number] >= 0)
    stack = np.zeros((size, len(whole), len(samples), samples.shape[2]), dtype=np.complex64)
    np.add.at(stack, (place[kept], row[number[kept]]), np.moveaxis(samples[:, kept], 1, 0))
    stack /= counts[whole].T[:, :, None, None]
    images = np.moveaxis(image_from_kspace(stack, (0,)), 2, 0).reshape(len(samples), -1, samples.shape[2])
    lost = len(first) - len(whole)
    warning = f"{lost} of {len(first)} readouts are left out because a partition lacks them" if lost else ""
    shots = np.tile(k[first[whole]], (size, 1, 1))
    return np.ascontiguousarray(images), shots, np.repeat(np.arange(size, dtype=np.int32), len(whole)), warning
