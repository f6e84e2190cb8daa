from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK
from IntraopMRILib.assess.lesion import cord_residual, label_volume, vascular_residual
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import AssessmentError
from IntraopMRIReconstructionLib.geometry import apply


def grid(directions: np.ndarray, spacing: Any = 1.0, size: Any = 60) -> Any:
    ras_from_ijk = np.eye(4)
    ras_from_ijk[:3, :3] = directions * spacing
    ras_from_ijk[:3, 3] = -ras_from_ijk[:3, :3] @ np.full(3, (size - 1) / 2.0)
    k, j, i = np.indices((size, size, size))
    return apply(ras_from_ijk, np.stack([i, j, k], axis=-1)), ras_from_ijk


def ball(directions: np.ndarray, radius: Any, spacing: Any = 1.0) -> Any:
    ras, matrix = grid(directions, spacing)
    return Image((np.linalg.norm(ras, axis=-1) <= radius).astype(np.uint8), matrix)


def test_volume_is_that_of_simpleitk(directions: np.ndarray) -> None:
    """ITK's label statistics as a second opinion, on an anisotropic grid."""
    label = ball(directions, 9.0, np.array([1.0, 0.7, 2.5]))
    itk = SimpleITK.GetImageFromArray(label.array)
    itk.SetSpacing(label.spacing_mm.tolist())
    shape = SimpleITK.LabelShapeStatisticsImageFilter()
    shape.Execute(itk)
    assert label_volume(label, "ball").value == pytest.approx(shape.GetPhysicalSize(1) / 1000)


def test_volume_of_a_ball_lies_in_its_interval(directions: np.ndarray) -> None:
    truth = 4 / 3 * np.pi * 9.0**3 / 1000
    found = label_volume(ball(directions, 9.0), "ball")
    assert found.value == pytest.approx(truth, rel=0.02)
    assert found.interval is not None
    assert found.interval[0] == pytest.approx(4 / 3 * np.pi * 8.0**3 / 1000, rel=0.1)
    # At least a voxel: steps of the mask push the outer bound a little further.
    assert 1.0 <= found.interval[1] / (4 / 3 * np.pi * 10.0**3 / 1000) < 1.15


@pytest.mark.parametrize(
    ("radius", "shunt", "text"),
    [
        (4.0, True, "Residual nidus, shunt seen."),
        (0.0, None, "not a proof of cure"),
        (0.0, True, "not a proof of cure"),
        (0.0, False, "No nidus and no shunt"),
    ],
)
def test_nidus_and_shunt(radius: Any, shunt: Any, text: Any) -> None:
    before = ball(np.eye(3), 9.0)
    after = ball(np.eye(3), radius) if radius else before.with_array(before.array * 0)
    found = vascular_residual(before, after, shunt)
    assert text in found.text
    occlusion = found.measurements[2]
    assert occlusion.value == pytest.approx(100 * (1 - radius**3 / 9.0**3), abs=1.5)
    assert occlusion.interval is not None
    assert occlusion.value is not None
    assert occlusion.interval[0] <= occlusion.value <= occlusion.interval[1]


def test_cord_lesion_along_a_bent_cord(directions: np.ndarray) -> None:
    ras, matrix = grid(directions, 0.7, 80)
    # The cord runs on an arc of radius 40 mm in the sagittal plane; the lesion covers 24 mm of arc, 3 mm thick radius.
    centre = np.array([0.0, -40.0, 0.0])
    off = ras - centre
    radial = np.hypot(off[..., 1], off[..., 2])
    angle = np.arctan2(off[..., 2], off[..., 1])
    lesion = (np.hypot(radial - 40.0, ras[..., 0]) <= 3.0) & (np.abs(angle * 40.0) <= 12.0)
    turn = np.linspace(-0.6, 0.6, 15)
    line = np.stack([0 * turn, 40 * np.cos(turn) - 40, 40 * np.sin(turn)], axis=1)
    _, length, area = cord_residual(Image(lesion.astype(np.uint8), matrix), line)
    assert length.value == pytest.approx(24.0, abs=1.0)
    assert area.value == pytest.approx(np.pi * 9.0, rel=0.12)


def test_cord_without_lesion_is_zero() -> None:
    empty = ball(np.eye(3), 5.0).with_array(np.zeros((60, 60, 60), dtype=np.uint8))
    assert [m.value for m in cord_residual(empty, [[0, 0, -20], [0, 0, 20]])] == [0.0, 0.0, 0.0]


def test_bad_input_is_named() -> None:
    label = ball(np.eye(3), 5.0)
    with pytest.raises(AssessmentError, match="two finite points"):
        cord_residual(label, [[0, 0, 0]])
    with pytest.raises(AssessmentError, match="mm long"):
        cord_residual(label, [[0, 0, 0], [0, 0, 1]])
    with pytest.raises(AssessmentError, match="draw the line further"):
        cord_residual(label, [[0, 0, 0], [0, 0, 30]])
    with pytest.raises(AssessmentError, match="nidus is empty"):
        vascular_residual(label.with_array(label.array * 0), label, None)


@pytest.mark.parametrize("slice_mm", [0.8, 1.0, 2.0, 5.0])
def test_a_cross_section_is_that_of_the_lesion_on_slices_of_any_thickness(slice_mm: float) -> None:
    """Four slices of 1 mm were counted in 3 mm of cord, or one of 5 mm: 33 and 42 mm2 for a lesion of 25 mm2."""
    count = round(20.0 / slice_mm)
    array = np.zeros((3 * count, 21, 21), np.uint8)
    array[count : 2 * count, 8:13, 8:13] = 1
    line = [[10.0, 10.0, 0.0], [10.0, 10.0, (3 * count - 1) * slice_mm]]
    _, length, area = cord_residual(Image(array, np.diag([1.0, 1.0, slice_mm, 1.0])), line)
    assert area.value == pytest.approx(25.0, rel=0.01)
    assert length.value == pytest.approx(count * slice_mm, abs=0.1)
