"""A saved scene is complete, relative, and loads into an equal one; but never registered without a person."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from IntraopMRILib.scene import colors, recipes
from IntraopMRILib.scene.bridge import SceneBridge
from IntraopMRILib.scene.headless import HeadlessScene
from IntraopMRILib.scene.scene_io import loadScene, saveScene
from IntraopMRILib.session.updates import HeatMeasured
from IntraopMRIReconstructionLib.data import Image, Level, Measurement, Pose, Reason, Verdict
from IntraopMRIReconstructionLib.errors import DataError, SessionError
from IntraopMRIReconstructionLib.geometry import apply, invert, rotation_about
from IntraopMRIReconstructionLib.reconstruct.ablation import HeatNumbers
from IntraopMRIReconstructionLib.reconstruct.quantities import Heating

VERDICT = Verdict((Reason('edge "distance"; ü', 0.6, "mm", "below 1.5", Level.GOOD),))


def oblique() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about((1, 2, 3), 12.0)
    matrix[:3, 3] = (5.0, -3.0, 8.0)
    return matrix


@pytest.fixture
def session(headless: HeadlessScene, directions: np.ndarray) -> SceneBridge:
    matrix = np.eye(4)
    matrix[:3, :3] = directions * (1.0, 1.5, 2.0)
    matrix[:3, 3] = (-12.0, 7.0, 3.0)
    array = np.random.default_rng(0).random((9, 11, 13), dtype=np.float32)
    scan = Image(array, matrix, name="scan: T1/contrast", patient_id="P;1")
    labels = np.zeros(array.shape, np.uint8)
    labels[3:6, 3:6, 3:6] = 1
    bridge = SceneBridge(headless.scene)
    bridge.setPreoperative(scan)
    bridge.setTumour(Image(labels, matrix))
    bridge.setPlan("lead", (1.0, 2.0, 30.0), (1.0, 2.0, 3.0))
    bridge.setIntraoperative(scan)
    bridge.setRegistration(oblique(), VERDICT, scan.uid, "registration-1")
    bridge.setResidual(Image(labels, matrix), Image(np.ones_like(labels), matrix))
    bridge.setActualImplant("lead", (2.0, 2.0, 30.0), (2.0, 2.0, 3.0))
    bridge.setPointer(Pose(np.eye(4), "pointer", time.monotonic(), time.time()))
    return bridge


def matrixOf(get: Any) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    get(matrix)
    return np.array(slicer.util.arrayFromVTKMatrix(matrix))


@pytest.mark.parametrize("name", ["session.mrb", "session"])
def test_loaded_scene_equals_the_saved_one(session: SceneBridge, tmp_path: Path, name: str) -> None:
    opened = saveScene(session.scene, tmp_path / name)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    other = HeadlessScene()
    loadScene(other.scene, opened)
    loaded = SceneBridge(other.scene)
    for role in session.roles():
        if role.startswith("pointer") or role == "registration":
            continue
        before, after = session.node(role), loaded.node(role)
        assert after is not None, role
        assert after.GetName() == before.GetName()  # type: ignore[union-attr]
    volume = loaded.node("intraop.native")
    # A left-handed grid may come back with an axis reversed: the same values must lie at the same places in space.
    original = session.node("intraop.native")
    there = invert(matrixOf(volume.GetIJKToRASMatrix)) @ matrixOf(original.GetIJKToRASMatrix)  # type: ignore[union-attr]
    saved_array = slicer.util.arrayFromVolume(original)
    k, j, i = np.indices(saved_array.shape)
    index = apply(there, np.stack([i, j, k], axis=-1))
    np.testing.assert_allclose(index, np.round(index), atol=1e-4)
    i, j, k = np.moveaxis(np.round(index).astype(int), -1, 0)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume)[k, j, i], saved_array)
    assert volume.GetAttribute("IntraopMRI.PatientId") == "P;1"  # type: ignore[union-attr]
    for role, segment in (("preop.tumour", "tumour"), ("result.residual", "residual")):
        saved = session.node(role).GetSegmentation().GetSegment(segment)  # type: ignore[union-attr]
        found = loaded.node(role).GetSegmentation().GetSegment(segment)  # type: ignore[union-attr]
        np.testing.assert_allclose(found.GetColor(), saved.GetColor(), atol=1e-6)
        assert found.GetName() == saved.GetName()
    actual: Any = loaded.node("intraop.implant.lead.cylinder")
    expected: Any = session.node("intraop.implant.lead.cylinder")
    np.testing.assert_allclose(actual.GetPolyData().GetBounds(), expected.GetPolyData().GetBounds(), atol=1e-4)
    np.testing.assert_allclose(actual.GetDisplayNode().GetColor(), expected.GetDisplayNode().GetColor(), atol=1e-6)


def test_a_loaded_registration_waits_for_a_person(session: SceneBridge, tmp_path: Path) -> None:
    other = HeadlessScene()
    loadScene(other.scene, saveScene(session.scene, tmp_path / "session.mrb"))
    loaded = SceneBridge(other.scene)
    assert loaded.registration is None
    assert "confirm" in loaded.withdrawnBecause
    for role in ("preop.volume", "preop.tumour", "result.residual"):
        assert not loaded.node(role).GetDisplayNode().GetVisibility(), role  # type: ignore[union-attr]
    assert loaded.node("pointer") is None
    loaded.confirmRegistration()
    assert loaded.registration is not None
    assert loaded.registration.verdict == VERDICT
    np.testing.assert_allclose(loaded.registration.intraop_from_preop, oblique(), atol=1e-6)
    for role in ("preop.volume", "preop.tumour", "result.residual"):
        assert loaded.node(role).GetDisplayNode().GetVisibility(), role
    line: Any = loaded.node("preop.plan.lead.line")
    before: Any = session.node("preop.plan.lead.line")
    np.testing.assert_allclose(
        line.GetNthControlPointPositionWorld(0), before.GetNthControlPointPositionWorld(0), atol=1e-5
    )
    with pytest.raises(SessionError, match="no loaded registration"):
        loaded.confirmRegistration()


def written(scene: Any, folder: Path, how: str) -> Path:
    """The scene saved as Slicer itself does it: no event goes before, so that nothing of ours can take part."""
    if how == "bundle":
        assert scene.WriteToMRB(str(folder / "scene.mrb"))
        return folder / "scene.mrb"
    (folder / "scene").mkdir()
    assert scene.SaveSceneToSlicerDataBundleDirectory(str(folder / "scene"), None)
    return folder / "scene" / "scene.mrml"


def shade(bridge: SceneBridge, segment: str = "residual") -> list[float]:
    node: Any = bridge.node("result.residual")
    return list(node.GetDisplayNode().GetSegmentColor(segment))


@pytest.mark.parametrize("how", ["bundle", "folder"])
def test_a_slicer_without_this_extension_shows_no_red_of_an_earlier_session(
    session: SceneBridge, tmp_path: Path, how: str
) -> None:
    before: Any = session.node("result.residual")
    opened = written(session.scene, tmp_path, how)
    assert shade(session) == pytest.approx(colors.RESIDUAL), "the session goes on as it was"
    assert before.GetDisplayNode().GetVisibility()
    other = HeadlessScene()
    loadScene(other.scene, opened)
    found = other.scene.GetFirstNodeByName(before.GetName())
    display = found.GetDisplayNode()
    assert display.GetVisibility(), "what was left can be seen: a scene without it would look like a whole resection"
    grey = {name: list(display.GetSegmentColor(name)) for name in ("residual", "resected")}
    assert grey["residual"] == pytest.approx(colors.STORED, abs=1e-3)
    assert grey["resected"] == pytest.approx(colors.STORED_RESECTED, abs=1e-3)


def test_neither_does_it_show_the_dose_of_an_earlier_session_in_its_colour(tmp_path: Path) -> None:
    label = Image(np.zeros((9, 11, 13), np.uint8), np.eye(4))
    label.array[3:6, 3:6, 3:6] = 1
    unknown = Measurement("Peak", None, "°C", "test", missing_because="not asked")
    numbers = HeatNumbers(unknown, unknown, unknown, label)
    found = HeatMeasured("heat", 0, numbers, (), Heating(), None, 0.0, 0.0, 1.0, True)
    bridge = SceneBridge(HeadlessScene().scene)
    bridge.setHeat(recipes.heat(found))
    node: Any = bridge.node("heat.lethal")
    assert list(node.GetDisplayNode().GetSegmentColor("lethal")) == pytest.approx(colors.LETHAL, abs=1e-3)
    other = HeadlessScene()
    loadScene(other.scene, written(bridge.scene, tmp_path, "bundle"))
    display = other.scene.GetFirstNodeByName(node.GetName()).GetDisplayNode()
    assert list(display.GetSegmentColor("lethal")) == pytest.approx(colors.STORED, abs=1e-3)


def test_what_was_withdrawn_is_not_seen_in_a_stored_scene(session: SceneBridge, tmp_path: Path) -> None:
    session.withdraw("the patient has moved")
    other = HeadlessScene()
    loadScene(other.scene, written(session.scene, tmp_path, "bundle"))
    found = other.scene.GetFirstNodeByName("Residual and resected")
    assert not found.GetDisplayNode().GetVisibility()
    assert list(found.GetDisplayNode().GetSegmentColor("residual")) == pytest.approx(colors.STORED, abs=1e-3)
    scan = Image(np.ones((9, 11, 13), np.float32), np.eye(4))
    session.setIntraoperative(scan)
    session.setRegistration(np.eye(4), VERDICT, scan.uid, "registration-2")
    session.setResidual(Image(np.ones((9, 11, 13), np.uint8), np.eye(4)))
    assert shade(session) == pytest.approx(colors.RESIDUAL)


def test_a_save_that_fails_changes_nothing(
    session: SceneBridge, tmp_path: Path, complaints: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    display: Any = session.node("result.residual").GetDisplayNode()  # type: ignore[union-attr]
    (tmp_path / "file").write_text("keep")
    assert not session.scene.WriteToMRB(str(tmp_path / "file" / "scene.mrb"))
    monkeypatch.setattr("IntraopMRILib.scene.scene_io._zipped", lambda _folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        saveScene(session.scene, tmp_path / "scene.mrb")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    node: Any = session.node("result.residual")
    assert node.GetDisplayNode() is display
    assert display.GetVisibility()
    assert shade(session) == pytest.approx(colors.RESIDUAL)
    complaints.clear()


def test_files_are_relative_and_compressed(session: SceneBridge, tmp_path: Path) -> None:
    opened = saveScene(session.scene, tmp_path / "session")
    text = opened.read_text()
    assert str(tmp_path) not in text
    assert "Pointer" not in text
    suffixes = {"".join(path.suffixes[-2:]) for path in (tmp_path / "session" / "Data").iterdir()}
    assert {".nrrd", ".seg.nrrd", ".mrk.json", ".vtk", ".h5"} <= suffixes
    volume = next(path for path in (tmp_path / "session" / "Data").glob("scan*.nrrd"))
    assert b"encoding: gzip" in volume.read_bytes()[:2000]
    line = next((tmp_path / "session" / "Data").glob("lead planned*.mrk.json"))
    assert json.loads(line.read_text())["markups"][0]["coordinateSystem"] == "LPS"


def test_an_older_scene_is_replaced(session: SceneBridge, tmp_path: Path) -> None:
    for name in ("session", "session.mrb"):
        saveScene(session.scene, tmp_path / name)
        session.setActualImplant("second", (0, 0, 0), (0, 0, 9))
        opened = saveScene(session.scene, tmp_path / name)
        if name.endswith(".mrb"):
            names = zipfile.ZipFile(opened).namelist()
        else:
            names = [str(path) for path in opened.parent.rglob("*")]
        assert any("second" in entry for entry in names)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["session", "session.mrb"]


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    class Full:
        """A scene on a disk that is full."""

        def SaveSceneToSlicerDataBundleDirectory(self, folder: str, _thumbnail: object, messages: Any) -> bool:
            for name in ("volume", "transform"):
                (Path(folder) / name).write_text("half of it")
                messages.AddMessage(vtk.vtkCommand.ErrorEvent, f"{name}: failed to write\nITK exception:\nDescription")
            return False

    with pytest.raises(SessionError, match=r"saved to '.*session', where \d+ MB are free: .*volume: failed to write$"):
        saveScene(Full(), tmp_path / "session")
    assert not list(tmp_path.iterdir())


def test_what_is_no_scene_is_never_replaced(headless: HeadlessScene, tmp_path: Path) -> None:
    (tmp_path / "patients").mkdir()
    (tmp_path / "patients" / "list.txt").write_text("keep")
    (tmp_path / "file").write_text("keep")
    for name in ("patients", "file"):
        with pytest.raises(DataError, match="choose another name"):
            saveScene(headless.scene, tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        saveScene(headless.scene, tmp_path / "nowhere" / "session")
    assert (tmp_path / "patients" / "list.txt").read_text() == "keep"


def test_a_damaged_scene_is_refused(headless: HeadlessScene, tmp_path: Path, complaints: list[str]) -> None:
    with pytest.raises(DataError, match="there is no scene"):
        loadScene(headless.scene, tmp_path / "none.mrb")
    (tmp_path / "bad.mrb").write_bytes(b"not a zip")
    with pytest.raises(SessionError, match="damaged"):
        loadScene(headless.scene, tmp_path / "bad.mrb")
    with zipfile.ZipFile(tmp_path / "empty.mrb", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(SessionError, match="holds 0 scenes"):
        loadScene(headless.scene, tmp_path / "empty.mrb")
    (tmp_path / "bad.mrml").write_text("<MRML><broken")
    with pytest.raises(SessionError, match="could not be read"):
        loadScene(headless.scene, tmp_path / "bad.mrml")
    complaints.clear()
