"""From the encoded matrix to the recon matrix: interpolation, cropping of the field of view, and where voxels lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data import Encoding
from ..errors import ReconstructionError
from ..operators.fourier import image_from_kspace, kspace_from_image, resized
from ..operators.remembered import by_scan

#: Bounds of the ratio of a voxel between the two matrices: beyond, a header has mixed up its units.
MAX_INTERPOLATION = 8.0


@by_scan
def full_matrix(encoding: Encoding) -> tuple[int, int, int]:
    """Matrix (z, y, x) that covers the encoded field of view with voxels of the recon size.

    Raises ReconstructionError when the recon matrix does not fit into it.
    """
    sizes = []
    for axis, name in enumerate("zyx"):
        encoded, recon = encoding.encoded_matrix[axis], encoding.recon_matrix[axis]
        if axis == 0 and not encoding.is_3d:
            sizes.append(recon)
            continue
        full = round(recon * encoding.encoded_fov_mm[axis] / encoding.recon_fov_mm[axis])
        if full < recon or not 1 / MAX_INTERPOLATION <= full / encoded <= MAX_INTERPOLATION:
            raise ReconstructionError(
                f"along {name}, {recon} voxels over {encoding.recon_fov_mm[axis]:g} mm cannot be made from {encoded} "
                f"lines over {encoding.encoded_fov_mm[axis]:g} mm: check matrix and field of view in the header"
            )
        sizes.append(full)
    return sizes[0], sizes[1], sizes[2]


def fourier_axes(encoding: Encoding) -> tuple[int, ...]:
    """The Fourier-encoded ones of the last three axes (z, y, x), as negative numbers."""
    return (-3, -2, -1) if encoding.is_3d else (-2, -1)


def interpolation_gain(encoding: Encoding) -> float:
    """Factor that keeps the brightness when an orthonormal transform changes its matrix."""
    full = full_matrix(encoding)
    return float(np.sqrt(np.prod([full[axis] / encoding.encoded_matrix[axis] for axis in fourier_axes(encoding)])))


def on_recon_grid(image: npt.NDArray[Any], encoding: Encoding, threads: int = 1) -> npt.NDArray[Any]:
    """Bring images (..., z, y, x) on the encoded grid, complex, to the recon matrix."""
    full = full_matrix(encoding)
    changed = [axis for axis in fourier_axes(encoding) if full[axis] != encoding.encoded_matrix[axis]]
    if changed:
        shape = tuple(full[axis] if axis in changed else encoding.encoded_matrix[axis] for axis in (-3, -2, -1))
        kspace = resized(kspace_from_image(image, changed, threads), shape)
        image = image_from_kspace(kspace, changed, threads) * np.float32(interpolation_gain(encoding))
    return resized(image, encoding.recon_matrix)


def with_recon_matrix(encoding: Encoding, matrix: tuple[int, int, int]) -> Encoding:
    """The same encoding with another recon matrix (z, y, x) over, within a voxel, the same recon field of view.

    The voxel N // 2 stays where it is, and the voxel size is exactly the one that the transform makes.
    """
    old_full = full_matrix(encoding)
    fov, scales = list(encoding.recon_fov_mm), [1.0, 1.0, 1.0]
    for axis in range(3):
        if axis == 0 and not encoding.is_3d:
            continue
        share = encoding.encoded_fov_mm[axis] / encoding.recon_fov_mm[axis]
        full = max(round(matrix[axis] * share), matrix[axis])
        fov[axis] = encoding.encoded_fov_mm[axis] * matrix[axis] / full
        scales[axis] = old_full[axis] / full
    new_from_old = np.eye(4)
    scale = np.array(scales[::-1])
    new_from_old[:3, :3] = np.diag(scale)
    new_from_old[:3, 3] = np.array(encoding.recon_matrix[::-1]) // 2 - scale * (np.array(matrix[::-1]) // 2)
    return replace(
        encoding,
        recon_matrix=matrix,
        recon_fov_mm=(fov[0], fov[1], fov[2]),
        ras_from_ijk=encoding.ras_from_ijk @ new_from_old,
    )
