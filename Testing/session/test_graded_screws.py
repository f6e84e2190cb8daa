"""How a person's own outlines become the grade of a screw, and what is said where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from IntraopMRILib.assess.implant import Spread, Trajectory
from IntraopMRILib.assess.implant_detection import DetectedImplant
from IntraopMRILib.session import Plan
from IntraopMRILib.session.files import read_structures
from IntraopMRILib.session.implants import (
    Carrier,
    found_implant,
    implanted_of,
    pedicle_for,
    pedicles_among,
    vertebrae_among,
)
from IntraopMRILib.session.updates import ImplantFound
from IntraopMRIReconstructionLib.data import Image, Level
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.simulate.volumes import sitk_from_image, write_volume
from session.small_world import verdict_of

GRID = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (24, 40, 44)
SCREW = Trajectory(np.array([60.0, 12.0, 24.0]), np.array([60.0, 56.0, 24.0]), 5.0, "S1")


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> Image:
    array = np.zeros(SHAPE, np.uint8)
    array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return Image(array, GRID)


def bone() -> Image:
    """Lamina behind, body in front, pedicles between them; the plan runs through the right one."""
    array = box((4, 6, 4), (20, 12, 40)).array + box((4, 20, 4), (20, 34, 40)).array
    for columns in ((10, 15), (28, 33)):
        array = array + box((9, 12, columns[0]), (15, 20, columns[1])).array
    return Image(array, GRID)


def plan_of(structures: dict[str, Image], *screws: Trajectory) -> Plan:
    vertebrae, others = vertebrae_among(structures)
    pedicles, at_risk = pedicles_among(others, screws)
    before = Image(np.ones(SHAPE, np.float32), GRID, "before")
    implanted = implanted_of(screws, vertebrae)
    return Plan("P", "test", before, None, screws, {}, at_risk, {}, vertebrae, implanted, pedicles)


def found(
    plan: Plan, planned: Trajectory, by: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> ImplantFound:
    """The screw was placed this far from its plan, in a scan that lies 30 mm beside the volume before."""
    pose = np.eye(4)
    pose[:3, 3] = (30.0, -10.0, 5.0)
    scan = Image(np.ones(SHAPE, np.float32), pose @ GRID, "scan")
    placed = planned.moved(pose)
    actual = replace(placed, entry_ras_mm=placed.entry_ras_mm + by, tip_ras_mm=placed.tip_ras_mm + by)
    detected = DetectedImplant(actual, Spread(0.1), None, verdict_of("void", Level.GOOD), scan, 5.0)
    monkeypatch.setattr("IntraopMRILib.session.implants.find_implant", lambda *_, **__: detected)
    return found_implant(
        scan, planned, Carrier(pose, 0.1, middle_mm=np.array([74.0, 0, 0])), pedicle_for(plan, planned)
    )


@pytest.mark.parametrize("name", ["L3", "l3", "vertebrae_L3", "L3 vertebra", "Vertebra L3"])
def test_a_vertebra_is_known_by_the_names_that_people_and_tools_give(name: str) -> None:
    bones, others = vertebrae_among({"Aorta": bone(), name: bone(), "T12 vertebra": bone(), "L3 pedicle left": bone()})
    assert list(bones) == ["T12", "L3"]
    assert list(others) == ["Aorta", "L3 pedicle left"]


def test_one_vertebra_that_is_outlined_twice_is_said() -> None:
    with pytest.raises(SessionError, match="two structures are the vertebra L3"):
        vertebrae_among({"L3": bone(), "vertebrae_L3": bone()})


def test_each_pedicle_belongs_to_the_screw_that_is_planned_through_it() -> None:
    right, left = box((9, 10, 28), (15, 22, 33)), box((9, 10, 10), (15, 22, 15))
    aside = replace(
        SCREW, entry_ras_mm=SCREW.entry_ras_mm - (36, 0, 0), tip_ras_mm=SCREW.tip_ras_mm - (36, 0, 0), name="S2"
    )
    plan = plan_of({"Pedicle one": left, "L3 PEDICLE right": right, "Canal": bone()}, SCREW, aside)
    assert {name: label.name for name, label in plan.pedicles.items()} == {
        "S1": "L3 PEDICLE right",
        "S2": "Pedicle one",
    }
    assert list(plan.at_risk) == ["Canal"]


@pytest.mark.parametrize("outlined", ["pedicle", "vertebra"])
@pytest.mark.parametrize(
    ("off_mm", "grade"), [((0.0, 0.0, 0.0), "A"), ((-4.0, 0.0, 0.0), "B, medial"), ((7.0, 0.0, 0.0), "D, lateral")]
)
def test_the_grade_follows_the_registration(
    outlined: str, off_mm: tuple[float, float, float], grade: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    structures = {"pedicle": {"Pedicle": box((9, 12, 28), (15, 20, 33))}, "vertebra": {"L3": bone()}}[outlined]
    got = found(plan_of(structures, SCREW), SCREW, off_mm, monkeypatch)
    assert got.breach is not None
    assert f"{got.breach.grade}" == grade[0]
    assert got.breach.direction == (grade.partition(", ")[2] or "none")
    assert f"Gertzbein-Robbins {got.breach.text}" in got.grade


@pytest.mark.parametrize(
    ("structures", "name", "words"),
    [
        ({}, "Screw L3", "planned through no outlined pedicle or vertebra: outline its vertebra as a segment called"),
        ({"L5": box((0, 0, 0), (2, 2, 2))}, "Rod", "planned through no outlined pedicle or vertebra"),
        ({"L3": box((4, 6, 4), (20, 34, 40))}, "Rod", "passes no narrow part of 'L3'"),
    ],
)
def test_a_missing_grade_says_why(
    structures: dict[str, Image], name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = replace(SCREW, name=name)
    got = found(plan_of(structures, planned), planned, (0.0, 0.0, 0.0), monkeypatch)
    (dash,) = (m for m in got.measurements if m.name == f"{name}: pedicle breach")
    assert dash.value is None
    assert words in dash.missing_because
    assert got.grade.endswith("; Gertzbein-Robbins not graded")
    assert got.measurements[0].value == pytest.approx(0.0), "the deviations are there all the same"


def test_a_pedicle_beside_the_screw_takes_the_grade_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends before the screw begins: that had taken all numbers of the screw with it."""
    plan = replace(plan_of({}, SCREW), pedicles={"S1": box((9, 0, 28), (15, 3, 33))})
    got = found(plan, SCREW, (0.0, 0.0, 0.0), monkeypatch)
    assert "does not pass through the pedicle" in got.measurements[7].missing_because
    assert got.measurements[1].value == pytest.approx(0.0)


def test_a_needle_in_a_brain_is_asked_for_no_pedicle(monkeypatch: pytest.MonkeyPatch) -> None:
    needle = replace(SCREW, name="Biopsy", diameter_mm=2.0)
    got = found(plan_of({"Motor tract": bone()}, needle), needle, (0.0, 0.0, 0.0), monkeypatch)
    assert not any("pedicle" in m.name for m in got.measurements)
    assert "Gertzbein" not in got.grade


@pytest.mark.parametrize("layers", [False, True], ids=["one layer", "overlapping"])
def test_segments_of_a_file_keep_their_names(layers: bool, tmp_path: Path, directions: np.ndarray) -> None:
    grid = np.eye(4)
    grid[:3, :3] = directions @ np.diag([1.0, 2.0, 3.0])
    parts = {
        "L3 vertebra": box((4, 6, 4), (20, 12, 40)).array,
        "L3 pedicle right": box((9, 12, 28), (15, 20, 33)).array,
    }
    first, second = parts.values()
    array = np.stack([first, second], axis=-1) if layers else first + 2 * second
    volume = sitk_from_image(Image(array, grid))
    for number, name in enumerate(parts):
        volume.SetMetaData(f"Segment{number}_Name", name)
        volume.SetMetaData(f"Segment{number}_Layer", str(number if layers else 0))
        volume.SetMetaData(f"Segment{number}_LabelValue", str(1 if layers else number + 1))
    SimpleITK.WriteImage(volume, str(tmp_path / "spine.seg.nrrd"))
    read = read_structures(str(tmp_path / "spine.seg.nrrd"), Image(first, grid))
    assert list(read) == list(parts)
    for name, array in parts.items():
        np.testing.assert_array_equal(read[name].array, array)
        np.testing.assert_allclose(read[name].ras_from_ijk, grid, atol=1e-5)
    write_volume(Image(first, grid), tmp_path / "bone.nii.gz")
    (named,) = read_structures(f"L3={tmp_path / 'bone.nii.gz'}", Image(first, grid)).values()
    assert named.name == "L3"
    np.testing.assert_array_equal(named.array, first)
    with pytest.raises(DataError, match=r"does not say how its segments are called.*NAME=LABEL"):
        read_structures(str(tmp_path / "bone.nii.gz"), Image(first, grid))
    with pytest.raises(DataError, match=r"there is no volume at .*absent.seg.nrrd"):
        read_structures(str(tmp_path / "absent.seg.nrrd"), Image(first, grid))
    # No file is not the folder that one is in.
    for empty in ("L3=", "", "=", f"={tmp_path / 'bone.nii.gz'}"):
        with pytest.raises(DataError, match=f"'{empty}' names no structure"):
            read_structures(empty, Image(first, grid))


def test_the_void_of_a_neighbour_is_not_taken_for_an_implant_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Needles 7 mm apart: where one was not placed, the void of the other gave it a deviation of 7 mm."""
    first = replace(SCREW, name="Needle 1", diameter_mm=2.0)
    by = np.array([7.0, 0.0, 0.0])
    second = replace(first, name="Needle 2", entry_ras_mm=first.entry_ras_mm + by, tip_ras_mm=first.tip_ras_mm + by)
    scan, both = Image(np.ones(SHAPE, np.float32), GRID, "scan"), (first, second)
    placed = replace(second, entry_ras_mm=second.entry_ras_mm - 0.2 * by, tip_ras_mm=second.tip_ras_mm - 0.2 * by)
    detected = DetectedImplant(placed, Spread(0.1), None, verdict_of("void", Level.GOOD), scan, 2.0)
    monkeypatch.setattr("IntraopMRILib.session.implants.find_implant", lambda *_, **__: detected)
    with pytest.raises(SessionError, match=r"lies 5.6 mm from it and 1.4 mm from that of 'Needle 2'"):
        found_implant(scan, first, Carrier(np.eye(4), 0.1), None, others=both)
    there = found_implant(scan, second, Carrier(np.eye(4), 0.1), None, others=both)
    assert there.measurements[1].value == pytest.approx(1.4)


def test_one_cylinder_in_the_voids_of_two_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """Screws 7 mm apart whose voids touch: the fit lay between them, 3 mm from both, with an interval of 3 mm."""
    by = np.array([7.0, 0.0, 0.0])
    second = replace(SCREW, name="Second", entry_ras_mm=SCREW.entry_ras_mm + by, tip_ras_mm=SCREW.tip_ras_mm + by)
    scan, both = Image(np.ones(SHAPE, np.float32), GRID, "scan"), (SCREW, second)
    between = replace(SCREW, entry_ras_mm=SCREW.entry_ras_mm + 0.45 * by, tip_ras_mm=SCREW.tip_ras_mm + 0.45 * by)
    detected = DetectedImplant(between, Spread(0.1), None, verdict_of("void", Level.GOOD), scan, 6.0)
    monkeypatch.setattr("IntraopMRILib.session.implants.find_implant", lambda *_, **__: detected)
    for planned in both:
        with pytest.raises(SessionError, match="or both voids in one"):
            found_implant(scan, planned, Carrier(np.eye(4), 0.1), None, others=both)
