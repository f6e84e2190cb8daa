"""MRD files that ISMRMRD's own generator wrote, against ISMRMRD's own reconstruction and against truth."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import KSpace
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.auto import Options, reconstruct
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd
from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions

GENERATOR = shutil.which("ismrmrd_generate_cartesian_shepp_logan")
PEER = shutil.which("ismrmrd_recon_cartesian_2d")

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(not (GENERATOR and PEER), reason="ismrmrd-tools is missing: Testing/system-packages.sh test"),
]

MATRIX = 128


def generated(folder: Path, **options: Any) -> Path:
    """A file of the generator: 128 x 128, 8 coils; ``options`` are its long options."""
    file = folder / "shepp_logan.h5"
    words = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in ({"matrix": MATRIX, "coils": 8} | options).items()
        if value is not False
    ]
    subprocess.run([str(GENERATOR), *words, f"--output={file}"], check=True, capture_output=True, timeout=60)
    return file


def frames(file: Path) -> list[KSpace]:
    """Every repetition as k-space. The generator writes no directions, which must be allowed by name."""
    scan = read_mrd(file, MrdOptions(assume_axial=True))
    assembler = Assembler(scan.encoding)
    for acquisition in scan.acquisitions:
        assembler.add(acquisition)
    return [assembler.kspace(contrast, repetition) for contrast, repetition in assembler.frames]


def truth(file: Path, width: int = MATRIX) -> np.ndarray:
    """The phantom of the generator seen by its coils, root sum of squares, (y, x): the middle ``width`` along x."""
    with h5py.File(file) as data:
        phantom, coils = (np.asarray(data[f"dataset/{name}"]) for name in ("phantom", "csm"))
    parts = [array["real"] + 1j * array["imag"] for array in (phantom, coils)]
    seen = parts[0].reshape(MATRIX, MATRIX) * parts[1].reshape(-1, MATRIX, MATRIX)
    more = max(0, width - MATRIX) // 2
    seen = np.pad(seen, ((0, 0), (0, 0), (more, more)))
    start = seen.shape[2] // 2 - width // 2
    seen = seen[..., start : start + width]
    return np.sqrt((np.abs(seen) ** 2).sum(axis=0))


def error(image: np.ndarray, reference: np.ndarray) -> float:
    """NRMSE after the best common scale."""
    scale = float((image * reference).sum() / (image * image).sum())
    return float(np.linalg.norm(scale * image - reference) / np.linalg.norm(reference))


@pytest.mark.parametrize(("coils", "noise", "limit"), [(8, 0.0, 1e-3), (1, 0.0, 1e-3), (4, 0.0, 1e-3), (8, 0.02, 0.2)])
def test_equals_the_peers_image_and_truth(tmp_path: Path, coils: int, noise: float, limit: float) -> None:
    """Noise is the same for both, so that they agree with one another however far they are from the truth."""
    file = generated(tmp_path, coils=coils, noise_level=noise)
    (frame,) = frames(file)
    image = reconstruct(frame, "fft").image.array
    assert image.shape == (1, MATRIX, MATRIX)
    subprocess.run([str(PEER), str(file)], check=True, capture_output=True, timeout=60)
    with h5py.File(file) as data:
        theirs = np.asarray(data["dataset/cpp/data"], dtype=np.float64).squeeze()
    assert error(image[0], theirs) < 1e-4
    assert error(image[0], truth(file)) < limit


@pytest.mark.parametrize("oversampling", [1, 2, 3])
@pytest.mark.parametrize("coordinates", [False, True], ids=["", "with coordinates"])
def test_oversampling_and_stored_coordinates(tmp_path: Path, oversampling: int, coordinates: bool) -> None:
    """The generator's header always speaks of 600 mm, of which 300 are to be shown: half of what was sampled."""
    file = generated(tmp_path, noise_level=0.0, oversampling=oversampling, k_coordinates=coordinates)
    (frame,) = frames(file)
    image = reconstruct(frame).image
    assert image.array.shape == (1, MATRIX, MATRIX * oversampling // 2)
    np.testing.assert_allclose(image.spacing_mm[:2], (300 / image.array.shape[2], 300 / MATRIX), rtol=1e-5)
    assert error(image.array[0], truth(file, image.array.shape[2])) < 1e-3


def test_everything_at_once(tmp_path: Path) -> None:
    options = {"acceleration": 2, "calibration_width": 24, "repetitions": 2, "coils": 6, "k_coordinates": True}
    file = generated(tmp_path, noise_level=0.005, noise_calibration=True, **options)
    found = frames(file)
    assert len(found) == 4
    for frame in found:
        result = reconstruct(frame)
        assert frame.whitened
        assert result.method == "grappa"
        # Nothing else is wrong with such a file.
        assert result.warnings == ("where the image lies is assumed axial: the readouts carry no directions",)
        assert error(result.image.array[0], truth(file)) < 0.05


def test_acceleration_without_calibration_is_refused_and_shown_aliased_when_asked(tmp_path: Path) -> None:
    frame = frames(generated(tmp_path, acceleration=2))[0]
    with pytest.raises(ReconstructionError, match="no calibration lines were acquired"):
        reconstruct(frame)
    assert any("the image is aliased" in text for text in reconstruct(frame, "fft").warnings)


def test_noise_and_repetitions(tmp_path: Path) -> None:
    file = generated(tmp_path, noise_level=0.01, repetitions=3)
    found = frames(file)
    assert [frame.repetition for frame in found] == [0, 1, 2]
    images = [reconstruct(frame).image.array[0] for frame in found]
    errors = [error(image, truth(file)) for image in images]
    assert max(errors) < 0.12
    # Three repetitions have three noises: their mean is nearer to the truth than any one.
    assert error(np.mean(images, axis=0), truth(file)) < min(errors)


def test_noise_calibration_whitens_to_snr_units(tmp_path: Path) -> None:
    file = generated(tmp_path, noise_level=0.05, noise_calibration=True)
    (frame,) = frames(file)
    assert frame.whitened
    result = reconstruct(frame, options=Options(snr_units=True))
    # Where there is no object, eight coils of unit noise in both parts: a chi distribution of 16 degrees.
    corner = result.image.array[0, :12, :12]
    assert np.square(corner).mean() == pytest.approx(16.0, rel=0.1)


@pytest.mark.parametrize(
    ("acceleration", "noise", "limit"), [(2, 0.0, 0.01), (3, 0.0, 0.05), (4, 0.0, 0.08), (2, 0.01, 0.06)]
)
def test_acceleration(tmp_path: Path, acceleration: int, noise: float, limit: float) -> None:
    """The generator steps through the lines from repetition to repetition; each must stand for itself."""
    file = generated(tmp_path, noise_level=noise, acceleration=acceleration, calibration_width=24)
    found = frames(file)
    assert len(found) == acceleration
    for frame in found:
        result = reconstruct(frame)
        assert result.method == "grappa"
        assert error(result.image.array[0], truth(file)) < limit
