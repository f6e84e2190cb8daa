"""Slices and boxes become whole volumes, never mixed ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from IntraopMRIReconstructionLib.wire.codec import ImageMessage, RefusedMessage
from IntraopMRIReconstructionLib.wire.header import timestamp_of
from IntraopMRIReconstructionLib.wire.subvolume import (
    LONGEST_NAMED_PAUSE_S,
    LONGEST_PAUSE_S,
    MOST_VOLUMES,
    WIDEST_JUMP_S,
    VolumeAssembler,
)

SIZE = (4, 3, 5)
VOXELS = np.arange(60, dtype=np.int16).reshape(5, 3, 4)


def _part(
    k0: int, k1: int, array: np.ndarray = VOXELS, j0: int = 0, j1: int = 3, device: str = "T1", timestamp: int = 0,
    centre: float = 0.0,
) -> ImageMessage:  # fmt: skip
    return ImageMessage(
        device=device, array=array[k0:k1, j0:j1], size_ijk=SIZE, offset_ijk=(0, j0, k0), timestamp=timestamp,
        centre_mm=np.array([centre, 0.0, 0.0]),
    )  # fmt: skip


def test_slices_in_any_order() -> None:
    assembler = VolumeAssembler(10**6)
    for number, k in enumerate([3, 0, 4, 1]):
        assert assembler.feed(_part(k, k + 1, timestamp=100 + number), 0.0) is None
    whole = assembler.feed(_part(2, 3, timestamp=200), 0.0)
    assert whole is not None
    np.testing.assert_array_equal(whole.array, VOXELS)
    assert (whole.is_whole, whole.timestamp, assembler.incomplete) == (True, 100, 0)


def test_boxes_and_components() -> None:
    colours = np.stack([VOXELS, VOXELS + 100], axis=-1)
    assembler = VolumeAssembler(10**6)
    assert assembler.feed(_part(0, 5, colours, 0, 1), 0.0) is None
    whole = assembler.feed(_part(0, 5, colours, 1, 3), 0.0)
    assert whole is not None
    np.testing.assert_array_equal(whole.array, colours)


def test_a_part_that_comes_again_begins_anew() -> None:
    assembler = VolumeAssembler(10**6)
    assembler.feed(_part(0, 3), 0.0)
    assembler.feed(_part(0, 3, VOXELS + 1000), 0.0)
    whole = assembler.feed(_part(3, 5, VOXELS + 1000), 0.0)
    assert whole is not None
    np.testing.assert_array_equal(whole.array, VOXELS + 1000)
    assert assembler.incomplete == 1


def test_another_geometry_begins_anew() -> None:
    assembler = VolumeAssembler(10**6)
    assembler.feed(_part(0, 3), 0.0)
    assert assembler.feed(_part(3, 5, centre=1.0), 0.0) is None
    assert assembler.incomplete == 1


def test_a_whole_volume_passes_and_ends_what_was_begun() -> None:
    assembler = VolumeAssembler(10**6)
    assembler.feed(_part(0, 3), 0.0)
    whole = _part(0, 5)
    assert assembler.feed(whole, 0.0) is whole
    assert assembler.incomplete == 1


def test_limits() -> None:
    with pytest.raises(RefusedMessage, match="limit 100"):
        VolumeAssembler(100).feed(_part(0, 3), 0.0)
    assembler = VolumeAssembler(10**6)
    for number in range(MOST_VOLUMES):
        assembler.feed(_part(0, 3, device=str(number)), 0.0)
    with pytest.raises(RefusedMessage, match=f"more than {MOST_VOLUMES}"):
        assembler.feed(_part(0, 3, device="one more"), 0.0)


@pytest.mark.parametrize(
    ("stamp_s", "came_s"),
    [(4000.0, 4.0), (-4000.0, 4.0), (WIDEST_JUMP_S + 3.0, 4.0), (1.0, LONGEST_PAUSE_S + 4.0), (None, 4000.0)],
)
def test_parts_of_two_scans_never_become_one_volume(stamp_s: float | None, came_s: float) -> None:
    told: list[str] = []
    assembler = VolumeAssembler(10**6, told.append)
    aborted, following = VOXELS, VOXELS + 1000
    for number, k in enumerate((0, 2, 4)):
        assembler.feed(_part(k, k + 1, aborted, timestamp=timestamp_of(1e9 + number)), float(number))
    stamp = 0 if stamp_s is None else timestamp_of(1e9 + stamp_s)
    for k in (1, 3):
        assert assembler.feed(_part(k, k + 1, following, timestamp=stamp), came_s) is None
    assert assembler.incomplete == 1
    assert "24 of 60 voxels never came" in told[0]
    for k in (0, 2):
        assert assembler.feed(_part(k, k + 1, following, timestamp=stamp), came_s) is None
    whole = assembler.feed(_part(4, 5, following, timestamp=stamp), came_s)
    assert whole is not None
    np.testing.assert_array_equal(whole.array, following)
    assert len(told) == assembler.incomplete == 1


def test_a_slow_scan_in_two_packages_becomes_one_volume() -> None:
    assembler = VolumeAssembler(10**6)
    for number, k in enumerate((0, 1, 2, 3)):
        stamp = timestamp_of(1e9 + (WIDEST_JUMP_S - 10.0) * (k % 2) + k)
        assert assembler.feed(_part(k, k + 1, timestamp=stamp), 20.0 * number) is None
    assert assembler.feed(_part(4, 5, timestamp=timestamp_of(1e9 + 4)), 80.0) is not None
    assert assembler.incomplete == 0


def _named(k: int, scan: str, stamp_s: float, array: np.ndarray = VOXELS) -> ImageMessage:
    part = _part(k, k + 1, array, timestamp=timestamp_of(1e9 + stamp_s))
    return replace(part, version=2, metadata={"SeriesInstanceUID": scan})


def test_passes_of_a_named_scan_become_one_volume_however_far_apart() -> None:
    assembler = VolumeAssembler(10**6)
    for k, stamp_s, came_s in ((0, 0.0, 0.0), (2, 1.0, 1.0), (4, 2.0, 2.0), (1, 600.0, 600.0)):
        assert assembler.feed(_named(k, "1.2.3", stamp_s), came_s) is None
    whole = assembler.feed(_named(3, "1.2.3", 601.0), 601.0)
    assert whole is not None
    np.testing.assert_array_equal(whole.array, VOXELS)
    assert assembler.incomplete == 0


@pytest.mark.parametrize("other", ["1.2.4", ""])
def test_parts_of_another_scan_never_mix_although_they_come_at_once(other: str) -> None:
    assembler = VolumeAssembler(10**6)
    for k in (0, 2, 4):
        assembler.feed(_named(k, "1.2.3", float(k)), float(k))
    for k in (1, 3):
        assert assembler.feed(_named(k, other, 5.0, VOXELS + 1000), 5.0) is None
    assert assembler.incomplete == 1


def test_a_named_scan_that_never_goes_on_is_given_up() -> None:
    assembler = VolumeAssembler(10**6)
    assembler.feed(_named(0, "1.2.3", 0.0), 0.0)
    assembler.expire(LONGEST_NAMED_PAUSE_S - 1.0)
    assert assembler.incomplete == 0
    assembler.expire(LONGEST_NAMED_PAUSE_S + 1.0)
    assert assembler.incomplete == 1


def test_another_patient_begins_anew() -> None:
    assembler = VolumeAssembler(10**6)
    for k, patient in ((0, "42"), (3, "43")):
        part = replace(_part(k, k + 2 + (k == 0)), version=2, metadata={"PatientID": patient})
        assert assembler.feed(part, 0.0) is None
    assert assembler.incomplete == 1


def test_what_was_given_up_makes_room() -> None:
    assembler = VolumeAssembler(10**6)
    for number in range(MOST_VOLUMES):
        assembler.feed(_part(0, 3, device=str(number)), 0.0)
    assembler.feed(_part(0, 3, device="one more"), LONGEST_PAUSE_S + 1.0)
    assert assembler.incomplete == MOST_VOLUMES
    assembler.close()
    assert assembler.incomplete == MOST_VOLUMES + 1
