"""Calibration lines that were lost: the picture stays that of complete calibration, and it is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import KSpace
from IntraopMRIReconstructionLib.errors import ReconstructionError
from IntraopMRIReconstructionLib.operators.sampling import bridged, describe
from IntraopMRIReconstructionLib.reconstruct.auto import reconstruct
from IntraopMRIReconstructionLib.reconstruct.lost_lines import filled
from unit.reconstruct.conftest import Scan, every

SIZE = 96
#: What a lost line may add to the error of complete calibration: a fifth of it, and a fifth of the noise.
WORSE, NOISE = 1.2, 0.002


def flagged(scan: Scan, mask: np.ndarray, calibrating: np.ndarray) -> KSpace:
    """Lines of ``mask`` for the image and lines ``calibrating`` (y,) for calibration alone."""
    lines = np.where(calibrating[None, None, :, None], scan.kspace, 0).astype(np.complex64)
    return scan.frame(mask, calibration=lines)


@pytest.mark.parametrize("place", [-10, -6, -2, -1, 0, 1, 2, 6, 9])
@pytest.mark.parametrize(("step", "lines"), [(2, 24), (2, 16), (3, 24), (4, 24)])
def test_one_lost_line_costs_hardly_anything(plane: Scan, step: int, lines: int, place: int) -> None:
    lost = SIZE // 2 + max(2 - lines // 2, min(place, lines // 2 - 3))
    mask = every(step, SIZE, lines, offset=SIZE // 2 % step)
    damaged = mask.copy()
    damaged[lost] = False
    found = reconstruct(plane.frame(damaged), threads=1)
    of_image = lost % step == SIZE // 2 % step
    whole = reconstruct(plane.frame(mask), "cg-sense" if of_image else "grappa", threads=1)
    assert found.method == ("cg-sense" if of_image else "grappa")
    assert plane.error(found.image.array) < WORSE * plane.error(whole.image.array) + NOISE
    assert any(f"1 of {lines} calibration lines were lost and made" in text for text in found.warnings)


@pytest.mark.parametrize("place", [0, 1, -2, -1])
@pytest.mark.parametrize(("step", "lines"), [(2, 16), (3, 18), (4, 24)])
def test_one_lost_at_the_rim_is_missed_where_the_header_announces_it(
    plane: Scan, step: int, lines: int, place: int
) -> None:
    first = SIZE // 2 - lines // 2
    lost = range(first, first + lines)[place]
    mask = every(step, SIZE, lines, offset=(lost + 1) % step)
    damaged = mask.copy()
    damaged[lost] = False
    frame = plane.frame(damaged)
    found = reconstruct(replace(frame, encoding=replace(frame.encoding, calibration_lines=(0, lines))), threads=1)
    whole = reconstruct(plane.frame(mask), "grappa", threads=1)
    assert found.method == "grappa"
    assert plane.error(found.image.array) < 1.1 * plane.error(whole.image.array)
    assert any(f"1 of {lines} calibration lines were lost and made" in text for text in found.warnings)


def test_as_many_calibration_lines_as_announced_lack_none(plane: Scan) -> None:
    """Headers count them from one line or the next."""
    mask = every(2, SIZE)
    mask[SIZE // 2 - 11 : SIZE // 2 + 13] = True
    frame = plane.frame(mask)
    found = reconstruct(replace(frame, encoding=replace(frame.encoding, calibration_lines=(0, 24))), threads=1)
    assert not any("calibration lines" in text for text in found.warnings)


@pytest.mark.parametrize("place", [-1, 0, 3])
@pytest.mark.parametrize("method", ["grappa", "sense", "cg-sense"])
def test_lines_for_calibration_alone(plane: Scan, method: str, place: int) -> None:
    """Flagged by the scanner, and lost with the flag."""
    mask, middle = every(2, SIZE), np.abs(np.arange(SIZE) - SIZE // 2) < 12
    whole = reconstruct(flagged(plane, mask, middle), method, threads=1)
    damaged = middle.copy()
    damaged[SIZE // 2 + place] = False
    found = reconstruct(flagged(plane, mask, damaged), method, threads=1)
    assert plane.error(found.image.array) < WORSE * plane.error(whole.image.array) + NOISE
    assert not any("lost" in text for text in whole.warnings)
    assert any("1 of 22 calibration lines were lost and made" in text for text in found.warnings)


def test_two_lines_that_follow_one_another(plane: Scan) -> None:
    mask = every(2, SIZE, 24)
    whole = plane.error(reconstruct(plane.frame(mask), "cg-sense", threads=1).image.array)
    mask[SIZE // 2 + 3 : SIZE // 2 + 5] = False
    found = reconstruct(plane.frame(mask), threads=1)
    assert plane.error(found.image.array) < 2 * whole
    assert any("2 of 24 calibration lines were lost" in text for text in found.warnings)


def test_one_slice_lacks_a_line_and_the_others_stay_as_they_are(plane: Scan) -> None:
    mask = np.broadcast_to(every(2, SIZE, 24), (3, SIZE)).copy()
    several = Scan((SIZE, SIZE), noise=0.01)
    several.kspace = np.repeat(plane.kspace, 3, axis=1)
    whole = reconstruct(several.frame(mask), threads=1).image.array
    mask[1, SIZE // 2 + 1] = False
    found = reconstruct(several.frame(mask), threads=1)
    assert found.method == "grappa"
    assert np.array_equal(found.image.array[[0, 2]], whole[[0, 2]])
    assert plane.error(found.image.array[1:2]) < WORSE * plane.error(whole[1:2])
    assert any("1 of 72 calibration lines were lost and made" in text for text in found.warnings)


@pytest.mark.parametrize("step", [(1, 2), (2, 1)])
def test_a_line_of_a_volume(volume: Scan, step: tuple[int, int]) -> None:
    z, y = np.indices((24, 40))
    mask = (z % step[0] == 0) & (y % step[1] == 0) | (np.abs(z - 12) < 10) & (np.abs(y - 20) < 12)
    whole = reconstruct(volume.frame(mask), threads=1)
    mask[13, 21] = False
    found = reconstruct(volume.frame(mask), threads=1)
    assert (whole.method, found.method) == ("grappa", "grappa")
    assert volume.error(found.image.array) < 1.02 * volume.error(whole.image.array)
    assert any("calibration lines were lost and made" in text for text in found.warnings)


@pytest.mark.parametrize("share", [0, 20, 9])
def test_calibration_lines_in_an_ellipse_and_lost_ones_among_them(volume: Scan, share: int) -> None:
    """What lies outside the largest rectangle is no reason to see no lattice; nor are lines lost everywhere."""
    z, y = np.indices((24, 40))
    mask = (y % 2 == 0) | (np.hypot((z - 12) / 11, (y - 20) / 15) < 1)
    whole = reconstruct(volume.frame(mask), threads=1)
    if share:
        mask &= (z * 40 + y) % (share + 0.5) >= 1
    found = reconstruct(volume.frame(mask), threads=1)
    assert (whole.method, found.method) == ("grappa", "cg-sense" if share else "grappa")
    assert volume.error(found.image.array) < 2 * volume.error(whole.image.array)
    assert any("calibration lines were lost and made" in text for text in found.warnings) == bool(share)


def test_a_line_lost_beside_the_last_leaves_a_lattice(plane: Scan) -> None:
    for place in (SIZE // 2 - 11, SIZE // 2 + 10):
        mask = every(3, SIZE, 24)
        mask[place] = False
        assert describe(mask[None], False).acceleration == (1, 3)
        assert plane.error(reconstruct(plane.frame(mask), "grappa", threads=1).image.array) < 0.05


def test_too_few_are_left_and_numbers_say_so(plane: Scan) -> None:
    mask = every(2, SIZE, 6)
    mask[SIZE // 2 - 1] = False
    frame = plane.frame(mask)
    with pytest.raises(
        ReconstructionError, match=r"1 of 6 calibration lines were lost, too many .*: 1 left in one piece"
    ):
        reconstruct(frame, "grappa", threads=1)


def test_gaps_that_were_planned_are_no_losses() -> None:
    """Neither a lattice nor lines at random are taken for lost ones; nor is a picture changed without a loss."""
    for step in (2, 3, 4):
        mask = every(step, SIZE, 24)[None]
        assert np.array_equal(bridged(mask, False), mask)
    rng = np.random.default_rng(3)
    away = np.abs(np.arange(SIZE) - SIZE // 2) / (SIZE // 2)
    random = (rng.random(SIZE) < 0.75 - 0.6 * away) | (away < 0.06)
    found = describe(random[None], False)
    assert found.kind == "random"
    assert random[slice(*found.calibration[1])].all()


def test_a_filled_line_is_the_lost_one(plane: Scan) -> None:
    block = plane.kspace[:, :, SIZE // 2 - 12 : SIZE // 2 + 12]
    known = np.ones((1, 24), bool)
    known[0, 13] = False
    damaged = np.where(known[None, :, :, None], block, 0)
    made, good = filled(damaged, known)
    assert good.all()
    assert np.linalg.norm((made - block)[:, 0, 13]) < 0.05 * np.linalg.norm(block[:, 0, 13])
    assert np.array_equal(made[:, known], block[:, known])
    assert not damaged[:, 0, 13].any()


@pytest.mark.parametrize(("lines", "words"), [(1, "too few"), (2, "too few"), (6, "6 calibration lines are few")])
def test_maps_of_few_lines_are_refused_or_doubted(plane: Scan, lines: int, words: str) -> None:
    mask = every(2, SIZE)
    mask[SIZE // 2 - lines // 2 : SIZE // 2 - lines // 2 + lines] = True
    for method in ("sense", "cg-sense"):
        if lines == 6:
            assert any(words in text for text in reconstruct(plane.frame(mask), method, threads=1).warnings)
        else:
            with pytest.raises(ReconstructionError, match=f"[12] calibration lines are {words}"):
                reconstruct(plane.frame(mask), method, threads=1)


def test_few_lines_for_a_kernel_are_said(plane: Scan) -> None:
    few, enough = (reconstruct(plane.frame(every(3, SIZE, lines)), "grappa", threads=1) for lines in (16, 24))
    assert any("16 calibration lines are few for an acceleration of 3" in text for text in few.warnings)
    assert not any("few" in text for text in enough.warnings)
    assert plane.error(few.image.array) > 1.5 * plane.error(enough.image.array)


def test_lines_lost_from_a_scan_with_every_line(plane: Scan) -> None:
    mask = np.ones(SIZE, bool)
    mask[SIZE // 2 + 1] = False
    found = reconstruct(plane.frame(mask), threads=1)
    assert found.method == "cg-sense"
    assert plane.error(found.image.array) < 0.03
