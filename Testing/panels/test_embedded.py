"""The reconstruction panel inside page 2 of the session panel: the same panel, made when it is opened."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.simulate.kspace import FULL, simulate_scan
from IntraopMRIReconstructionLib.wire.mrd_file import write_mrd
from panels.raw_panel import read

__all__ = ["app"]


@pytest.fixture
def page(app: Any) -> Any:
    slicer.util.selectModule("IntraopMRI")
    panel = slicer.util.getModuleWidget("IntraopMRI").panel
    found = next(p for phase, p in panel.pages.items() if phase.name == "CONNECT")
    panel.open(found.phase)
    found.ui.rawDataSection.collapsed = False
    yield found
    found.ui.rawDataSection.collapsed = True


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    truth = np.zeros((8, 32, 32), np.float32)
    truth[2:6, 8:20, 8:24] = 1000.0
    scan = simulate_scan(
        Image(truth, np.diag([2.0, 2.0, 2.0, 1.0]), name="T1", patient_id="P-2"), "scan", coils=2, sampling=FULL
    )
    write_mrd(tmp_path / "scan.h5", scan.encoding, scan.blocks())
    return tmp_path / "scan.h5"


def test_a_recording_is_reconstructed_beside_the_session(page: Any, recording: Path) -> None:
    inner = page.rawData.panel
    assert inner is not None
    read(inner, recording)
    wait_until(lambda: inner.result is not None and inner.parameters.outputVolume is not None, 60, "the volume")
    assert slicer.util.arrayFromVolume(inner.parameters.outputVolume).shape == (8, 32, 32)
    assert page.parameters.preopVolume is not inner.parameters.outputVolume, "the session chooses by itself"
    assert inner.ui.nextButton.styleSheet == "", "one action is prominent: the session's"


def test_it_follows_the_scene_only_while_it_is_seen(page: Any) -> None:
    inner = page.rawData.panel
    assert inner.parameters is not None
    page.panel.open(next(phase for phase in page.panel.pages if phase.name == "CASE"))
    assert inner.parameters is None
    page.panel.open(page.phase)
    assert inner.parameters is not None
    slicer.util.selectModule("IntraopMRIReconstruction")
    assert inner.parameters is None
    slicer.util.selectModule("IntraopMRI")
    assert inner.parameters is not None
    page.ui.rawDataSection.collapsed = True
    assert inner.parameters is None
    assert page.rawData.panel is inner, "it is made once"


def test_a_closed_scene_and_a_reload_leave_nothing_of_it(page: Any, tmp_path: Path) -> None:
    inner = page.rawData.panel
    (tmp_path / "scan.h5").write_bytes(b"nothing")
    read(inner, tmp_path / "scan.h5")
    slicer.mrmlScene.Clear(0)
    assert not inner.Observations
    assert inner.reception is None
    page.panel.open(page.phase)
    again = page.rawData.panel
    assert again is not None
    assert again is not inner, "the new scene has a new one, since the section is open"
    slicer.util.getModuleWidget("IntraopMRI").onReload()
    assert not again.Observations
    wait_until(lambda: not [t for t in threading.enumerate() if t.name == "intraop reception"], 10, "the thread")
