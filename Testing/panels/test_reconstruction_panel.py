"""The reconstruction panel alone: an ISMRMRD file in, a volume with method and reason out; errors in words."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRILib.session.products import check_placed
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.scene.attributes import PROVENANCE_ATTRIBUTE
from IntraopMRIReconstructionLib.scene.news import Dropped, Previewed
from IntraopMRIReconstructionLib.simulate.kspace import R2, simulate_scan
from IntraopMRIReconstructionLib.wire.mrd_file import write_mrd
from panels.raw_panel import panel, read

__all__ = ["app", "panel"]


#: Order of the methods in the selector.
METHODS = ("auto", "fft", "homodyne", "pocs", "grappa", "sense", "cg-sense", "l1-wavelet", "tv")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """An accelerated scan of a box, off centre so that a flip would be seen."""
    truth = np.zeros((12, 32, 40), np.float32)
    truth[3:8, 6:20, 8:30] = 1000.0
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    raw = simulate_scan(Image(truth, matrix, name="T1", patient_id="P-1"), "scan-1", coils=4, noise=0.001, sampling=R2)
    write_mrd(tmp_path / "scan.h5", raw.encoding, raw.blocks())
    return tmp_path / "scan.h5"


def test_a_file_becomes_a_volume_with_its_reason(panel: Any, scan: Path) -> None:
    read(panel, scan)
    wait_until(lambda: panel.result is not None, 60, "a reconstruction")
    wait_until(lambda: panel.progress is None, 10, "the progress to end")
    node = panel.parameters.outputVolume
    array = slicer.util.arrayFromVolume(node)
    inside, outside = array[4:7, 8:18, 10:28].mean(), array[:, :, 34:].mean()
    assert inside > 10 * outside
    assert "grappa" in panel.ui.methodReasonLabel.text
    assert "4 coils" in panel.ui.recognisedLabel.text
    assert panel.ui.nextButton.text == "Reconstruct again"


def test_another_method_is_used_on_the_same_scan(panel: Any, scan: Path) -> None:
    read(panel, scan)
    wait_until(lambda: panel.result is not None and not panel.reception.busy, 60, "a reconstruction")
    panel.ui.method.currentIndex = METHODS.index("sense")
    panel.refresh()
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result.method == "sense", 60, "the other method")


def test_one_button_opens_the_source_and_another_closes_it(panel: Any, scan: Path) -> None:
    assert panel.ui.nextButton.text == "Connect"
    assert panel.ui.connectButton.isHidden(), "two of a kind raise the question which"
    assert "from a file if there is none" in panel.ui.whyLabel.text
    read(panel, scan)
    assert panel.ui.connectButton.text == "Close"
    assert not panel.ui.connectButton.isHidden()
    panel.ui.connectButton.click()
    assert panel.ui.connectButton.isHidden()
    assert panel.ui.nextButton.text == "Read file"


def test_a_missing_file_is_asked_for(panel: Any) -> None:
    panel.ui.source.currentIndex = 1
    assert not panel.ui.nextButton.enabled
    assert "Choose" in panel.ui.whyLabel.text


def test_a_file_that_is_none_is_refused_in_words(panel: Any, tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    path.write_bytes(b"not a scan at all")
    read(panel, path)
    wait_until(lambda: panel.problem, 20, "a sentence")
    assert "scan.h5" in panel.ui.whyLabel.text
    assert "Traceback" not in panel.ui.whyLabel.text


def test_no_scanner_is_said(panel: Any) -> None:
    panel.ui.port.value = 1
    panel.ui.nextButton.click()
    assert "127.0.0.1" in panel.ui.whyLabel.text
    assert panel.reception is None


def test_closing_the_scene_ends_the_thread(panel: Any, tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    path.write_bytes(b"nothing")
    read(panel, path)
    slicer.mrmlScene.Clear(0)
    assert panel.reception is None
    assert not [t for t in threading.enumerate() if t.name == "intraop reception"]


@pytest.mark.parametrize("ends", ["dropped", "complete"])
def test_a_preview_is_marked_as_such_and_goes_with_the_scan(panel: Any, scan: Path, ends: str) -> None:
    read(panel, scan)
    wait_until(lambda: panel.result is not None and panel.progress is None, 60, "a reconstruction")
    output, background = panel.parameters.outputVolume, slicer.app.layoutManager().sliceWidget("Red")
    voxels = slicer.util.arrayFromVolume(output).copy()
    panel._take(Previewed(panel.result, 0.43))
    composite = background.mrmlSliceCompositeNode()
    node = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID())
    assert node.GetName().startswith("PREVIEW 43 %")
    assert not node.GetSaveWithScene()
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(output), voxels)
    panel._take(Dropped() if ends == "dropped" else panel.result)
    assert not [n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLVolumeNode") if "PREVIEW" in n.GetName()]
    assert composite.GetBackgroundVolumeID() == output.GetID()


def blind(path: Path, scan: Path) -> Path:
    """The scan without directions, as the generator of ISMRMRD writes files."""
    path.write_bytes(scan.read_bytes())
    with h5py.File(path, "r+") as file:
        table = file["dataset"]["data"][:]
        for name in ("read_dir", "phase_dir", "slice_dir"):
            table["head"][name] = 0.0
        file["dataset"]["data"][:] = table
    return path


def test_without_directions_a_person_may_go_on_and_everything_says_so(panel: Any, scan: Path, tmp_path: Path) -> None:
    read(panel, blind(tmp_path / "blind.h5", scan))
    wait_until(lambda: panel.asked is not None, 20, "the question")
    assert "no directions" in panel.ui.whyLabel.text
    assert panel.reception is None
    assert panel.ui.answerBox.visible
    assert panel.ui.answerBox.currentIndex == 0, "no answer is the default"
    assert not panel.ui.nextButton.enabled
    panel.ui.answerBox.currentIndex = 1
    assert "axial" in panel.ui.answerBox.currentText
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result is not None and not panel.reception.busy, 60, "a reconstruction")
    node = panel.parameters.outputVolume
    assert node.GetName().endswith("(orientation assumed)")
    assert node.GetAttribute(PROVENANCE_ATTRIBUTE + "geometry").startswith("assumed axial")
    assert panel.ui.assumedLabel.visible
    assert "assumed axial" in panel.ui.assumedLabel.text
    assert "assumed axial" in panel.ui.methodReasonLabel.text
    from IntraopMRILib.scene.panels.nodes import imageLater
    from IntraopMRILib.scene.scan_nodes import scanOf

    for use in (lambda: scanOf(node), lambda: imageLater(node, "P-1")()):
        with pytest.raises(SessionError, match="assumed axial"):
            check_placed("it", use().metadata)
    # Neither the same file nor another is read so again, and the name of the volume follows what is in it.
    panel.ui.connectButton.click()
    assert not panel.ui.assumedLabel.visible
    panel.ui.nextButton.click()
    wait_until(lambda: panel.asked is not None, 20, "the question again")
    assert not panel.ui.nextButton.enabled
    panel.ui.recording.currentPath = str(scan)
    assert not panel.ui.answerBox.visible
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result is not None and not panel.reception.busy, 60, "the other file")
    assert not panel.ui.assumedLabel.visible
    assert node.GetName() == "T1"
    assert panel.parameters.outputVolume is node
    assert node.GetAttribute(PROVENANCE_ATTRIBUTE + "geometry") == "from the acquisition headers"


def test_what_else_a_file_leaves_open_is_asked_one_after_the_other(panel: Any, scan: Path, tmp_path: Path) -> None:
    path = blind(tmp_path / "open.h5", scan)
    with h5py.File(path, "r+") as file:
        table = file["dataset"]["data"][:]
        file["dataset"]["data"].resize((2 * len(table),))
        file["dataset"]["data"][: len(table)] = table
        table["head"]["idx"]["set"] = 3
        for row in range(len(table)):
            table["data"][row] = 2 * table["data"][row]
        file["dataset"]["data"][len(table) :] = table
    read(panel, path)
    wait_until(lambda: panel.asked is not None, 20, "the first question")
    assert "2 values of 'set'" in panel.ui.whyLabel.text
    panel.ui.answerBox.currentIndex = 2
    assert panel.ui.answerBox.currentText == "set 3"
    panel.ui.nextButton.click()
    wait_until(lambda: panel.asked is not None, 20, "the second question")
    assert "no directions" in panel.ui.whyLabel.text
    panel.ui.answerBox.currentIndex = 1
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result is not None and not panel.reception.busy, 60, "a reconstruction")
    assert "only set 3 is read" in panel.ui.recognisedLabel.text
    assert f"left out: {len(table)} readouts of other slices" in panel.ui.methodReasonLabel.text


def test_after_a_file_that_cannot_be_read_another_is_chosen_at_once(panel: Any, scan: Path, tmp_path: Path) -> None:
    path = tmp_path / "none.h5"
    path.write_bytes(b"not a scan at all")
    read(panel, path)
    wait_until(lambda: panel.problem, 20, "a sentence")
    assert panel.ui.recording.enabled
    panel.ui.recording.currentPath = str(scan)
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result is not None and not panel.reception.busy, 60, "a reconstruction")
    assert not panel.problem
