"""The reconstruction panel alone: an ISMRMRD file in, a volume with method and reason out; errors in words."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.scene.news import Dropped, Previewed
from IntraopMRIReconstructionLib.simulate.kspace import R2, simulate_scan
from IntraopMRIReconstructionLib.wire.mrd_file import write_mrd

__all__ = ["app"]


@pytest.fixture
def panel(app: Any) -> Any:
    slicer.util.selectModule("IntraopMRIReconstruction")
    return slicer.util.getModuleWidget("IntraopMRIReconstruction").panel


#: Order of the methods in the selector.
METHODS = ("auto", "fft", "homodyne", "pocs", "grappa", "sense", "cg-sense", "l1-wavelet", "tv")


def read(panel: Any, path: Path) -> None:
    panel.ui.source.currentIndex = 1
    panel.ui.recording.currentPath = str(path)
    panel.ui.nextButton.click()


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
