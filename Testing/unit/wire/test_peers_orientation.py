"""Where the voxels of an image lie, for peers that nobody here wrote: every voxel centre, in both directions."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyigtl
import pytest
from conftest import ORIENTATIONS
from IntraopMRIReconstructionLib.data import AnyArray, Image
from IntraopMRIReconstructionLib.geometry import apply
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.adapters import image_from_message, message_from_image
from IntraopMRIReconstructionLib.wire.header import HEADER_SIZE
from IntraopMRIReconstructionLib.wire.transport import Client
from IntraopMRIReconstructionLib.wire.trust import check_message
from peers import igtl_examples

#: Even, odd and single, along each axis.
SIZES = tuple(itertools.product((1, 4, 7), (2, 5), (1, 6)))
SPACING_MM, CORNER_MM = np.array([0.5, 1.25, 4.0]), np.array([-31.5, 12.25, 87.0])
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
FRAMES = {"ras": np.eye(4), "lps": FLIP}
#: Positions travel as float32.
TOLERANCE_MM = 1e-4


def _grid(directions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(4, 4), mm: RAS of voxel (i, j, k), without the product's own geometry."""
    matrix = np.eye(4)
    matrix[:3, :3] = directions @ np.diag(SPACING_MM)
    matrix[:3, 3] = CORNER_MM
    return matrix


def _places(directions: npt.NDArray[np.float64], size: tuple[int, int, int]) -> dict[int, npt.NDArray[np.float64]]:
    """RAS of each voxel's centre by the value of the voxel, which is its place in memory, i fastest."""
    indices = itertools.product(*(range(length) for length in reversed(size)))
    return {
        value: CORNER_MM + i * SPACING_MM[0] * directions[:, 0] + j * SPACING_MM[1] * directions[:, 1]
        + k * SPACING_MM[2] * directions[:, 2]
        for value, (k, j, i) in enumerate(indices)
    }  # fmt: skip


def _voxels(size: tuple[int, int, int], dtype: str = "<i2") -> AnyArray:
    return np.arange(np.prod(size)).astype(dtype).reshape(size[::-1])


def _check(array: AnyArray, matrix: npt.NDArray[np.float64], truth: dict[int, npt.NDArray[np.float64]]) -> None:
    assert array.size == len(truth)
    for k, j, i in np.ndindex(array.shape):
        np.testing.assert_allclose(apply(matrix, np.array([i, j, k])), truth[int(array[k, j, i])], atol=TOLERANCE_MM)


def _received(raw: bytes) -> Image:
    message = check_message(codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:]))
    assert isinstance(message, codec.ImageMessage)
    return image_from_message(message)


@pytest.mark.parametrize("frame", sorted(FRAMES))
def test_every_voxel_of_pyigtl_lands_where_it_is(directions: np.ndarray, frame: str) -> None:
    for size in SIZES:
        sent = pyigtl.ImageMessage(_voxels(size), FRAMES[frame] @ _grid(directions), frame, device_name="T1")
        image = _received(sent.pack())
        _check(image.array, image.ras_from_ijk, _places(directions, size))


def test_pyigtl_finds_every_voxel_of_ours_where_it_is(directions: np.ndarray) -> None:
    for size in SIZES:
        raw = codec.encode(message_from_image(Image(_voxels(size), _grid(directions)), "T1"))
        theirs = pyigtl.ImageMessage()
        theirs.unpack(theirs.parse_header(raw[:HEADER_SIZE]), raw[HEADER_SIZE:])
        to_ras = FRAMES[theirs.world_coordinate_system]
        _check(theirs.image, to_ras @ theirs.ijk_to_world_matrix, _places(directions, size))


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "<f4", ">f4", "<f8", ">f8"])
def test_values_of_any_type_and_byte_order_are_the_same_for_pyigtl(dtype: str) -> None:
    voxels = _voxels((4, 3, 2), dtype)
    raw = codec.encode(message_from_image(Image(voxels, np.eye(4)), "T1"))
    theirs = pyigtl.ImageMessage()
    theirs.unpack(theirs.parse_header(raw[:HEADER_SIZE]), raw[HEADER_SIZE:])
    np.testing.assert_array_equal(theirs.image, voxels)
    back = _received(raw)
    np.testing.assert_array_equal(back.array, voxels)
    assert back.array.dtype == voxels.dtype.newbyteorder("=")


@pytest.fixture(scope="module")
def cpp() -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """The C++ library, through :file:`peers/igtl_image.cxx`."""
    reason = igtl_examples.missing()
    if reason:
        pytest.skip(reason)
    port, count = igtl_examples.free_port(), 2 * len(ORIENTATIONS) * len(SIZES)
    program = igtl_examples.build_own("igtl_image")
    with subprocess.Popen([program, str(port), str(count)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        with Client(port=port, reconnect=False) as client:
            yield client, process
        process.wait(20.0)


@pytest.mark.parametrize("frame", sorted(FRAMES))
def test_the_cpp_library_and_we_mean_the_same_voxels(
    cpp: tuple[Client, subprocess.Popen[str]], directions: np.ndarray, frame: str
) -> None:
    """What it reads of our message is the truth, and what it builds of that lands on the same voxel centres."""
    client, process = cpp
    assert process.stdout is not None
    for size in SIZES:
        centre_ras = CORNER_MM + _grid(directions)[:3, :3] @ ((np.array(size) - 1) / 2)
        turn = FRAMES[frame][:3, :3]
        client.send(
            codec.ImageMessage(
                device="T1",
                array=_voxels(size),
                axes_mm=turn @ _grid(directions)[:3, :3],
                centre_mm=turn @ centre_ras,
                coordinate="RAS" if frame == "ras" else "LPS",
            )
        )
        coordinate, *read = map(float, process.stdout.readline().split())
        assert coordinate == (1 if frame == "ras" else 2)
        np.testing.assert_array_equal(read[:3], size)
        np.testing.assert_allclose(read[3:6], SPACING_MM, rtol=1e-6)
        np.testing.assert_allclose(np.reshape(read[6:15], (3, 3)).T, turn @ directions, atol=1e-6)
        np.testing.assert_allclose(read[15:], turn @ centre_ras, atol=TOLERANCE_MM)
        message = client.expect(20.0).message
        assert isinstance(message, codec.ImageMessage)
        image = image_from_message(message)
        _check(image.array, image.ras_from_ijk, _places(directions, size))
