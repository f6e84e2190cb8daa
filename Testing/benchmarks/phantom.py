"""The head that every reconstruction benchmark images: MNI152 T1 seen by eight simulated coils, with noise."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage
import SimpleITK

COILS = 8
#: Standard deviation of the complex noise of one coil image; the brightest voxel is 1.
NOISE = 0.01
SEED = 20240229


@dataclass(frozen=True)
class Phantom:
    """``image`` (z, y, x) complex64; ``maps`` (coils, z, y, x) of unit root sum of squares; ``mask`` the head;
    ``kspace`` (coils, z, y, x), noisy, fully sampled, centred and orthonormal."""

    image: npt.NDArray[np.complex64]
    maps: npt.NDArray[np.complex64]
    mask: npt.NDArray[np.bool_]
    kspace: npt.NDArray[np.complex64]

    def error(self, magnitude: npt.NDArray[np.float32]) -> float:
        """NRMSE inside the head after the best common scale (peers scale as they like)."""
        found, truth = magnitude[self.mask].astype(np.float64), np.abs(self.image[self.mask]).astype(np.float64)
        scale = float(found @ truth / (found @ found))
        return float(np.linalg.norm(scale * found - truth) / np.linalg.norm(truth))


def head(depth: int) -> npt.NDArray[np.float32]:
    """MNI152 T1 (197 x 233 x 189, 1 mm) cut or filled to (depth, 256, 256), brightest voxel 1."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("nilearn, whose wheel carries the MNI152 template, is missing: make setup-bench")
    data = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    file = data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    volume = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))).astype(np.float32)
    result = np.zeros((depth, 256, 256), dtype=np.float32)
    take = min(depth, volume.shape[0])
    source, target = volume.shape[0] // 2 - take // 2, depth // 2 - take // 2
    result[target : target + take, 11 : 11 + 233, 29 : 29 + 197] = volume[source : source + take]
    return np.asarray(result / result.max())


def phantom(depth: int = 1, is_3d: bool = False) -> Phantom:
    """``depth`` planes of 256 x 256 (one: the middle one); ``is_3d`` encodes z too."""
    magnitude = head(max(depth, 3))[-depth if depth > 1 else 1 :][:depth]
    z, y, x = np.meshgrid(
        *(np.linspace(-1, 1, n, dtype=np.float32) if n > 1 else np.zeros(1, np.float32) for n in magnitude.shape),
        indexing="ij",
    )
    image = (magnitude * np.exp(1j * (0.8 * x - 0.5 * y * y + 0.3 * x * y + 0.4 * z))).astype(np.complex64)
    maps = np.empty((COILS, *magnitude.shape), dtype=np.complex64)
    for coil in range(COILS):
        angle = 2 * np.pi * coil / COILS
        dx, dy, dz = x - 1.1 * np.cos(angle), y - 1.2 * np.sin(angle), z - (0.5 if coil % 2 else -0.5)
        strength = (0.25 + dx * dx + dy * dy + dz * dz) ** -1.5
        maps[coil] = strength * np.exp(1j * (angle + 0.9 * (dx * np.sin(angle) - dy * np.cos(angle))))
    maps /= np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    rng = np.random.default_rng(SEED)
    kspace = np.empty_like(maps)
    axes = (0, 1, 2) if is_3d else (1, 2)
    for coil in range(COILS):
        shifted = scipy.fft.ifftshift(maps[coil] * image, axes)
        kspace[coil] = scipy.fft.fftshift(scipy.fft.fftn(shifted, axes=axes, norm="ortho", workers=2), axes)
        for part in (kspace[coil].real, kspace[coil].imag):
            part += rng.standard_normal(part.shape, dtype=np.float32) * np.float32(NOISE / np.sqrt(2))
    mask = scipy.ndimage.binary_fill_holes(magnitude > 0.05)
    return Phantom(image, maps, np.asarray(mask), kspace)
