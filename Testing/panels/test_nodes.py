"""What a person chose becomes what a session works on: segments on the volume's grid, wherever their labelmaps lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.geometry import apply

__all__ = ["app"]

SHAPE = (20, 24, 28)


def volume(matrix: np.ndarray) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    slicer.util.updateVolumeFromArray(node, np.zeros(SHAPE, np.float32))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return node


def oblique() -> np.ndarray:
    from IntraopMRIReconstructionLib.geometry import rotation_about

    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 0), 25.0) @ np.diag([1.0, 1.5, 2.0])
    matrix[:3, 3] = 5.0, -30.0, 12.0
    return matrix


def segmentation(labels: Image, names: dict[int, str]) -> Any:
    from IntraopMRILib.scene import conversion

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Parts")
    node.SetAndObserveSegmentation(
        conversion.segmentationOf(labels, {value: (f"s{value}", name, (1, 0, 0)) for value, name in names.items()})
    )
    return node


def parts() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:8, 3:9, 4:12] = 1
    labels[10:12, 20:24, 0:3] = 2
    return labels


@pytest.mark.parametrize("matrix", [np.eye(4), oblique()], ids=["RAS", "oblique"])
def test_segments_on_the_grid_of_the_volume(app: Any, matrix: np.ndarray) -> None:
    from IntraopMRILib.scene.panels.nodes import Segments

    node = segmentation(Image(parts(), matrix), {1: "enhancing", 2: "cyst"})
    labels = Segments(node, volume(matrix)).tumour().array
    np.testing.assert_array_equal(labels == 1, parts() == 1)
    np.testing.assert_array_equal(labels == 2, parts() == 2)
    found = Segments(node, volume(matrix)).structures()
    assert found["enhancing"].array.shape == (6, 6, 8)
    corner = apply(found["enhancing"].ras_from_ijk, np.zeros(3))
    np.testing.assert_allclose(corner, apply(matrix, np.array([4.0, 3.0, 2.0])), atol=1e-9)


def test_a_labelmap_on_another_grid_is_resampled(app: Any) -> None:
    """Half a voxel finer and shifted: the middle of the part is where it was."""
    from IntraopMRILib.scene.panels.nodes import Segments

    fine = np.diag([0.5, 0.5, 0.5, 1.0])
    fine[:3, 3] = -2.0, -2.0, -2.0
    labels = np.zeros((50, 50, 50), np.uint8)
    labels[16:28, 16:28, 16:28] = 1
    array = Segments(segmentation(Image(labels, fine), {1: "tumour"}), volume(np.eye(4))).tumour().array
    truth = apply(fine, np.array([21.5, 21.5, 21.5]))
    np.testing.assert_allclose(np.argwhere(array).mean(axis=0)[::-1], truth, atol=0.5)


def test_what_lies_outside_the_volume_is_cut_off(app: Any) -> None:
    from IntraopMRILib.scene.panels.nodes import Segments

    big = np.zeros((40, 40, 40), np.uint8)
    big[15:40, 20:40, 20:40] = 1
    array = Segments(segmentation(Image(big, np.eye(4)), {1: "tumour"}), volume(np.eye(4))).tumour().array
    np.testing.assert_array_equal(array, big[:20, :24, :28])


def test_a_segmentation_of_another_volume_is_refused_with_both_names(app: Any) -> None:
    from IntraopMRILib.scene.panels.nodes import Segments
    from IntraopMRIReconstructionLib.errors import SessionError

    elsewhere = np.eye(4)
    elsewhere[:3, 3] = 500.0
    with pytest.raises(SessionError, match=r"'Parts' covers no voxel of 'T1'.*another volume"):
        Segments(segmentation(Image(parts(), elsewhere), {1: "tumour"}), volume(np.eye(4))).tumour()


def test_an_empty_structure_is_refused_by_name(app: Any) -> None:
    from IntraopMRILib.scene.panels.nodes import Segments
    from IntraopMRIReconstructionLib.errors import SessionError

    node = segmentation(Image(parts(), np.eye(4)), {1: "tract", 7: "nothing"})
    with pytest.raises(SessionError, match="'nothing' is empty"):
        Segments(node, volume(np.eye(4))).structures()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Tumour", 1), ("Enhancing tumour", 1), ("ET", 1), ("Non-enhancing", 3), ("Nonenhancing infiltration", 3),
        ("Peritumoural edema", 3), ("Oedema", 3), ("Ödem", 3), ("FLAIR hyperintensity", 3), ("SNFH", 3),
        ("Necrotic core", 2), ("NCR", 2), ("Cyst", 2),
    ],
)  # fmt: skip
def test_a_segment_is_the_part_of_the_tumour_that_its_name_says(app: Any, name: str, part: int) -> None:
    """Oedema was taken for enhancing tumour: the volume before surgery was too large, and so was what was resected."""
    from IntraopMRILib.scene.panels.nodes import partOf

    assert partOf(name) == part
