"""The reconstruction panel with scans of every kind, from a file and live: what is offered, made and said."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from host.fixtures import app, wait_until
from IntraopMRIReconstructionLib.data import Image
from IntraopMRIReconstructionLib.reconstruct.methods import METHODS as METHODS_TABLE
from IntraopMRIReconstructionLib.simulate import raw_scans
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, object_at
from IntraopMRIReconstructionLib.simulate.metal_scans import metal_scan
from IntraopMRIReconstructionLib.simulate.raw_scans import RawScan, in_small_blocks
from IntraopMRIReconstructionLib.wire.adapters import message_from_image
from IntraopMRIReconstructionLib.wire.mrd_file import write_mrd
from IntraopMRIReconstructionLib.wire.mrd_header import format_header
from IntraopMRIReconstructionLib.wire.mrd_messages import MessageId, TextMessage
from IntraopMRIReconstructionLib.wire.mrd_stream import connect_mrd
from IntraopMRIReconstructionLib.wire.raw_data import message_from_acquisition, messages_from_encoding
from IntraopMRIReconstructionLib.wire.transport import Server
from IntraopMRIReconstructionLib.wire.trust import PROFILES
from panels import raw_panel
from panels.raw_panel import panel

__all__ = ["app", "panel"]

#: Order of the selectors.
MAKES = ["image", "field map", "temperature", "spectral bins", "SEMAC"]
SOURCES = ["scanner", "file", "mrd"]
METHODS = ["auto", *METHODS_TABLE]
#: Qt's role of the flags of an entry, and the names of the attributes that a person or a script reads.
FLAGS_ROLE = 0x00FF
PROVENANCE_ATTRIBUTE, UNIT_ATTRIBUTE = "IntraopMRI.Reconstruction.", "IntraopMRI.Unit"


def read(panel: Any, scan: RawScan, folder: Path, name: str = "scan") -> None:
    path = folder / f"{name}.h5"
    write_mrd(path, scan.encoding, scan.blocks)
    raw_panel.read(panel, path)
    done(panel)


def done(panel: Any) -> None:
    def idle() -> bool:
        return bool(panel.problem) or (
            panel.result is not None and not panel.reception.busy and panel.ui.nextButton.text == "Reconstruct again"
        )

    wait_until(idle, 60, "a result")


def allowed(box: Any, choices: list[Any]) -> set[Any]:
    return {choice for index, choice in enumerate(choices) if box.itemData(index, FLAGS_ROLE) is None}


@pytest.mark.parametrize(
    ("scan", "method", "words"),
    [
        (lambda: raw_scans.radial_scan(48, 4, 80, delays=(0.3, 0.2)), "gridding", "xx 0.3"),
        (lambda: raw_scans.radial_scan(48, 4, 20), "iterative-sense", "leave gaps"),
        (lambda: raw_scans.spiral_scan(48, 4, 12), "gridding", "12 interleaves cover"),
        (lambda: raw_scans.epi_scan(48, 4), "fft", "navigators"),
        (lambda: raw_scans.epi_scan(48, 4, navigators=False), "fft", "entropy"),
    ],
)
def test_a_file_of_every_trajectory(panel: Any, tmp_path: Path, scan: Any, method: str, words: str) -> None:
    read(panel, scan(), tmp_path)
    assert panel.problem == ""
    assert panel.result.method == method
    assert words in panel.ui.methodReasonLabel.text
    node = panel.parameters.outputVolume
    assert node.GetAttribute(PROVENANCE_ATTRIBUTE + "method") == method
    assert len(node.GetAttribute(PROVENANCE_ATTRIBUTE + "input_sha256")) == 64
    array = slicer.util.arrayFromVolume(node)[0]
    at = (np.arange(48) - 24) * (raw_scans.FIELD_MM / 48)
    head = np.abs(object_at(np.stack(np.meshgrid(at, at), axis=-1), HEAD_2D))
    assert np.corrcoef(array.ravel(), head.ravel())[0, 1] > 0.85


def test_only_what_the_data_allow_is_offered(panel: Any, tmp_path: Path) -> None:
    read(panel, raw_scans.radial_scan(32, 4, 60), tmp_path)
    assert allowed(panel.ui.make, MAKES) == {"image"}
    assert allowed(panel.ui.method, METHODS) == {"auto", "gridding", "iterative-sense"}
    assert panel.ui.delays.visible
    assert not panel.ui.ghost.visible
    assert not panel.ui.opposedVolume.visible
    assert not panel.ui.echo.visible
    panel.ui.method.currentIndex = METHODS.index("grappa")
    panel.refresh()
    panel.ui.nextButton.click()
    wait_until(lambda: panel.problem, 20, "a refusal")
    assert "does not reconstruct a radial scan" in panel.ui.whyLabel.text


def test_a_field_map_in_colour_with_its_unit(panel: Any, tmp_path: Path) -> None:
    panel.ui.make.currentIndex = MAKES.index("field map")
    read(panel, raw_scans.multi_echo_scan(48, 4), tmp_path)
    assert allowed(panel.ui.make, MAKES) == {"image", "field map"}
    (node,) = [
        n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetName().endswith("off-resonance")
    ]
    assert node.GetAttribute(UNIT_ATTRIBUTE) == "Hz"
    array = slicer.util.arrayFromVolume(node)
    assert np.isnan(array[0, 0, 0])
    assert 60 < np.nanmax(array) < 150
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node)
    assert "Hz" in legend.GetTitleText()
    assert node.GetDisplayNode().GetApplyThreshold()
    assert panel.parameters.outputVolume is None, "an image chosen before is not written over"
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    assert composite.GetForegroundVolumeID() == node.GetID()
    assert composite.GetBackgroundVolumeID() not in (None, node.GetID())


def heated(panel: Any) -> Any:
    panel.ui.make.currentIndex = MAKES.index("temperature")
    mark = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "heat")
    mark.AddControlPoint(0.0, 60.0, 0.0)
    panel.ui.heatedPlace.setCurrentNode(mark)
    return mark


def volume(ending: str) -> Any:
    found = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if n.GetName().endswith(ending)]
    assert len(found) == 1
    return found[0]


def test_temperature_and_dose_with_what_they_rest_on(panel: Any, tmp_path: Path) -> None:
    heated(panel)
    read(panel, raw_scans.heating_scan(48, 4, 5), tmp_path)
    assert panel.ui.temperatureSection.visible
    assert not panel.ui.correctionsSection.visible
    node = volume("temperature change")
    assert node.GetAttribute(UNIT_ATTRIBUTE) == "°C"
    assert 20 < np.nanmax(slicer.util.arrayFromVolume(node)) < 30
    assert volume("thermal dose (CEM43)").GetAttribute(UNIT_ATTRIBUTE) == "min"
    text = panel.ui.methodReasonLabel.text
    assert "drift removed (°C) 2" in text
    assert "field (T) 1.5" in text
    assert "fat does not shift" in text
    assert "Peak temperature 6" in text
    assert "Volume above 240 CEM43" in text
    panel.ui.heatBaseline.value = 30.0
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result.parameters["baseline_c"] == 30.0, 30, "another temperature before")
    assert "Peak temperature 5" in panel.ui.methodReasonLabel.text
    panel.ui.frame.value = 2
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result.parameters["frame"] == 2, 30, "an earlier frame")
    assert np.nanmax(slicer.util.arrayFromVolume(node)) < 15


def test_another_result_is_not_offered_before_the_last_one_is_shown(panel: Any, tmp_path: Path) -> None:
    write_mrd(tmp_path / "scan.h5", (scan := raw_scans.radial_scan(32, 4, 60)).encoding, scan.blocks)
    raw_panel.read(panel, tmp_path / "scan.h5")
    reception, refresh = panel.reception, panel.refresh
    drain, early = reception.drain, []

    def drain_and_wait() -> Any:
        if found := drain():
            reception._thread.join()
        return found

    def refresh_and_look() -> None:
        refresh()
        early.append(panel.ui.nextButton.text == "Reconstruct again" and not reception._news.empty())

    reception.drain, panel.refresh = drain_and_wait, refresh_and_look
    done(panel)
    assert early
    assert not any(early)


def test_cooling_is_painted_and_what_did_not_change_is_clear(panel: Any, tmp_path: Path) -> None:
    heated(panel)
    read(panel, raw_scans.heating_scan(64, 4, 3, peak_c=-12.0), tmp_path)
    wait_until(lambda: panel.result.parameters["frame"] == 2, 30, "the last frame")
    assert panel.problem == ""
    node = volume("temperature change")
    display = node.GetScalarVolumeDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == pytest.approx((-15.0, 15.0))
    assert display.GetLowerThreshold() < -12

    def shown(value: float) -> tuple[float, ...]:
        share = (value - display.GetWindowLevelMin()) / display.GetWindow()
        colour = [0.0] * 4
        display.GetColorNode().GetColor(round(share * 255), colour)
        return tuple(colour)

    assert shown(-0.5)[3] == shown(0.0)[3] == shown(1.0)[3] == 0
    assert shown(-2.0)[3] == shown(-12.0)[3] == shown(10.0)[3] == 1
    assert shown(-12.0)[2] > 0.9, "cold is blue"
    assert "cooled by up to" in panel.ui.methodReasonLabel.text
    assert "coldest (°C) -1" in panel.ui.methodReasonLabel.text
    assert "equivalent minutes at 43 °C" in panel.ui.methodReasonLabel.toolTip


def test_temperature_without_a_mark_says_so(panel: Any, tmp_path: Path) -> None:
    panel.ui.make.currentIndex = MAKES.index("temperature")
    read(panel, raw_scans.heating_scan(32, 4, 3), tmp_path)
    assert "drift of the field is not corrected" in panel.ui.methodReasonLabel.text
    assert not panel.ui.drift.enabled


def test_a_quantity_that_the_scan_does_not_allow_is_refused(panel: Any, tmp_path: Path) -> None:
    heated(panel)
    read(panel, raw_scans.spiral_scan(32, 2, 8), tmp_path)
    assert "before heating" in panel.ui.whyLabel.text
    panel.ui.make.currentIndex = MAKES.index("image")
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result is not None, 30, "the image instead")
    assert panel.problem == ""


def test_opposite_blips_are_chosen_in_the_scene(panel: Any, tmp_path: Path) -> None:
    read(panel, raw_scans.epi_scan(48, 4, shift_voxels=2.0, blips=-1), tmp_path, "down")
    other = panel.parameters.outputVolume
    panel.ui.connectButton.click()
    panel.parameters.outputVolume = None
    read(panel, raw_scans.epi_scan(48, 4, shift_voxels=2.0), tmp_path, "up")
    plain = slicer.util.arrayFromVolume(panel.parameters.outputVolume).copy()
    assert panel.ui.opposedVolume.visible
    panel.ui.opposedVolume.setCurrentNode(other)
    panel.ui.nextButton.click()
    wait_until(lambda: panel.problem or "opposed blips" in panel.ui.methodReasonLabel.text, 60, "the correction")
    node = panel.parameters.outputVolume
    assert "opposed blips" in node.GetAttribute(PROVENANCE_ATTRIBUTE + "corrections")
    assert not np.allclose(slicer.util.arrayFromVolume(node), plain, atol=0.05)


def test_brightness_is_evened_and_a_foreign_gradient_table_is_refused(panel: Any, tmp_path: Path) -> None:
    read(panel, raw_scans.epi_scan(48, 4), tmp_path)
    panel.ui.brightness.currentIndex = 1
    panel.ui.nextButton.click()
    wait_until(lambda: "bias field" in panel.ui.methodReasonLabel.text, 60, "the correction")
    assert "do not measure on it" in panel.ui.methodReasonLabel.text
    table = tmp_path / "coeff.grad"
    table.write_text("nothing of the kind")
    panel.ui.gradientTable.currentPath = str(table)
    panel.ui.nextButton.click()
    wait_until(lambda: panel.problem, 30, "a refusal")
    assert "coeff.grad" in panel.ui.whyLabel.text


@pytest.fixture
def scanner() -> Iterator[Server]:
    with Server() as server:
        yield server


def connect(panel: Any, scanner: Server) -> None:
    panel.ui.source.currentIndex = 0
    panel.ui.host.text = "127.0.0.1"
    panel.ui.port.value = scanner.port
    panel.ui.nextButton.click()
    assert panel.problem == ""
    assert scanner.wait_for_peer(10.0)


@pytest.mark.parametrize("peer", PROFILES)
def test_a_peer_may_mean_something_else_than_it_says(panel: Any, scanner: Server, peer: str) -> None:
    assert panel.parameters.peer.value == "as sent"
    assert [choice.value for choice in type(panel.parameters.peer)] == list(PROFILES)
    panel.ui.peer.currentIndex = list(PROFILES).index(peer)
    connect(panel, scanner)
    assert not panel.ui.peer.enabled
    lps = np.diag([-2.0, -3.0, 4.0, 1.0])
    lps[:3, 3] = 5.0, 6.0, 7.0
    image = Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), lps, name="scan")
    scanner.send(replace(message_from_image(image), coordinate="LPS"))
    wait_until(lambda: panel.parameters.outputVolume is not None, 20, "the image")
    node = panel.parameters.outputVolume
    meant = lps if PROFILES[peer].image_coordinate == "RAS" else np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), meant, atol=1e-5)
    assert node.GetAttribute(PROVENANCE_ATTRIBUTE + "peer_profile") == peer
    panel.ui.connectButton.click()
    panel.ui.source.currentIndex = SOURCES.index("file")
    assert not panel.ui.peer.visible


def send(scanner: Server, scan: RawScan, lines: int) -> None:
    for message in messages_from_encoding(scan.encoding):
        scanner.send(message)
    for block in in_small_blocks(scan, lines):
        scanner.send(message_from_acquisition(block))


def test_live_radial_frames_fill_one_volume_and_show_their_latency(panel: Any, scanner: Server) -> None:
    scan = raw_scans.radial_scan(48, 4, 21, 4, with_trajectory=False)
    connect(panel, scanner)
    for message in messages_from_encoding(scan.encoding):
        scanner.send(message)
    blocks = list(in_small_blocks(scan, 7))
    for block in blocks[:-1]:
        scanner.send(message_from_acquisition(block))
    wait_until(lambda: panel.result is not None and panel.result.method == "sliding window", 30, "a live frame")
    assert "ms after its last line" in panel.ui.latencyLabel.text
    node = panel.parameters.outputVolume
    scanner.send(message_from_acquisition(blocks[-1]))
    wait_until(lambda: panel.result.method != "sliding window", 30, "the last image")
    assert panel.parameters.outputVolume is node
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 1
    # The scan is complete and the link is open: another method is possible.
    wait_until(lambda: panel.ui.nextButton.text == "Reconstruct again", 10, "the offer")
    panel.ui.method.currentIndex = METHODS.index("gridding")
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result.method == "gridding", 30, "the other method")


def test_live_interleaved_frames(panel: Any, scanner: Server) -> None:
    connect(panel, scanner)
    send(scanner, raw_scans.interleaved_scan(48, 4, 2, 5), 24)
    wait_until(lambda: panel.result is not None and not panel.reception.busy, 30, "frames")
    assert panel.problem == ""
    assert panel.result.method == "grappa"
    assert "neighbouring repetitions" in panel.ui.methodReasonLabel.text


def test_live_thermometry_frame_by_frame(panel: Any, scanner: Server) -> None:
    heated(panel)
    connect(panel, scanner)
    scan = raw_scans.heating_scan(48, 4, 4)
    blocks = list(scan.blocks)
    for message in messages_from_encoding(scan.encoding):
        scanner.send(message)
    for block in blocks[:2]:
        scanner.send(message_from_acquisition(block))
    wait_until(lambda: panel.result is not None and panel.result.parameters["frame"] == 1, 30, "the second frame")
    first = float(np.nanmax(slicer.util.arrayFromVolume(volume("temperature change"))))
    assert 5 < first < 12
    assert "ms after its last line" in panel.ui.latencyLabel.text
    for block in blocks[2:]:
        scanner.send(message_from_acquisition(block))
    wait_until(lambda: panel.result.parameters["frame"] == 3, 30, "the last frame")
    assert float(np.nanmax(slicer.util.arrayFromVolume(volume("temperature change")))) > 2 * first
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 3


@pytest.mark.parametrize("name", ["SimulatedEPI", "SimulatedMultiEchoScan"])
def test_sample_data_are_made_and_chosen(
    panel: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    from types import SimpleNamespace

    from IntraopMRIReconstructionLib.scene import sampledata

    offered = {source["sampleName"]: source for source in slicer.modules.sampleDataSources[sampledata.CATEGORY]}
    offered[name]["customDownloader"](SimpleNamespace(sampleName=name))
    assert panel.parameters.recording.is_file()
    panel.ui.nextButton.click()
    done(panel)
    assert panel.problem == ""
    assert panel.result is not None


def listening(panel: Any) -> tuple[str, int]:
    """Let the panel wait for MRD clients on a free port; where."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    panel.ui.source.currentIndex = SOURCES.index("mrd")
    panel.ui.listenPort.value = port
    assert panel.ui.listenHost.visible
    assert not panel.ui.host.visible
    assert not panel.ui.recording.visible
    assert panel.ui.nextButton.text == "Listen"
    panel.ui.nextButton.click()
    assert panel.problem == ""
    assert panel.ui.whyLabel.text == f"Send the scan to 127.0.0.1:{port}."
    assert not panel.ui.listenPort.enabled
    return "127.0.0.1", port


def test_an_mrd_client_sends_a_scan(panel: Any) -> None:
    address = listening(panel)
    scan = raw_scans.interleaved_scan(48, 4, 1, 1)
    with connect_mrd(*address) as link:
        link.send_scan(scan.encoding, scan.blocks)
        done(panel)
        assert panel.problem == ""
        assert panel.result.method == "fft"
        answer = link.receive()
        assert isinstance(answer, Image)
        assert np.allclose(answer.array, slicer.util.arrayFromVolume(panel.parameters.outputVolume))
    assert panel.ui.nextButton.text == "Reconstruct again"
    panel.ui.connectButton.click()
    assert panel.reception is None
    assert panel.ui.nextButton.text == "Listen"


def test_an_mrd_client_that_goes_in_mid_scan_is_said(panel: Any) -> None:
    address = listening(panel)
    scan = raw_scans.interleaved_scan(48, 4, 1, 1)
    link = connect_mrd(*address)
    link.send(TextMessage(MessageId.HEADER, format_header(scan.encoding).decode()))
    link.close()
    wait_until(lambda: panel.problem, 20, "a sentence")
    assert "the link ended before the scan was closed" in panel.ui.whyLabel.text
    assert panel.reception is not None, "the next client is waited for"


def test_a_port_that_is_taken_is_said(panel: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        panel.ui.source.currentIndex = SOURCES.index("mrd")
        panel.ui.listenPort.value = taken.getsockname()[1]
        panel.ui.nextButton.click()
        assert "choose another port" in panel.ui.whyLabel.text
        assert panel.reception is None


def test_slices_beside_metal(panel: Any, tmp_path: Path) -> None:
    read(panel, metal_scan(48, 2, slices=4, steps=4), tmp_path)
    assert panel.result.method == "SEMAC (fft)"
    assert "4 steps of slice encoding (SEMAC)" in panel.ui.recognisedLabel.text
    assert "view tilted by 27°" in panel.ui.recognisedLabel.text
    assert "whose blur of 2.0 mm was undone" in panel.ui.methodReasonLabel.text
    assert allowed(panel.ui.make, MAKES) == {"image", "SEMAC"}
    assert panel.ui.deblurView.visible
    assert panel.ui.echo.visible
    assert panel.ui.echo.value == -1
    assert "view angle (°) 26.6" in panel.ui.methodReasonLabel.text
    node = panel.parameters.outputVolume
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == 1
    assert node.GetScalarVolumeDisplayNode().GetColorNode().GetName() == "Grey", "an image, not a map"
    assert slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(node) is None
    assert node.GetAttribute(PROVENANCE_ATTRIBUTE + "slice_covered_mm") == "6"
    # One step on its own is possible, and says what it is.
    panel.ui.echo.value = 2
    panel.ui.deblurView.checked = False
    panel.ui.nextButton.click()
    wait_until(lambda: panel.result.method == "fft" and not panel.reception.busy, 30, "the step")
    assert "one of 4 steps of slice encoding alone" in panel.ui.methodReasonLabel.text
    assert "blurred by 2.0 mm" in panel.ui.methodReasonLabel.text


def test_spectral_bins_are_an_image_and_keep_their_field_as_a_map(panel: Any, tmp_path: Path) -> None:
    scan = raw_scans.multi_echo_scan(48, 4, hz_per_mm=(0.0, 0.0), hz_centre=0.0)
    bins = replace(scan, encoding=replace(scan.encoding, metadata={"bin_centres_hz": "-1000 0 1000"}))
    read(panel, bins, tmp_path)
    assert "3 spectral bins" in panel.ui.recognisedLabel.text
    assert panel.result.method == "multi-spectral (fft)"
    assert volume("off-resonance").GetAttribute(UNIT_ATTRIBUTE) == "Hz"
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == panel.parameters.outputVolume.GetID()
    assert "frequency of water" in panel.ui.methodReasonLabel.toolTip


def test_plain_scans_have_no_view_to_sharpen(panel: Any, tmp_path: Path) -> None:
    read(panel, raw_scans.interleaved_scan(32, 2, 1, 1), tmp_path)
    assert not panel.ui.deblurView.visible
