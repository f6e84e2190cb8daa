"""What must never become a number: labels that are none, mappings of no tissue, points that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from IntraopMRILib.assess import bone
from IntraopMRILib.assess.implant import Trajectory, compare
from IntraopMRILib.assess.labels import checked_label
from IntraopMRILib.assess.lesion import cord_residual, label_volume, vascular_residual
from IntraopMRILib.assess.margin import resection_margin
from IntraopMRILib.assess.pedicle import pedicle_breach
from IntraopMRILib.assess.resection import cavity_volume, extent_of_resection, rano_class
from IntraopMRILib.assess.residual import assess_residual
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import IntraopError

SIZE = 40
PLACE = np.indices((SIZE, SIZE, SIZE)) - (SIZE - 1) / 2.0
FROM_MIDDLE = np.sqrt((PLACE**2).sum(axis=0))
UP = (0.0, 0.0, 1.0)
S1 = np.array([[0.0, -15.0, 0.0], [0.0, 15.0, -10.0]])
HEADS = np.array([[90.0, 10.0, -60.0], [-90.0, 10.0, -60.0]])


def image(array: Any) -> Image:
    return Image(np.asarray(array), np.eye(4))


def ball(radius: float) -> np.ndarray:
    return (radius > FROM_MIDDLE).astype(np.uint8)


def no_error(points: np.ndarray) -> np.ndarray:
    return np.zeros(len(points))


def damaged(value: float) -> np.ndarray:
    """A ball in which one voxel, well inside, has this value."""
    array = ball(8).astype(float)
    array[20, 20, 20] = value
    return array


NO_LABELS = {
    "NaN": (damaged(np.nan), "not finite"),
    "infinite": (damaged(np.inf), "not finite"),
    "negative": (-ball(8).astype(np.int16), "negative"),
    "probabilities": (np.clip(8.5 - FROM_MIDDLE, 0, 1), "threshold"),
    "everywhere": (np.ones((SIZE,) * 3, np.uint8), "inverted"),
    "several": (np.stack([ball(8)] * 2, axis=-1), r"\(k, j, i\)"),
    "complex": (ball(8).astype(complex), "whole numbers"),
}
SCREW = Trajectory(np.array([8.0, 20, 20]), np.array([32.0, 20, 20]), 4.0, "screw")
TAKES_LABEL: dict[str, Callable[[Image], Any]] = {
    "tumour of a margin": lambda label: resection_margin(
        label, image(ball(10)), image(np.ones((SIZE,) * 3)), np.eye(4), no_error
    ),
    "cavity of a margin": lambda label: resection_margin(
        image(ball(6)), label, label.with_array(np.ones(label.array.shape, np.uint8)), np.eye(4), no_error
    ),
    "cavity": cavity_volume,
    "volume": lambda label: label_volume(label, "lesion"),
    "nidus": lambda label: vascular_residual(label, image(ball(3)), None),
    "nidus left": lambda label: vascular_residual(image(ball(8)), label, False),
    "cord": lambda label: cord_residual(label, [[20, 20, -10], [20, 20, 50]]),
    "pedicle": lambda label: pedicle_breach(SCREW, label),
    "tumour of a residual": lambda label: assess_residual(
        image(100.0 + PLACE[0]), image(90.0 + PLACE[0]), label, np.eye(4), registration_error_mm=1.0
    ),
}


@pytest.mark.parametrize("kind", NO_LABELS)
@pytest.mark.parametrize("taker", TAKES_LABEL)
def test_what_is_no_label_gives_no_number(taker: str, kind: str) -> None:
    array, message = NO_LABELS[kind]
    with pytest.raises(IntraopError, match=message):
        TAKES_LABEL[taker](image(array))


def test_labels_of_any_tool_are_taken() -> None:
    for kind in (np.uint8, np.int16, np.int64, np.float32, np.float64, bool):
        assert label_volume(image(ball(8).astype(kind)), "lesion").value == pytest.approx(ball(8).sum() / 1000)
    assert checked_label(image(np.ones((3, 3, 3), np.uint8)), "brain", may_fill=True).all()


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (np.diag([-1.0, 1, 1, 1]), "mirrors"),
        (np.diag([0.001, 0.001, 0.001, 1]), "times as large"),
        (np.diag([3.0, 3, 3, 1]), "times as large"),
        (lambda points: points * 0.0 + 20.0, "times as large"),
        (lambda points: points[:, ::-1] * (1.0, 1.0, 1.0), "mirrors"),
        (lambda points: points * np.nan, "finite"),
        (lambda points: points[:-1], "finite"),
    ],
)
def test_a_mapping_of_no_tissue_is_refused(mapping: Any, message: str) -> None:
    tumour, cavity, brain = (image(array) for array in (ball(6), ball(10), np.ones((SIZE,) * 3)))
    with pytest.raises(IntraopError, match=message):
        resection_margin(tumour, cavity, brain, mapping, no_error)


@pytest.mark.parametrize("radius", [np.nan, np.inf, -1.0])
def test_a_doubt_that_cannot_be_is_refused(radius: float) -> None:
    tumour, cavity, brain = (image(array) for array in (ball(6), ball(10), np.ones((SIZE,) * 3)))
    with pytest.raises(IntraopError, match="uncertainty"):
        resection_margin(tumour, cavity, brain, np.eye(4), lambda points: np.full(len(points), radius))
    with pytest.raises(IntraopError, match="uncertainty"):
        resection_margin(tumour, cavity, brain, np.eye(4), lambda points: np.zeros(3))


@pytest.mark.parametrize(("height", "given"), [(3, True), (-3, False), (-30, False)])
def test_a_tumour_that_lies_mostly_elsewhere_has_no_margin(height: int, given: bool) -> None:
    """The brain ends so far above the middle of the tumour: a few points of its border would pass for all of it."""
    below = np.broadcast_to(PLACE[0] < height, (SIZE,) * 3).astype(np.uint8)
    found = resection_margin(image(ball(8)), image(ball(12) * below), image(below), np.eye(4), no_error)
    assert (found.closest.value is not None) is given
    assert given or found.text.startswith("No margin is given: ")


def test_what_a_scan_does_not_show_is_not_called_resected(operation: Any) -> None:
    """Half of the tumour beyond the edge of either scan: it would have been '0 cm3, 100 % resected'."""
    case = operation(4, np.eye(3))
    half = case.contrast.array.shape[2] // 2
    for name, what in (("native", "without contrast agent"), ("contrast", "with contrast agent")):
        scans = {"contrast": case.contrast, "native": case.native}
        scans[name] = Image(scans[name].array[:, :, :half], scans[name].ras_from_ijk)
        with pytest.raises(IntraopError, match=f"lies outside the scan {what}"):
            assess_residual(
                tumour=case.tumour, intraop_from_preop=case.intraop_from_preop, registration_error_mm=1.0, **scans
            )


def test_a_tumour_of_a_few_voxels_is_no_tumour(operation: Any) -> None:
    case = operation(4, np.eye(3))
    few = np.zeros_like(case.tumour.array)
    few[22, 22, 20:22] = 1
    with pytest.raises(IntraopError, match="2 voxels"):
        assess_residual(case.contrast, case.native, case.tumour.with_array(few), case.intraop_from_preop, 1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: rano_class(np.inf, 5.0),
        lambda: rano_class(1.0, 5.0, (np.nan, 2.0)),
        lambda: rano_class(1.0, 5.0, (0.0, np.inf)),
        lambda: rano_class(1.0, 5.0, (2.0, 3.0)),
        lambda: rano_class(0.0, 5.0, nce_cm3=np.inf),
        lambda: rano_class(0.0, 5.0, nce_cm3=np.nan),
        lambda: rano_class(0.0, 0.0),
        lambda: extent_of_resection(np.inf, 0.0, None),
        lambda: extent_of_resection(5.0, np.nan, None),
        lambda: extent_of_resection(5.0, -1.0, None),
        lambda: extent_of_resection(5.0, 1.0, (-1.0, 2.0)),
        lambda: extent_of_resection(5.0, 1.0, (0.5, np.nan)),
        lambda: cord_residual(image(ball(5)), [[300, 20, -10], [300, 20, 60]]),
        lambda: replace(SCREW, susceptibility_ppm=np.nan),
        lambda: SCREW.moved(np.diag([-1.0, 1, 1, 1])),
        lambda: SCREW.moved(np.diag([10.0, 10, 10, 1])),
        lambda: compare(SCREW, Trajectory(SCREW.entry_ras_mm + 900, SCREW.tip_ras_mm + 900, 4.0)),
        lambda: compare(SCREW, Trajectory(np.array([20.0, 8, 20]), np.array([22.0, 32, 20]), 4.0)),
        lambda: bone.cobb_angle(UP, (0.1, 0, 1), "axial"),  # type: ignore[arg-type]
        lambda: bone.cobb_angle(UP, (0.1, 0, -1)),
        lambda: bone.sagittal_balance(UP, S1 / 1000.0, HEADS),
        lambda: bone.sagittal_balance(UP, S1, HEADS[[0, 0]]),
        lambda: bone.sagittal_balance(UP, S1, HEADS, (0, 10, -400)),
        lambda: bone.sagittal_balance((0, 0.2, -1), S1, HEADS),
        lambda: bone.pelvic_frame((120, 0, 0), (-120, 0, 0), (0, 0, 90)),
        lambda: bone.pelvic_frame((0.12, 0, 0), (-0.12, 0, 0), (0, 0, -90)),
        lambda: bone.cup_orientation((1, 0, -1), "middle"),  # type: ignore[arg-type]
        lambda: bone.cup_orientation((1, 0, 1), "right"),
        lambda: bone.cup_orientation((1, 0.2, -1), "right", np.diag([1.0, 1, -1])),
        lambda: bone.cup_orientation((1, 0.2, -1), "right", 2 * np.eye(3)),
        lambda: bone.cup_orientation((1, 0.2, -1), "right", np.eye(2)),
        lambda: bone.alignment_change(("L1", "L2"), (np.eye(4), np.eye(4)), np.nan),
        lambda: bone.alignment_change(("L1", "L2"), (np.eye(4), np.eye(4)), -1.0),
    ],
)
def test_impossible_input_is_an_error_with_words(call: Any) -> None:
    with pytest.raises(IntraopError) as caught:
        call()
    assert len(str(caught.value)) > 30


def test_a_correction_in_other_axes_is_no_error_of_the_bone() -> None:
    """Landmarks that were read as LPS fit as well: a bone 'turned by 180 deg' had its numbers."""
    planned = np.eye(4)
    planned[:3, 3] = (4.0, 3.0, -2.0)
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0]) @ planned
    with pytest.raises(IntraopError, match=r"turned by 180 deg: landmarks are exchanged"):
        bone.osteotomy_deviation(planned, flipped, np.array([5.0, 5.0, 40.0]))
    far = planned.copy()
    far[0, 3] += 150.0
    with pytest.raises(IntraopError, match="150 mm from where it was planned"):
        bone.osteotomy_deviation(planned, far, np.zeros(3))


def test_a_point_of_another_surface_tilts_no_plane() -> None:
    """One of six points 20 mm off the rim turned it by 12 deg."""
    turns = np.linspace(0.0, 2.0 * np.pi, 6, endpoint=False)
    rim = 25.0 * np.stack([np.cos(turns), np.sin(turns), 0.0 * turns], axis=1)
    assert bone.plane_normal(rim) == pytest.approx(UP)
    rim[2, 2] = 20.0
    with pytest.raises(IntraopError, match="off the plane through all of them"):
        bone.plane_normal(rim)
