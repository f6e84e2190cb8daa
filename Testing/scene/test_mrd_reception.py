"""MRD clients of the reconstruction panel: the package of the format's authors sends, and hangs up when it likes."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ismrmrd
import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, Image
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.reconstruct import live
from IntraopMRIReconstructionLib.reconstruct.products import Wanted
from IntraopMRIReconstructionLib.reconstruct.result import Reconstruction
from IntraopMRIReconstructionLib.scene import reception as module
from IntraopMRIReconstructionLib.scene.news import Dropped, Failed, News, Progressed, Received, Streamed
from IntraopMRIReconstructionLib.scene.reception import Reception
from IntraopMRIReconstructionLib.simulate.analytic import HEAD_2D, object_at
from IntraopMRIReconstructionLib.simulate.metal_scans import metal_scan
from IntraopMRIReconstructionLib.simulate.raw_scans import FIELD_MM, RawScan, in_small_blocks, interleaved_scan
from IntraopMRIReconstructionLib.wire.mrd_messages import MessageId, TextMessage
from IntraopMRIReconstructionLib.wire.mrd_stream import MrdConnection, connect_mrd
from ismrmrd.serialization import ProtocolDeserializer, ProtocolSerializer
from unit.wire.mrd_peer import Scan

SIZE = 48


@pytest.fixture
def reception() -> Iterator[Reception]:
    receiving = Reception(Wanted(), livePreview=True)
    receiving.serve("127.0.0.1", 0)
    yield receiving
    receiving.close()


def address(reception: Reception) -> tuple[str, int]:
    host, port = reception.address.split(":")
    return host, int(port)


def plain() -> RawScan:
    """One frame of the head with every line."""
    return interleaved_scan(SIZE, 4, acceleration=1, frames=1)


def client(reception: Reception) -> MrdConnection:
    return connect_mrd(*address(reception))


def until(reception: Reception, kind: Any) -> tuple[list[News], Any]:
    seen: list[News] = []
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        for item in reception.drain():
            seen.append(item)
            if isinstance(item, kind):
                return seen, item
        time.sleep(0.005)
    pytest.fail(f"no {kind} but {seen}")


def idle(reception: Reception) -> None:
    deadline = time.monotonic() + 30.0
    while reception.busy and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not reception.busy


def looks_right(image: Image) -> bool:
    at = (np.arange(SIZE) - SIZE // 2) * (FIELD_MM / SIZE)
    head = np.abs(object_at(np.stack(np.meshgrid(at, at), axis=-1), HEAD_2D))
    return float(np.corrcoef(np.asarray(image.array).reshape(SIZE, SIZE).ravel(), head.ravel())[0, 1]) > 0.9


def test_a_scan_becomes_a_volume_and_its_image_goes_back(reception: Reception) -> None:
    scan = plain()
    with client(reception) as link:
        link.send_scan(scan.encoding, in_small_blocks(scan, 8))
        seen, result = until(reception, Reconstruction)
        assert [item.scan_id for item in seen if isinstance(item, Encoding)] == [scan.encoding.scan_id]
        assert [item.fraction for item in seen if isinstance(item, Progressed)]
        assert looks_right(result.image)
        np.testing.assert_allclose(result.image.ras_from_ijk, scan.encoding.ras_from_ijk, atol=1e-3)
        answer = link.receive()
        assert isinstance(answer, Image)
        np.testing.assert_allclose(answer.array, result.image.array)
        np.testing.assert_allclose(answer.ras_from_ijk, result.image.ras_from_ijk, atol=1e-3)
        assert link.receive() == TextMessage(MessageId.CLOSE)
        assert link.receive() is None


def test_clients_one_after_the_other_at_once(reception: Reception) -> None:
    scan = plain()
    for _ in range(4):
        with client(reception) as link:
            link.send_scan(scan.encoding, scan.blocks)
            assert isinstance(link.receive(), Image)
            assert link.receive() == TextMessage(MessageId.CLOSE)
    idle(reception)
    seen = reception.drain()
    assert len([item for item in seen if isinstance(item, Reconstruction)]) == 4
    assert not [item for item in seen if isinstance(item, Failed)]


def test_the_package_of_the_authors_is_such_a_client(reception: Reception) -> None:
    """Its own serializer and deserializer; a point must lie where its header says."""
    scan = Scan(encoded=(32, 32, 1), recon=(32, 32, 1), encoded_fov_mm=(320.0, 320.0, 5.0), recon_fov_mm=(320, 320, 5))
    point = scan.position + scan.axes @ np.array([40.0, -30.0, 0.0])
    header = ismrmrd.xsd.CreateFromDocument(
        scan.header().replace("<patientBirthdate>unknown</patientBirthdate>", "").replace("_step_1>2<", "_step_1>1<")
    )
    with socket.create_connection(address(reception), timeout=20) as sock:
        stream = sock.makefile("wb")
        sender = ProtocolSerializer(stream)
        for item in (ismrmrd.serialization.ConfigFile("default.xml"), header):
            sender.serialize(item)
        for ky in range(32):
            sender.serialize(scan.point_line(point, ky))
        sender.close()
        stream.flush()
        (back,) = [
            item for item in ProtocolDeserializer(sock.makefile("rb")).deserialize() if isinstance(item, ismrmrd.Image)
        ]
    _, result = until(reception, Reconstruction)
    at = np.unravel_index(int(result.image.array.argmax()), result.image.array.shape)[::-1]
    ras = result.image.ras_from_ijk @ np.array([*at, 1.0])
    np.testing.assert_allclose(ras[:3] * (-1, -1, 1), point, atol=1e-3)
    np.testing.assert_allclose(np.squeeze(back.data), np.squeeze(result.image.array))


def test_an_image_that_cannot_be_made_says_what_was_left_out(reception: Reception) -> None:
    """Calibration lines that lie in another encoding are none of this one, but they explain the refusal."""
    scan = Scan(encoded=(32, 32, 1), recon=(32, 32, 1), encoded_fov_mm=(320.0, 320.0, 5.0), recon_fov_mm=(320, 320, 5))
    text = scan.header().replace("<patientBirthdate>unknown</patientBirthdate>", "")
    encoding = text[text.index(" <encoding>") : text.index(" <sequenceParameters>")]
    rng = np.random.default_rng(3)
    with client(reception) as link:
        link.send(TextMessage(MessageId.HEADER, text.replace(encoding, 2 * encoding)))
        stream = io.BytesIO()
        sender = ProtocolSerializer(stream)
        for ky in [*range(0, 32, 2), *range(13, 20, 2)]:
            line = scan.line(rng.normal(size=(2, 32)), kspace_encode_step_1=ky)
            if ky % 2:
                line.encoding_space_ref = 1
                line.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
            sender.serialize(line)
        sender.close()
        link._send([stream.getvalue()])
        _, failed = until(reception, Failed)
    assert "calibration" in failed.text.split(";")[0]
    assert failed.text.endswith("; left out: 4 calibration readouts of other encodings")


def test_a_stream_without_directions_is_refused_without_an_option_that_it_has_not(reception: Reception) -> None:
    scan = Scan(encoded=(16, 16, 1), recon=(16, 16, 1))
    line = scan.point_line(scan.position, 0)
    for name in ("read_dir", "phase_dir", "slice_dir"):
        getattr(line, name)[:] = (0.0, 0.0, 0.0)
    with client(reception) as link:
        link.send(TextMessage(MessageId.HEADER, scan.header()))
        stream = io.BytesIO()
        sender = ProtocolSerializer(stream)
        sender.serialize(line)
        link._send([stream.getvalue()])
        _, failed = until(reception, Failed)
    assert failed.text.endswith("nobody knows how the image lies in the patient")


def test_a_client_that_does_not_wait_for_its_image(reception: Reception) -> None:
    scan = plain()
    with client(reception) as link:
        link.send_scan(scan.encoding, scan.blocks)
    seen, result = until(reception, Reconstruction)
    assert looks_right(result.image)
    idle(reception)
    assert not [item for item in [*seen, *reception.drain()] if isinstance(item, Failed)]


def test_frames_come_one_by_one(reception: Reception) -> None:
    scan = interleaved_scan(SIZE, 4, 2, 4)
    with client(reception) as link:
        link.send_scan(scan.encoding, scan.blocks)
        seen, _ = until(reception, Reconstruction)
    assert [item for item in seen if isinstance(item, Streamed)]


def test_steps_beside_metal_become_one_picture(reception: Reception) -> None:
    scan = metal_scan(SIZE, 2, slices=4, steps=4)
    with client(reception) as link:
        link.send_scan(scan.encoding, scan.blocks)
        seen, result = until(reception, Reconstruction)
    assert result.method == "SEMAC (fft)"
    assert not [item for item in seen if isinstance(item, Failed | Streamed)]


def some(scan: RawScan, share: float) -> tuple[Encoding, list[Acquisition]]:
    blocks = list(in_small_blocks(scan, 4))
    return scan.encoding, blocks[: int(share * len(blocks))]


class Unclosed(MrdConnection):
    """A client that never says that its scan is over."""

    def send(self, message: Any) -> None:
        if getattr(message, "kind", None) is None or message.kind.name != "CLOSE":
            super().send(message)


def unclosed(reception: Reception) -> Unclosed:
    return Unclosed(socket.create_connection(address(reception), timeout=20), "client")


def test_a_link_that_breaks_in_mid_scan_is_said_and_nothing_is_made(reception: Reception) -> None:
    with unclosed(reception) as link:
        link.send_scan(*some(plain(), 0.5))
        until(reception, Progressed)
    seen, failed = until(reception, Failed)
    assert "stopped at" in failed.text
    assert "the link ended before the scan was closed" in failed.text
    assert any(isinstance(item, Dropped) for item in seen)
    assert not [item for item in seen if isinstance(item, Reconstruction)]
    idle(reception)
    with client(reception) as link:
        link.send_scan(plain().encoding, plain().blocks)
        assert looks_right(until(reception, Reconstruction)[1].image)


def test_a_scan_that_is_whole_needs_no_farewell(reception: Reception) -> None:
    with unclosed(reception) as link:
        link.send_scan(plain().encoding, plain().blocks)
        seen, _ = until(reception, Reconstruction)
    idle(reception)
    reception.close()
    assert not [item for item in [*seen, *reception.drain()] if isinstance(item, Failed)]


def test_a_scan_that_is_closed_too_early_says_what_is_missing(reception: Reception) -> None:
    with client(reception) as link:
        link.send_scan(*some(plain(), 0.5))
        _, result = until(reception, (Reconstruction, Failed))
    words = result.text if isinstance(result, Failed) else " ".join(result.warnings) + result.reason
    assert "missing" in words or "partial" in words or "calibration" in words


def test_cancel_in_mid_scan(reception: Reception) -> None:
    encoding, blocks = some(plain(), 1.0)
    with unclosed(reception) as link:
        link.send_scan(encoding, blocks[:6])
        until(reception, Progressed)
        reception.cancel()
        until(reception, Dropped)
        # What else comes of this scan is heard out, so that the scanner goes on.
        link.send_scan(encoding, [])
        assert not reception.busy
    idle(reception)
    seen = reception.drain()
    assert not [item for item in seen if isinstance(item, Reconstruction)]


def test_a_scan_that_stalls(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SCAN_SILENT_S", 0.3)
    with unclosed(reception) as link:
        link.send_scan(*some(plain(), 0.5))
        _, failed = until(reception, Failed)
    assert "no line for" in failed.text


def test_a_client_that_says_nothing_does_not_keep_others_out(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLIENT_SILENT_S", 0.3)
    with client(reception):
        _, failed = until(reception, Failed)
        assert "has said nothing for" in failed.text
    monkeypatch.undo()
    with client(reception) as link:
        link.send_scan(plain().encoding, plain().blocks)
        assert looks_right(until(reception, Reconstruction)[1].image)


def test_a_second_client_is_turned_away_in_words(reception: Reception) -> None:
    with unclosed(reception) as link:
        link.send_scan(*some(plain(), 0.5))
        until(reception, Progressed)
        with client(reception) as other:
            _, failed = until(reception, Failed)
            assert "turned away: another client is connected" in failed.text
            with suppress(WireError):
                assert other.receive() is None
        assert reception.busy, "the first goes on"


def test_another_patient_is_refused(reception: Reception) -> None:
    scan = plain()
    for encoding in (scan.encoding, replace(scan.encoding, patient_id="SOMEBODY ELSE")):
        with client(reception) as link:
            link.send_scan(encoding, scan.blocks)
            while link.receive() is not None:
                pass
    seen, failed = until(reception, Failed)
    assert "check the patient" in failed.text
    assert len([item for item in seen if isinstance(item, Reconstruction)]) == 1
    assert not [item for item in reception.drain() if isinstance(item, Reconstruction)]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "unknown"),
        (b"\xf0\x03" + bytes(2000), "version"),
        (b"\x03\x00\x05\x00\x00\x00hello", "is not XML"),
        (b"\x03\x00\xff\xff\xff\xff", "announces 4294967295 bytes"),
    ],
)
def test_what_is_no_mrd(reception: Reception, sent: bytes, words: str) -> None:
    with socket.create_connection(address(reception), timeout=20) as sock:
        sock.sendall(sent)
        _, failed = until(reception, Failed)
    assert words in failed.text


def test_a_finished_image_is_shown(reception: Reception) -> None:
    image = Image(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.eye(4))
    with client(reception) as link:
        link.send(image)
        _, got = until(reception, Received)
    np.testing.assert_array_equal(got.image.array, image.array)


def test_a_port_that_is_taken_is_said(reception: Reception) -> None:
    other = Reception(Wanted(), livePreview=True)
    with pytest.raises(WireError, match="choose another port"):
        other.serve(*address(reception))


def test_closing_in_mid_scan_ends_every_thread(reception: Reception) -> None:
    with unclosed(reception) as link:
        link.send_scan(*some(plain(), 0.5))
        until(reception, Progressed)
        reception.close()
    assert not [t for t in threading.enumerate() if t.name.startswith(("intraop reception", "mrd"))]


def test_stream_bytes_of_the_package(reception: Reception) -> None:
    """A client that sends all in one piece and leaves: the end of the stream is no fault."""
    scan = Scan(encoded=(16, 16, 1), recon=(16, 16, 1))
    stream = io.BytesIO()
    serializer = ProtocolSerializer(stream)
    serializer.serialize(
        ismrmrd.xsd.CreateFromDocument(scan.header().replace("<patientBirthdate>unknown</patientBirthdate>", ""))
    )
    for ky in range(16):
        serializer.serialize(scan.point_line(scan.position, ky))
    serializer.close()
    with socket.create_connection(address(reception), timeout=20) as sock:
        sock.sendall(stream.getvalue())
        sock.shutdown(socket.SHUT_WR)
        _, result = until(reception, (Reconstruction, Failed))
    assert isinstance(result, Reconstruction)
