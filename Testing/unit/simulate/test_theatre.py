"""The servers as processes: what arrives through our transport and through pyigtl, and how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.geometry import apply, invert
from IntraopMRIReconstructionLib.simulate.case_files import read_pointer, read_scan
from IntraopMRIReconstructionLib.simulate.phantom import CONTRAST, NATIVE
from IntraopMRIReconstructionLib.simulate.spine import SPINE
from IntraopMRIReconstructionLib.simulate.theatre import Theatre
from IntraopMRIReconstructionLib.simulate.tracker import PARKED_MM, PointerPath
from IntraopMRIReconstructionLib.wire.adapters import image_from_message, poses_from_message
from IntraopMRIReconstructionLib.wire.messages_array import ImageMessage
from IntraopMRIReconstructionLib.wire.messages_text import StatusMessage, StringMessage
from IntraopMRIReconstructionLib.wire.raw_data import RawDataReader
from IntraopMRIReconstructionLib.wire.scanner_control import ScannerControl, ScannerState
from IntraopMRIReconstructionLib.wire.transport import Client
from scipy import fft

ANSWER_S = 60.0


@pytest.fixture(scope="module")
def theatre(case_folder: Path) -> Iterator[Theatre]:
    with Theatre(case_folder, options={"scanner": ["--coils", "4"]}) as running:
        yield running


def until_status(client: Client, text: str) -> list:
    """All messages until a STATUS says ``text``."""
    found = []
    while True:
        received = client.expect(ANSWER_S)
        found.append(received)
        if isinstance(received.message, StatusMessage) and received.message.text == text:
            return found


def test_scanner_sends_all_scans_of_the_case(theatre: Theatre, case_folder: Path) -> None:
    with Client(port=theatre.ports["scanner"]) as client:
        reader, encodings, blocks = RawDataReader("SIM-7"), [], []
        for received in until_status(client, f"{SPINE}: done"):
            item = reader.feed(received.message, received)
            if isinstance(item, Encoding):
                encodings.append(item)
            elif isinstance(item, Acquisition):
                blocks.append(item)
    assert [encoding.protocol for encoding in encodings] == [NATIVE, CONTRAST, SPINE]
    assert [encoding.metadata["contrast_agent"] for encoding in encodings] == ["no", "yes", "no"]
    for encoding in encodings:
        clean = read_scan(case_folder, encoding.protocol)
        assert encoding.ras_from_ijk == pytest.approx(clean.ras_from_ijk)
        kspace = np.zeros((4, *encoding.encoded_matrix), np.complex64)
        for block in blocks:
            if block.scan_id == encoding.scan_id:
                kspace[:, block.kz, block.ky] = block.samples.transpose(1, 0, 2)
        axes = (1, 2, 3)
        coils = fft.fftshift(fft.ifftn(fft.ifftshift(kspace, axes), axes=axes, norm="ortho"), axes)
        bright = clean.array > 400
        middle = tuple(slice(n // 4, -n // 4) for n in clean.array.shape)
        rss = np.linalg.norm(coils, axis=0)[middle][bright[middle]]
        assert np.corrcoef(rss, clean.array[middle][bright[middle]])[0, 1] > 0.3
        assert (np.linalg.norm(coils, axis=0)[clean.array < 1]).mean() < 0.2 * rss.mean()


def test_scanner_obeys_commands(theatre: Theatre) -> None:
    with Client(port=theatre.ports["scanner"]) as client:
        until_status(client, f"{SPINE}: done")
        for number, (text, answer, code) in enumerate(
            [
                ("START_UP", "OK", 1),
                ("DANCE", "'DANCE' is not understood; use START_UP", 12),
                ("START_SEQUENCE PET", "there is no scan 'PET'; choose one of T1 native", 4),
                (f"START_SEQUENCE {SPINE}", "OK", 1),
            ]
        ):
            client.send(StringMessage(device=f"CMD_{number}", text=text))
            reply = client.expect(ANSWER_S, "STRING", f"ACK_{number}").message
            assert isinstance(reply, StringMessage)
            assert reply.text.startswith(answer)
            word = text.partition(" ")[0]
            status = client.expect(ANSWER_S, "STATUS", "Scanner" if word == "DANCE" else word).message
            assert isinstance(status, StatusMessage)
            assert status.code == code
        until_status(client, f"{SPINE}: scanning")
        client.send(StringMessage(device="CMD_9", text="STOP_SEQUENCE"))
        assert isinstance(client.expect(ANSWER_S, "STRING", "ACK_9").message, StringMessage)


def test_scanner_is_understood_by_the_scanner_control(theatre: Theatre) -> None:
    with Client(port=theatre.ports["scanner"]) as client:
        until_status(client, f"{SPINE}: done")
        control = ScannerControl(client.send)
        for order, wanted in (
            (control.start_up, ScannerState.READY),
            (control.start, ScannerState.SCANNING),
            (control.stop, ScannerState.READY),
        ):
            order()
            while control.state is not wanted:
                control.on_message(client.expect(ANSWER_S).message)
            assert control.confirmed


def test_scanner_sends_finished_images(case_folder: Path) -> None:
    with (
        Theatre(case_folder, servers=("scanner",), options={"scanner": ["--send", "images"]}) as theatre,
        Client(port=theatre.ports["scanner"]) as client,
    ):
        messages = [r.message for r in until_status(client, f"{SPINE}: done")]
    images = [image_from_message(message) for message in messages if isinstance(message, ImageMessage)]
    assert [image.name for image in images] == [NATIVE, CONTRAST, SPINE]
    clean = read_scan(case_folder, CONTRAST)
    assert images[1].patient_id == "SIM-7"
    assert images[1].ras_from_ijk == pytest.approx(clean.ras_from_ijk, abs=1e-3)
    assert np.corrcoef(images[1].array.ravel(), clean.array.ravel())[0, 1] > 0.98


def test_pointer_goes_where_the_path_says(theatre: Theatre, case_folder: Path) -> None:
    stops, shaft = read_pointer(case_folder)
    path = PointerPath(stops, shaft)
    with Client(port=theatre.ports["tracker"]) as client:
        poses = [poses_from_message(client.expect(ANSWER_S, "TRANSFORM", "Pointer").message)[0] for _ in range(5)]
    parked = np.asarray(stops[0].tip_ras_mm) + PARKED_MM * shaft
    for pose in poses:
        assert pose.ras_from_tool[:3, 2] == pytest.approx(shaft, abs=1e-5)
        offset = pose.tip_ras_mm - parked
        assert np.linalg.norm(offset - shaft * (shaft @ offset)) < 1e-3
        assert -PARKED_MM - 1e-3 <= shaft @ offset <= 1e-3
    assert path.period_s > sum(stop.dwell_s for stop in stops)


def test_pointer_rests_at_every_stop_and_says_so(case_folder: Path) -> None:
    stops, shaft = read_pointer(case_folder)
    path = PointerPath(stops, shaft)
    seen: dict[str, np.ndarray] = {}
    last = path.at(0.0)[0][:3, 3]
    for time_s in np.arange(0.0, path.period_s, 0.02):
        matrix, name = path.at(time_s)
        assert np.linalg.norm(matrix[:3, 3] - last) < 1.0  # no jumps
        last = matrix[:3, 3]
        if name:
            seen[name] = matrix[:3, 3]
    assert list(seen) == [stop.name for stop in stops]
    for stop in stops:
        assert seen[stop.name] == pytest.approx(stop.tip_ras_mm)
    assert path.at(0.0)[0] == pytest.approx(path.at(path.period_s)[0])


def test_pyigtl_hears_the_pointer_too(theatre: Theatre, case_folder: Path) -> None:
    pyigtl = pytest.importorskip("pyigtl")
    _, shaft = read_pointer(case_folder)
    client = pyigtl.OpenIGTLinkClient("127.0.0.1", theatre.ports["tracker"])
    try:
        message = client.wait_for_message("Pointer", timeout=ANSWER_S)
        assert message.matrix[:3, 2] == pytest.approx(shaft, abs=1e-5)
    finally:
        client.stop()


def test_live_slices_lie_where_they_were_cut(theatre: Theatre, case_folder: Path) -> None:
    volume = read_scan(case_folder, CONTRAST)
    with Client(port=theatre.ports["live"], latest={"IMAGE"}) as client:
        message = client.expect(ANSWER_S, "IMAGE", "Live2D").message
    assert isinstance(message, ImageMessage)
    assert message.coordinate == "LPS"
    frame = image_from_message(message)
    k = apply(invert(volume.ras_from_ijk), frame.ras_from_ijk[:3, 3])
    assert k == pytest.approx([0, 0, round(k[2])], abs=1e-3)
    assert frame.array.shape == (1, *volume.array.shape[1:])
    assert np.corrcoef(frame.array.ravel(), volume.array[round(k[2])].ravel())[0, 1] > 0.95


def test_nothing_is_left_running(case_folder: Path) -> None:
    with Theatre(case_folder, servers=("tracker",)) as theatre:
        assert theatre.alive("tracker")
        port = theatre.ports["tracker"]
    assert not theatre.alive("tracker")
    with pytest.raises(WireError, match="nothing listens"), Client(port=port):
        pass


@pytest.mark.parametrize("name", ["scanner", "tracker", "live"])
def test_servers_end_on_a_signal_and_with_their_parent(case_folder: Path, name: str) -> None:
    command = [sys.executable, "-m", f"IntraopMRIReconstructionLib.simulate.{name}", "--case", str(case_folder)]

    def start(*options: str) -> subprocess.Popen[bytes]:
        pipe, silent = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen([*command, *options], env=environment, stdin=pipe, stdout=pipe, stderr=silent)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    orphan, signalled = start("--with-parent"), start()
    try:
        for process in (orphan, signalled):
            assert process.stdout is not None
            assert b'"port"' in process.stdout.readline()
        assert orphan.stdin is not None
        orphan.stdin.close()
        signalled.send_signal(signal.SIGTERM)
        assert orphan.wait(ANSWER_S) == 0
        assert signalled.wait(ANSWER_S) == 0
    finally:
        for process in (orphan, signalled):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def test_a_server_that_cannot_start_says_why(tmp_path: Path, case_folder: Path, theatre: Theatre) -> None:
    with pytest.raises(WireError, match=r"scanner did not start: error: .* holds no scans to serve; make a case"):
        Theatre(tmp_path, servers=("scanner",)).__enter__()
    with pytest.raises(WireError, match=r"tracker did not start: error: there is no pointer.json"):
        Theatre(tmp_path, servers=("tracker",)).__enter__()
    taken = str(theatre.ports["live"])
    with pytest.raises(WireError, match=f"cannot listen on .*{taken}.*; choose another port"):
        Theatre(case_folder, servers=("live",), options={"live": ["--port", taken]}).__enter__()
    with pytest.raises(WireError, match="there is no server named bar; choose from scanner"):
        Theatre(case_folder, servers=("bar",))


def test_all_threads_of_the_launcher_end(case_folder: Path) -> None:
    before = threading.active_count()
    with Theatre(case_folder, servers=("tracker", "live")):
        pass
    assert threading.active_count() <= before
