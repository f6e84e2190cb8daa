from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators.fourier import image_from_kspace
from IntraopMRIReconstructionLib.reconstruct.realtime import Frame, Tgrappa
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, cartesian_kspace, ring_of_coils

SHAPE, COILS = (96, 80), 8
FIELD = (240.0, 240.0)


@pytest.fixture(scope="module")
def kspace() -> np.ndarray:
    return cartesian_kspace(SHAPE, FIELD, HEAD_2D, ring_of_coils(COILS, FIELD[0]))


def frames(stream: Tgrappa, kspace: np.ndarray, acceleration: int, count: int) -> list[Frame | None]:
    result = []
    for number in range(count):
        ky = np.arange(number % acceleration, SHAPE[0], acceleration)
        result.append(stream.add(kspace[:, ky], ky, float(number)))
    return result


@pytest.mark.parametrize("acceleration", [1, 2, 3, 4])
def test_every_frame_equals_the_full_scan(kspace: np.ndarray, acceleration: int) -> None:
    stream = Tgrappa(SHAPE, COILS, acceleration)
    found = frames(stream, kspace, acceleration, 2 * acceleration)
    stream.close()
    assert [frame is None for frame in found] == [n < acceleration - 1 for n in range(2 * acceleration)]
    images = image_from_kspace(kspace.copy(), (-2, -1))
    truth = np.sqrt((np.abs(images) ** 2).sum(axis=0))
    for frame in found[acceleration:]:
        assert frame is not None
        assert np.linalg.norm(np.abs(frame.image) - truth) < 0.05 * np.linalg.norm(truth)


def test_a_frame_shows_only_its_own_lines(kspace: np.ndarray) -> None:
    """What has vanished from the scene is gone in the next frame, not one round of the pattern later."""
    stream = Tgrappa(SHAPE, COILS, 2)
    frames(stream, kspace, 2, 4)
    ky = np.arange(0, SHAPE[0], 2)
    dark = stream.add(np.zeros_like(kspace[:, ky]), ky, 10.0)
    stream.close()
    assert dark is not None
    assert np.abs(dark.image).max() == 0
    assert dark.age_s(10.5) == pytest.approx(0.5)
    assert dark.shots == 48


def test_bad_frames_are_dropped_and_named(kspace: np.ndarray) -> None:
    stream = Tgrappa(SHAPE, COILS, 2)
    frames(stream, kspace, 2, 2)
    ky = np.arange(0, SHAPE[0], 2)
    with pytest.raises(ReconstructionError, match="47 of them among 47"):
        stream.add(kspace[:, ky[:-1]], ky[:-1])
    with pytest.raises(ReconstructionError, match="every line from 0"):
        stream.add(kspace[:, ky], ky + (ky > 40))
    with pytest.raises(ReconstructionError, match=r"\(coils, lines, x\)"):
        stream.add(kspace[:4, ky], ky)
    with pytest.raises(ReconstructionError, match="NaN"):
        stream.add(kspace[:, ky] * np.complex64(np.nan), ky)
    assert stream.add(kspace[:, ky], ky) is not None
    stream.close()
    with pytest.raises(ReconstructionError, match="acceleration of 9 cannot be undone with 8 coils"):
        Tgrappa(SHAPE, COILS, 9)
    assert Frame(np.zeros((2, 2)), 1, None).age_s() is None
