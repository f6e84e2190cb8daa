"""Settings of the method in the reconstruction panel: live where scan and method use them, and in the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Acquisition, LineFlag
from IntraopMRIReconstructionLib.reconstruct.methods import METHODS as METHODS_TABLE
from IntraopMRIReconstructionLib.scene.attributes import PROVENANCE_ATTRIBUTE
from IntraopMRIReconstructionLib.simulate import raw_scans
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan
from IntraopMRIReconstructionLib.wire.mrd_file import write_mrd
from panels import raw_panel
from panels.raw_panel import panel

__all__ = ["app", "panel"]

METHODS = ["auto", *METHODS_TABLE]
COILS, COMPLETION = ["rss", "walsh", "inati", "espirit"], ["auto", "homodyne", "pocs", "none"]
SETTINGS = ("coils", "completion", "iterations", "weight", "snrUnits")


def scan_of(first: int = 0, noise: bool = False) -> RawScan:
    """A slice from line ``first`` of 48 on, with noise lines when ``noise``."""
    scan = raw_scans.interleaved_scan(48, 4, 1, 1)
    (block,) = scan.blocks
    taken = replace(block, samples=block.samples[first:], ky=block.ky[first:], kz=block.kz[first:])
    rng = np.random.default_rng(3)
    shape = (8, *block.samples.shape[1:])
    sigma = np.float32(0.005)
    samples = sigma * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    flags = np.full(8, int(LineFlag.NOISE), np.uint32)
    nothing = np.zeros(8, np.int32)
    before = Acquisition(scan.encoding.scan_id, samples, nothing, nothing, flags)
    return replace(scan, blocks=(before, taken) if noise else (taken,))


def read(panel: Any, scan: RawScan, folder: Path) -> None:
    path = folder / f"{scan.encoding.scan_id}.h5"
    write_mrd(path, scan.encoding, scan.blocks)
    raw_panel.read(panel, path)
    wait(panel)


def wait(panel: Any) -> None:
    def idle() -> bool:
        told = panel.result is not None or panel.problem
        return bool(told) and not panel.reception.busy and panel.ui.nextButton.text == "Reconstruct again"

    wait_until(idle, 60, "a result")


def again(panel: Any) -> str:
    """What was done, in the panel; the node and the library say the same."""
    before = panel.result
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result is not before or panel.problem, 60, "another result")
    wait(panel)
    said = panel.parameters.outputVolume.GetAttribute(PROVENANCE_ATTRIBUTE + "parameters")
    assert said == panel.result.provenance["parameters"]
    return str(said)


def live(panel: Any) -> set[str]:
    return {name for name in SETTINGS if getattr(panel.ui, name).enabled}


def test_everything_is_automatic_until_a_person_says_otherwise(panel: Any, tmp_path: Path) -> None:
    assert live(panel) == set(SETTINGS), "nothing is known yet"
    assert panel.ui.settingsSection.collapsed
    assert panel.ui.iterations.text == panel.ui.weight.text == "automatic"
    read(panel, scan_of(), tmp_path)
    assert live(panel) == {"coils"}
    panel.ui.method.currentIndex = METHODS.index("tv")
    assert live(panel) == {"iterations", "weight"}
    said = again(panel)
    assert "weight=0.0035" in said
    assert "iterations=1," not in said
    panel.ui.method.currentIndex = METHODS.index("sense")
    assert live(panel) == set()


@pytest.mark.parametrize("coils", COILS[1:])
def test_coils(panel: Any, tmp_path: Path, coils: str) -> None:
    read(panel, scan_of(), tmp_path)
    plain = slicer.util.arrayFromVolume(panel.parameters.outputVolume).copy()
    panel.ui.coils.currentIndex = COILS.index(coils)
    assert f"combination={coils}" in again(panel)
    assert f"combination {coils}" in panel.ui.methodReasonLabel.text
    assert not np.allclose(slicer.util.arrayFromVolume(panel.parameters.outputVolume), plain, rtol=1e-3)


def test_iterations_and_weight(panel: Any, tmp_path: Path) -> None:
    read(panel, scan_of(), tmp_path)
    panel.ui.method.currentIndex = METHODS.index("tv")
    panel.ui.iterations.value = 3
    panel.ui.weight.value = 0.02
    said = again(panel)
    assert "iterations=3" in said
    assert "weight=0.02," in said
    assert "weight 0.02" in panel.ui.methodReasonLabel.text
    smooth = slicer.util.arrayFromVolume(panel.parameters.outputVolume).copy()
    panel.ui.weight.value = 0.0
    assert "weight=0.0," in again(panel)
    assert slicer.util.arrayFromVolume(panel.parameters.outputVolume)[0, :4].std() > smooth[0, :4].std()


def test_a_missing_side(panel: Any, tmp_path: Path) -> None:
    read(panel, scan_of(first=18), tmp_path)
    assert panel.result.method == "homodyne"
    assert live(panel) == {"completion"}
    panel.ui.completion.currentIndex = COMPLETION.index("pocs")
    assert "partial_fourier=pocs" in again(panel)
    assert panel.result.method == "pocs"
    assert "chosen by hand" in panel.ui.methodReasonLabel.text
    panel.ui.completion.currentIndex = COMPLETION.index("none")
    assert "partial_fourier" not in again(panel)
    assert panel.result.method == "fft"
    assert "the image is blurred" in panel.ui.methodReasonLabel.text
    assert live(panel) == {"completion", "coils"}, "it can be completed again"
    panel.ui.completion.currentIndex = 0
    again(panel)
    assert panel.result.method == "homodyne"


def test_snr_units(panel: Any, tmp_path: Path) -> None:
    read(panel, scan_of(noise=True), tmp_path)
    assert live(panel) == {"coils", "snrUnits"}
    panel.ui.snrUnits.checked = True
    assert "units=SNR" in again(panel)
    assert "units SNR" in panel.ui.methodReasonLabel.text
    array = slicer.util.arrayFromVolume(panel.parameters.outputVolume)
    assert 1.0 < np.median(array[0, :4, :4]) < 5.0, "air of four coils: the noise itself"
    assert array.max() > 50
    panel.ui.method.currentIndex = METHODS.index("l1-wavelet")
    assert panel.ui.snrUnits.enabled, "what is refused can be taken away"
    assert "not possible here" in panel.ui.snrUnits.text
    panel.ui.nextButton.click()
    wait_until(lambda: panel.problem, 30, "a refusal")
    assert "use fft, sense or grappa for SNR units" in panel.ui.whyLabel.text
    panel.ui.snrUnits.checked = False
    assert not panel.ui.snrUnits.enabled


def test_snr_units_without_noise_lines_are_refused(panel: Any, tmp_path: Path) -> None:
    panel.ui.snrUnits.checked = True
    read(panel, scan_of(), tmp_path)
    assert "send noise lines" in panel.ui.whyLabel.text
    assert panel.result is None
    panel.ui.snrUnits.checked = False
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result is not None, 30, "the image")
    assert not panel.ui.snrUnits.enabled


def test_the_offer_follows_a_thread_that_ends_after_its_last_news(panel: Any, tmp_path: Path) -> None:
    read(panel, scan_of(), tmp_path)

    class Ending:
        busy = True

        def __getattr__(self, name: str) -> Any:
            return getattr(reception, name)

    reception, ending = panel.reception, Ending()
    panel.reception = ending
    wait_until(lambda: panel.ui.nextButton.text != "Reconstruct again", 10, "the thread to be noticed")
    ending.busy = False
    wait_until(lambda: panel.ui.nextButton.text == "Reconstruct again", 10, "the offer")


def test_spokes_and_quantities_use_less(panel: Any, tmp_path: Path) -> None:
    read(panel, raw_scans.radial_scan(32, 4, 20), tmp_path)
    assert panel.result.method == "iterative-sense"
    assert live(panel) == {"iterations"}
    assert panel.ui.delays.visible
    panel.ui.iterations.value = 2
    assert "iterations=2" in again(panel)
    panel.ui.connectButton.click()
    panel.ui.make.currentIndex = 1
    read(panel, raw_scans.multi_echo_scan(32, 4), tmp_path)
    assert live(panel) <= {"iterations"}


def test_both_of_two_that_are_compared_say_how_they_were_made(panel: Any, tmp_path: Path) -> None:
    read(panel, scan_of(), tmp_path)
    first = panel.parameters.outputVolume
    panel.parameters.outputVolume = None
    panel.ui.coils.currentIndex = COILS.index("inati")
    again(panel)
    panel.ui.comparisonVolume.setCurrentNode(first)
    lines = panel.ui.comparedLabel.text.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("Result: fft")
    assert "combination=inati" in lines[0]
    assert lines[1].startswith("With: fft")
    assert "combination=rss" in lines[1]
    panel.ui.comparisonVolume.setCurrentNode(None)
    assert panel.ui.comparedLabel.text == ""


def test_choices_are_kept_with_the_scene(panel: Any) -> None:
    panel.ui.weight.value = 0.01
    panel.ui.completion.currentIndex = COMPLETION.index("pocs")
    panel.exit()
    panel.enter()
    assert panel.ui.weight.value == pytest.approx(0.01)
    assert panel.parameters.completion.value == "pocs"
