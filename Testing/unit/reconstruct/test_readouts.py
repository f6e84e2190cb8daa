"""Where the samples of a readout belong: by its echo, wherever that is, against the closed-form k-space of a head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, LineFlag
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.reconstruct.assemble import Assembler
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, cartesian_kspace, ring_of_coils

N, FIELD = 64, 240.0
COILS = ring_of_coils(4, FIELD)


def wide(size: int = 2 * N) -> np.ndarray:
    """K-space (coils, N, size) that reaches further along the readout than the matrix does, echo at size // 2."""
    return cartesian_kspace((N, size), (FIELD, FIELD), HEAD_2D, COILS)


def encoding(centre: int | None, **changes: Any) -> Encoding:
    values: dict[str, Any] = {
        "scan_id": "scan",
        "trajectory": "cartesian",
        "encoded_matrix": (1, N, N),
        "recon_matrix": (1, N, N),
        "encoded_fov_mm": (5.0, FIELD, FIELD),
        "recon_fov_mm": (5.0, FIELD, FIELD),
        "coils": 4,
        "ras_from_ijk": np.eye(4),
        "is_3d": False,
        "centre": None if centre is None else (0, N // 2, centre),
    }
    return Encoding(**(values | changes))


def lines(kspace: np.ndarray, **changes: Any) -> Acquisition:
    values: dict[str, Any] = {
        "scan_id": "scan",
        "samples": np.ascontiguousarray(kspace.swapaxes(0, 1)),
        "ky": np.arange(kspace.shape[1], dtype=np.int32),
        "kz": np.zeros(kspace.shape[1], np.int32),
    }
    return Acquisition(**(values | changes))


def readouts(centre: int, length: int = N) -> np.ndarray:
    """Readouts of ``length`` samples whose echo is sample ``centre``."""
    return wide()[..., N - centre : N - centre + length]


def whole() -> np.ndarray:
    """The image of the whole centred matrix."""
    assembler = Assembler(encoding(None))
    assembler.add(lines(readouts(N // 2)))
    return reconstruct(assembler.kspace()).image.array[0]


def difference(image: np.ndarray) -> float:
    reference = whole()
    return float(np.linalg.norm(image - reference) / np.linalg.norm(reference))


@pytest.mark.parametrize("moved", [-20, -9, -1, 1, 2, 9, 20])
def test_a_full_readout_with_its_echo_elsewhere_lies_where_it_was_taken(moved: int) -> None:
    centre = N // 2 + moved
    assembler = Assembler(encoding(centre))
    assembler.add(lines(readouts(centre)))
    kspace = assembler.kspace()
    first, stop = max(0, -moved), min(N, N - moved)
    np.testing.assert_array_equal(kspace.samples[:, 0, :, first:stop], readouts(N // 2)[..., first:stop])
    assert not kspace.samples[..., :first].any()
    assert not kspace.samples[..., stop:].any()


@pytest.mark.parametrize(("moved", "method", "limit"), [(-1, "fft", 0.03), (1, "fft", 0.03), (9, "homodyne", 0.06)])
def test_its_image_is_that_of_a_centred_one(moved: int, method: str, limit: float) -> None:
    assembler = Assembler(encoding(N // 2 + moved))
    assembler.add(lines(readouts(N // 2 + moved)))
    result = reconstruct(assembler.kspace())
    assert result.method == method
    assert difference(result.image.array[0]) < limit


def test_an_asymmetric_echo_is_completed() -> None:
    assembler = Assembler(encoding(14))
    assembler.add(lines(readouts(14, N - 18)))
    assert assembler.kspace().readout == (18, N)
    result = reconstruct(assembler.kspace())
    assert result.method == "homodyne"
    assert difference(result.image.array[0]) < 0.1


def test_a_short_readout_may_end_early() -> None:
    """The echo is at N // 2, and the header says so: the last samples are the ones that were not taken."""
    assembler = Assembler(encoding(N // 2))
    assembler.add(lines(readouts(N // 2, N - 14)))
    kspace = assembler.kspace()
    assert kspace.readout == (0, N - 14)
    np.testing.assert_array_equal(kspace.samples[:, 0, :, : N - 14], readouts(N // 2)[..., : N - 14])


def test_oversampled_readouts_with_their_echo_elsewhere() -> None:
    """Twice the field of view, echo 6 samples late: after removal it is 3 samples late."""
    source = encoding(None, encoded_matrix=(1, N, 2 * N), encoded_fov_mm=(5.0, FIELD, 2 * FIELD))
    moved = Encoding(**{f: getattr(source, f) for f in source.__dataclass_fields__} | {"centre": (0, N // 2, N + 6)})
    far = cartesian_kspace((N, 4 * N), (FIELD, 2 * FIELD), HEAD_2D, COILS)
    images = []
    for header, centre in ((source, N), (moved, N + 6)):
        assembler = Assembler(header)
        assembler.add(lines(far[..., 2 * N - centre : 4 * N - centre]))
        images.append(reconstruct(assembler.kspace()).image.array[0])
    assert np.linalg.norm(images[1] - images[0]) < 0.06 * np.linalg.norm(images[0])


def test_a_line_read_backwards_is_turned_before_it_is_placed() -> None:
    forward = readouts(N // 2 + 5)
    backward = forward.copy()
    backward[:, ::2] = backward[:, ::2, ::-1]
    flags = np.where(np.arange(N) % 2 == 0, int(LineFlag.REVERSED), 0).astype(np.uint32)
    found = []
    for samples, marks in ((forward, None), (backward, flags)):
        assembler = Assembler(encoding(N // 2 + 5))
        assembler.add(lines(samples, flags=marks))
        found.append(assembler.kspace().samples)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize(
    ("centre", "length", "message"),
    [
        (None, N - 4, "60 samples"),
        (None, N + 4, "68 samples"),
        (N // 2, N + 4, "68 samples"),
        (40, 30, "centre at 40"),
        (N, N, "centre at 64"),
    ],
)
def test_readouts_that_cannot_be_placed_are_refused(centre: int | None, length: int, message: str) -> None:
    assembler = Assembler(encoding(centre))
    with pytest.raises(ReconstructionError, match=message):
        assembler.add(lines(np.ones((4, N, length), np.complex64)))
    assert assembler.fraction_acquired == 0.0


def test_readouts_of_two_lengths_are_refused() -> None:
    assembler = Assembler(encoding(20))
    assembler.add(lines(readouts(20, 50)[:, :8]))
    with pytest.raises(ReconstructionError, match="one length"):
        assembler.add(lines(readouts(20, 48)[:, 8:]))
