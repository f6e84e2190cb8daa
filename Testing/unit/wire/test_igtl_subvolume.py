"""Slices and boxes become whole volumes, never mixed ones."""

from __future__ import annotations

import numpy as np
import pytest
from IntraopMRIReconstructionLib.wire.codec import ImageMessage, RefusedMessage
from IntraopMRIReconstructionLib.wire.subvolume import MOST_VOLUMES, VolumeAssembler

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
        assert assembler.feed(_part(k, k + 1, timestamp=100 + number)) is None
    whole = assembler.feed(_part(2, 3, timestamp=200))
    assert whole is not None
    np.testing.assert_array_equal(whole.array, VOXELS)
    assert (whole.is_whole, whole.timestamp, assembler.incomplete) == (True, 100, 0)


def test_boxes_and_components() -> None:
    colours = np.stack([VOXELS, VOXELS + 100], axis=-1)
    assembler = VolumeAssembler(10**6)
    assert assembler.feed(_part(0, 5, colours, 0, 1)) is None
    whole = assembler.feed(_part(0, 5, colours, 1, 3))
    assert whole is not None
    np.testing.assert_array_equal(whole.array, colours)


def test_a_part_that_comes_again_begins_anew() -> None:
    assembler = VolumeAssembler(10**6)
    assembler.feed(_part(0, 3))
    assembler.feed(_part(0, 3, VOXELS + 1000))
    whole = assembler.feed(_part(3, 5, VOXELS + 1000))
    assert whole is not None
    np.testing.assert_array_equal(whole.array, VOXELS + 1000)
    assert assembler.incomplete == 1


def test_another_geometry_begins_anew() -> None:
    assembler = VolumeAssembler(10**6)
    assembler.feed(_part(0, 3))
    assert assembler.feed(_part(3, 5, centre=1.0)) is None
    assert assembler.incomplete == 1


def test_a_whole_volume_passes_and_ends_what_was_begun() -> None:
    assembler = VolumeAssembler(10**6)
    assembler.feed(_part(0, 3))
    whole = _part(0, 5)
    assert assembler.feed(whole) is whole
    assert assembler.incomplete == 1


def test_limits() -> None:
    with pytest.raises(RefusedMessage, match="limit 100"):
        VolumeAssembler(100).feed(_part(0, 3))
    assembler = VolumeAssembler(10**6)
    for number in range(MOST_VOLUMES):
        assembler.feed(_part(0, 3, device=str(number)))
    with pytest.raises(RefusedMessage, match=f"more than {MOST_VOLUMES}"):
        assembler.feed(_part(0, 3, device="one more"))
