"""A whole case by clicks without any network: volumes of the scene as scans, to the report; and bad choices."""

from __future__ import annotations

import importlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.simulate.kspace import simulate_scan
from IntraopMRIReconstructionLib.simulate.phantom import BrainCase, make_brain_case
from IntraopMRIReconstructionLib.wire.mrd_file import write_mrd
from panels.operation import product
from panels.raw_panel import read
from peers.dicom_scans import write_series
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

__all__ = ["app"]

PATIENT = "P-7"


@pytest.fixture(scope="module")
def brain() -> BrainCase:
    return make_brain_case(11, spacing_mm=2.0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("something opened a link")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


def panel() -> Any:
    return slicer.util.getModuleWidget("IntraopMRI").panel


def page(name: str) -> Any:
    return next(p for phase, p in panel().pages.items() if phase.name == name)


def rows() -> Any:
    return page("SCAN").ui


def states() -> str:
    return "".join(p.state().readiness.name[0] for p in panel().pages.values())


def press_next(text: str) -> None:
    button = panel().ui.nextButton
    wait_until(lambda: text in button.text and button.enabled, 120, f"the button to say '{text}'")
    button.click()


def volume(image: Image, name: str) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.CreateDefaultDisplayNodes()
    slicer.util.updateVolumeFromArray(node, image.array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(image.ras_from_ijk))
    return node


def open_case(brain: BrainCase) -> None:
    """Page 1 as a person fills it with volumes that were loaded."""
    slicer.util.selectModule("IntraopMRI")
    conversion = importlib.import_module("IntraopMRILib.scene.conversion")
    tumour = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Tumour")
    names = {1: ("a", "enhancing", (1, 0, 0)), 2: ("b", "necrosis", (0, 1, 0)), 3: ("c", "non-enhancing", (0, 0, 1))}
    tumour.SetAndObserveSegmentation(conversion.segmentationOf(brain.tumour, names))
    p = panel().parameters
    p.patientId, p.preopVolume, p.tumourSegmentation = PATIENT, volume(brain.preop, "Preop"), tumour
    assert states()[:2] == "DR"


def go_on_without_scanner() -> None:
    panel().open(page("CONNECT").phase)
    page("CONNECT").ui.withoutScannerButton.click()
    wait_until(lambda: panel().running.connected, 60, "the session")
    assert not panel().running.hasScanner


def choose(node: Any, role: int, taken: str) -> None:
    """As a person does: volume, then contrast agent (1 without, 2 with), then the time."""
    rows().sceneScan.setCurrentNode(node)
    panel().refresh()
    rows().sceneScanRoleBox.currentIndex = role
    rows().sceneScanTakenEdit.text = taken
    panel().refresh()


def use(node: Any, role: int, taken: str) -> None:
    choose(node, role, taken)
    assert rows().sceneScanButton.enabled
    rows().sceneScanButton.click()
    wait_until(lambda: panel().running.task is None, 30, "the check of the volume")


def refused(node: Any, role: int, taken: str = "2025-01-31 10:00") -> str:
    """What the banner says; nothing else may have changed."""
    before = panel().running.image
    use(node, role, taken)
    panel().refresh()
    assert panel().running.image is before
    assert panel().ui.bannerLabel.visible
    return str(panel().ui.bannerLabel.text)


@pytest.fixture
def session(app: Any, brain: BrainCase) -> Iterator[Any]:
    """A session without a scanner, page 4 open."""
    open_case(brain)
    go_on_without_scanner()
    panel().open(page("SCAN").phase)
    yield panel().running
    panel().running.close()
    threads = lambda: [t for t in threading.enumerate() if t.name.startswith("intraop")]  # noqa: E731
    wait_until(lambda: not threads(), 30, "the threads to end")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_volumes_of_the_scene_become_residual_and_report(app: Any, brain: BrainCase, tmp_path: Path) -> None:
    open_case(brain)
    native, contrast = (volume(brain.intraop[f"T1 {name}"], f"T1 {name}") for name in ("native", "contrast"))
    go_on_without_scanner()
    assert states()[:3] == "DDD", "no tracker is part of this session"
    assert "No scanner" in page("CONNECT").state().text
    press_next("Go on: 4")
    assert not rows().scanButton.enabled
    assert not rows().sceneScanSection.collapsed
    assert "Choose the scan without contrast agent" in panel().ui.whyLabel.text
    assert panel().ui.nextButton.text == "Choose a scan"

    choose(native, 0, "2025-01-31 10:00")
    assert panel().ui.nextButton.text == "Say whether contrast agent was given"
    assert not rows().sceneScanButton.enabled
    choose(native, 1, "2025-01-31 10:00")
    assert "make sure that it is this patient's" in rows().sceneScanLabel.text
    press_next("Use as scan")
    wait_until(lambda: panel().running.registered is not None, 120, "the registration of the native scan")
    choose(contrast, 2, "2025-01-31 10:20")
    press_next("Use as scan")
    wait_until(lambda: panel().running.residual is not None, 240, "the residual")
    low, high = panel().running.residual.interval_cm3
    assert low <= brain.truth.residual_ml <= high
    assert states()[3:] == "RBB", "nothing is navigated before a person has confirmed"
    press_next("Confirm registration")
    press_next("Go on: 5")
    press_next("Go on: 6")
    page("DECIDE").ui.surgeonEdit.text = "Dr. Example"
    page("DECIDE").ui.decisionBox.currentIndex = 1
    page("DECIDE").ui.reportFolderEdit.currentPath = str(tmp_path / "report")
    press_next("Write report")
    wait_until(lambda: states() == "DDDDDD", 30, "all pages to be done")
    record = json.loads((tmp_path / "report" / "session.json").read_text())
    assert record["residual"]["volume"]["value"] > 0
    assert {image["role"]: image["metadata"]["TakenFrom"] for image in record["images"]} == {
        "native": "entered by hand",
        "contrast": "entered by hand",
    }
    assert record["events"][0]["text"].startswith("without a scanner")

    # Saved and loaded: choices, role and time are back, nothing is trusted, and the way is open again
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    assert states() == "BBBBBB"
    slicer.util.loadScene(path)
    app.processEvents()
    panel().open(page("CONNECT").phase)
    assert states()[:2] == "DR"
    press_next("Go on without a scanner")
    wait_until(lambda: panel().running.connected, 60, "the session")
    panel().open(page("SCAN").phase)
    assert panel().parameters.sceneScan.GetName() == "T1 contrast"
    assert rows().sceneScanRoleBox.currentIndex == 2
    assert rows().sceneScanTakenEdit.text == "2025-01-31 10:20:00"
    assert not panel().running.trusted
    assert panel().running.residual is None
    press_next("Use as scan")
    wait_until(lambda: panel().running.registered is not None, 120, "the registration")
    panel().running.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_exchanged_roles_and_unknown_times_give_no_number(session: Any, brain: BrainCase) -> None:
    native, contrast = (volume(brain.intraop[f"T1 {name}"], f"T1 {name}") for name in ("native", "contrast"))
    use(contrast, 1, "2025-01-31 10:20")
    use(native, 2, "2025-01-31 10:00")
    wait_until(lambda: "both are exchanged" in session.problem, 120, "the sentence")
    assert session.residual is None
    choose(native, 2, "")
    assert "Without the time" in rows().sceneScanLabel.text
    use(native, 2, "")
    wait_until(lambda: "it is not known when 'T1 native' was taken" in session.problem, 120, "the sentence")
    assert session.residual is None
    assert not session.trusted


def test_a_new_volume_withdraws_the_confirmation(session: Any, brain: BrainCase) -> None:
    use(volume(brain.intraop["T1 native"], "first"), 1, "2025-01-31 10:00")
    wait_until(lambda: session.registered is not None, 120, "the registration")
    press_next("Confirm registration")
    assert session.trusted
    image = brain.intraop["T1 native"]
    use(volume(image.with_array(image.array + 1), "second"), 1, "2025-01-31 10:05")
    wait_until(lambda: session.image.image.name == "second", 30, "the second volume")
    assert not session.trusted


def transformed(node: Any, matrix: np.ndarray) -> Any:
    above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Above")
    above.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(above.GetID())
    return node


def test_bad_choices_are_refused_with_a_sentence(session: Any, brain: BrainCase) -> None:
    image = brain.intraop["T1 native"]
    flat = Image(image.array[30:31], image.ras_from_ijk)
    assert "1 voxels, at least 8" in refused(volume(flat, "slice"), 1)
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    assert "no rigid motion" in refused(transformed(volume(image, "sheared"), sheared), 1)
    assert "'Preop' is the preoperative volume itself" in refused(panel().parameters.preopVolume, 1)
    own = session.view.bridge.node("preop.volume")
    assert "was made by a session" in refused(own, 1)
    assert "'noon' is no time" in refused(volume(image, "a"), 1, "noon")
    ahead = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + 86400))
    assert "min from now" in refused(volume(image, "b"), 1, ahead)
    native = volume(image, "native")
    use(native, 1, "2025-01-31 10:00")
    wait_until(lambda: session.registered is not None, 120, "the registration")
    assert "is the scan without contrast agent already" in refused(native, 2)
    assert session.registered is not None, "a refused choice withdraws nothing"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_raw_data_that_were_reconstructed_from_a_file_become_a_scan(app: Any, brain: BrainCase, tmp_path: Path) -> None:
    open_case(brain)
    scan = simulate_scan(replace(brain.intraop["T1 native"], patient_id=PATIENT), "T1 native", coils=2)
    path = tmp_path / "native.h5"
    write_mrd(path, scan.encoding, scan.blocks())
    slicer.util.selectModule("IntraopMRIReconstruction")
    raw = slicer.util.getModuleWidget("IntraopMRIReconstruction").panel
    read(raw, path)
    wait_until(lambda: raw.problem or raw.ui.nextButton.text == "Reconstruct again", 120, "the image")
    node = raw.parameters.outputVolume
    slicer.util.selectModule("IntraopMRI")
    go_on_without_scanner()
    panel().open(page("SCAN").phase)
    choose(node, 1, "")
    assert f"Reconstructed from raw data: {raw.result.method}" in rows().sceneScanLabel.text
    assert "Without the time" in rows().sceneScanLabel.text, "a file does not say when it was taken"
    use(node, 1, "2025-01-31 10:00")
    wait_until(lambda: panel().running.registered is not None, 120, "the registration")
    entry = panel().running.session.journal.record.images[0]
    assert entry.metadata["method"] == raw.result.method
    assert entry.metadata["input_sha256"] == raw.result.provenance["input_sha256"]
    assert entry.metadata["TakenFrom"] == "entered by hand"
    assert panel().running.image.image.patient_id == PATIENT, "as the raw data say"

    # Reconstructed anew into the same node: what was said of the image before is not said of this one
    taken = Image(brain.intraop["T1 contrast"].array, brain.intraop["T1 contrast"].ras_from_ijk, "new")
    raw._nodes.showImage(replace(taken, metadata={"method": "fft", "input_sha256": "f" * 64}), node)
    panel().refresh()
    assert rows().sceneScanRoleBox.currentIndex == 0
    assert rows().sceneScanTakenEdit.text == ""
    assert not rows().sceneScanButton.enabled
    panel().running.close()


def test_a_deleted_volume_is_said_and_no_neighbour_takes_its_place(session: Any, brain: BrainCase) -> None:
    image = brain.intraop["T1 native"]
    doomed, neighbour = volume(image, "doomed"), volume(image, "neighbour")
    choose(doomed, 1, "2025-01-31 10:00")
    slicer.mrmlScene.RemoveNode(doomed)
    wait_until(lambda: "'doomed' was removed" in panel().ui.bannerLabel.text, 5, "the sentence")
    assert "page 4" in panel().ui.bannerLabel.text
    assert panel().parameters.sceneScan is None
    assert not rows().sceneScanButton.enabled
    use(neighbour, 1, "2025-01-31 10:00")
    wait_until(lambda: session.image is not None, 60, "the scan")
    slicer.mrmlScene.RemoveNode(neighbour)
    wait_until(lambda: session.registered is not None, 120, "the session works on its own copy")


def dicom_file(folder: Path, name: str, **changes: str) -> Path:
    header = pydicom.Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = MRImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    facts = {"PatientID": PATIENT, "SeriesDescription": name, "FrameOfReferenceUID": "1.2.3.4"}
    facts |= {"AcquisitionDate": "20250131", "AcquisitionTime": "100000.5", "SeriesInstanceUID": generate_uid()}
    for key, value in (facts | changes).items():
        setattr(header, key, value)
    path = folder / f"{name}.dcm"
    header.save_as(path, enforce_file_format=True)
    return path


class Database:
    """What Slicer's DICOM database is asked: ctkDICOMDatabase::fileForInstance and isOpen."""

    def __init__(self) -> None:
        self.isOpen = True
        self.files: dict[str, Path] = {}

    def fileForInstance(self, uid: str) -> str:
        return str(self.files.get(uid, ""))


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    made = Database()
    monkeypatch.setattr(slicer, "dicomDatabase", made, raising=False)
    return made


def known(database: Database, node: Any, path: Path | str) -> Any:
    """The node as Slicer's DICOM plugin leaves it."""
    uid = f"1.9.{len(database.files)}"
    database.files[uid] = Path(path)
    node.SetAttribute("DICOM.instanceUIDs", f"{uid} 1.9.999")
    return node


def looked(node: Any) -> None:
    """The person chooses the node; its header is read."""
    rows().sceneScan.setCurrentNode(node)
    panel().refresh()
    wait_until(lambda: "Reading" not in rows().sceneScanLabel.text, 10, "the header")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_scanner_wrote_is_used_and_cannot_be_typed_over(
    session: Any, brain: BrainCase, database: Database, tmp_path: Path
) -> None:
    native = known(database, volume(brain.intraop["T1 native"], "10: T1"), dicom_file(tmp_path, "T1 pre"))
    agent = {"ContrastBolusAgent": "Gadovist", "AcquisitionTime": "102000"}
    contrast = known(
        database, volume(brain.intraop["T1 contrast"], "11: T1"), dicom_file(tmp_path, "T1 after", **agent)
    )
    looked(native)
    assert "patient P-7, 'T1 pre', contrast agent: none named" in rows().sceneScanLabel.text
    assert rows().sceneScanTakenEdit.text == "2025-01-31 10:00:00"
    assert rows().sceneScanTakenEdit.readOnly
    assert rows().sceneScanRoleBox.currentIndex == 0, "an empty tag proves nothing: the person says it"
    rows().sceneScanRoleBox.currentIndex = 1
    press_next("Use as scan")
    wait_until(lambda: session.registered is not None, 120, "the registration")
    looked(contrast)
    assert rows().sceneScanRoleBox.currentIndex == 2
    assert "Gadovist" in rows().sceneScanLabel.text
    assert "Same frame of reference as the scan before" in rows().sceneScanLabel.text
    rows().sceneScanRoleBox.currentIndex = 1
    panel().refresh()
    rows().sceneScanButton.click()
    wait_until(lambda: "names the agent 'Gadovist'" in session.problem, 30, "the refusal of the wrong role")
    rows().sceneScanRoleBox.currentIndex = 2
    press_next("Use as scan")
    wait_until(lambda: session.residual is not None, 240, "the residual")
    entries = session.session.journal.record.images
    assert [entry.name for entry in entries] == ["T1 pre", "T1 after"]
    assert entries[1].metadata["ContrastBolusAgent"] == "Gadovist"
    assert entries[1].metadata["FrameOfReferenceUID"] == "1.2.3.4"
    assert entries[1].metadata["TakenFrom"].startswith("DICOM AcquisitionDate and AcquisitionTime")


def test_a_volume_of_another_patient_is_refused_with_both_names(
    session: Any, brain: BrainCase, database: Database, tmp_path: Path
) -> None:
    path = dicom_file(tmp_path, "T1", PatientID="SOMEONE")
    node = known(database, volume(brain.intraop["T1 native"], "T1"), path)
    looked(node)
    assert "patient SOMEONE" in rows().sceneScanLabel.text
    rows().sceneScanRoleBox.currentIndex = 1
    panel().refresh()
    rows().sceneScanButton.click()
    wait_until(lambda: "'SOMEONE'" in panel().ui.bannerLabel.text, 10, "the refusal")
    assert f"'{PATIENT}'" in panel().ui.bannerLabel.text


def loaded(database: Database, folder: Path) -> Any:
    """The node of a whole series as Slicer's DICOM plugin leaves it: slices in reverse order when left-handed."""
    image, _facts = product("dicom_series").read_series(folder)
    node = volume(image, "7: T1")
    uids = []
    for path in sorted(folder.iterdir()):
        uids.append(str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID))
        database.files[uids[-1]] = path
    matrix = image.ras_from_ijk.copy()
    matrix[:3, 3] += (len(image.array) - 1) * matrix[:3, 2]
    matrix[:3, 2] *= -1
    slicer.util.updateVolumeFromArray(node, image.array[::-1])
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAttribute("DICOM.instanceUIDs", " ".join(reversed(uids)))
    return node


@pytest.mark.parametrize("case", ["as loaded", "filtered", "moved", "incomplete"])
def test_a_scan_is_known_by_its_instances_as_far_as_it_is_what_they_hold(
    session: Any, brain: BrainCase, database: Database, tmp_path: Path, case: str
) -> None:
    source = product("report.dicom.source")
    scan = replace(brain.intraop["T1 native"], patient_id=PATIENT)
    taken: dict[str, Any] = {"AcquisitionDate": "20250131", "AcquisitionTime": "100000"}
    node = loaded(database, write_series(tmp_path / "series", scan, "T1", **taken))
    if case == "filtered":
        slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) * 2)
    if case == "moved":
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(pose_of_10_mm()))
        node.SetAndObserveTransformNodeID(transform.GetID())
    if case == "incomplete":
        database.files.popitem()
    looked(node)
    rows().sceneScanRoleBox.currentIndex = 1
    panel().refresh()
    rows().sceneScanButton.click()
    wait_until(lambda: session.image is not None, 60, "the scan")
    (entry,) = session.session.journal.record.images
    known = source.source_of(entry.metadata)
    if case == "incomplete":
        assert known is None
        assert "1 of its" in entry.metadata[source.UNKNOWN]
        return
    assert set(known.instances) == set(database.files)
    different = known.difference(session.image.image)
    assert different == "" if case == "as loaded" else different
    assert known.holds_frame(session.image.image) is (case != "moved")


def pose_of_10_mm() -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 3] = 10.3
    return matrix


def test_headers_of_two_patients_are_no_scan(
    session: Any, brain: BrainCase, database: Database, tmp_path: Path
) -> None:
    folder = write_series(tmp_path / "series", replace(brain.intraop["T1 native"], patient_id=PATIENT))
    node = loaded(database, folder)
    header = pydicom.dcmread(folder / "005.dcm")
    header.PatientID = "SOMEONE"
    header.save_as(folder / "005.dcm")
    looked(node)
    assert f"'{PATIENT}' and 'SOMEONE'" in rows().sceneScanLabel.text
    rows().sceneScanRoleBox.currentIndex = 1
    panel().refresh()
    rows().sceneScanButton.click()
    wait_until(lambda: "'SOMEONE'" in panel().ui.bannerLabel.text, 10, "the refusal")
    assert session.image is None


@pytest.mark.parametrize("case", ["gone", "damaged", "closed", "no database"])
def test_a_header_that_cannot_be_read_is_said_and_the_person_is_asked(
    session: Any, brain: BrainCase, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    path = tmp_path / "x.dcm"
    if case == "damaged":
        path.write_bytes(b"no DICOM at all")
    node = known(database, volume(brain.intraop["T1 native"], "T1"), "" if case == "gone" else path)
    if case == "gone":
        database.files.clear()
    if case == "closed":
        database.isOpen = False
    if case == "no database":
        monkeypatch.delattr(slicer, "dicomDatabase")
    looked(node)
    words = "cannot be read" if case == "damaged" else "not in this computer's database"
    assert words in rows().sceneScanLabel.text
    assert not rows().sceneScanTakenEdit.readOnly
    use(node, 1, "2025-01-31 10:00")
    wait_until(lambda: session.image is not None, 60, "the scan")
    assert session.image.image.metadata["TakenFrom"] == "entered by hand"
