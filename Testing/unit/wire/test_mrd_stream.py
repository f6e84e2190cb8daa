"""The MRD streaming protocol against the ismrmrd package as peer, both ways, and against peers that mean harm."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ismrmrd
import numpy as np
import pytest
from IntraopMRIReconstructionLib.data import Acquisition, Encoding, Image
from IntraopMRIReconstructionLib.errors import DataError, IntraopError, WireError
from IntraopMRIReconstructionLib.geometry import RAS_FROM_LPS
from IntraopMRIReconstructionLib.wire.mrd_file import read_mrd
from IntraopMRIReconstructionLib.wire.mrd_live import receive_scan
from IntraopMRIReconstructionLib.wire.mrd_messages import MessageId, MrdLimits, TextMessage, Waveform, read_message
from IntraopMRIReconstructionLib.wire.mrd_scan import MrdOptions
from IntraopMRIReconstructionLib.wire.mrd_stream import MrdConnection, MrdServer, connect_mrd
from IntraopMRIReconstructionLib.wire.recorder import Direction, Recorder, Recording
from ismrmrd.serialization import ConfigFile, ConfigText, ProtocolDeserializer, ProtocolSerializer
from unit.wire.mrd_peer import Scan

PATIENT = MrdLimits(idle_s=20.0, message_s=20.0)
HASTY = MrdLimits(
    text_bytes=10_000,
    acquisition_bytes=100_000,
    image_bytes=100_000,
    waveform_bytes=10_000,
    idle_s=20.0,
    message_s=0.3,
    slowest_bytes_per_s=1e9,
)


def stream_bytes(*items: object, close: bool = True) -> bytes:
    """What the package's own serializer sends."""
    stream = io.BytesIO()
    serializer = ProtocolSerializer(stream)
    for item in items:
        serializer.serialize(item)
    if close:
        serializer.close()
    return stream.getvalue()


def header_of(scan: Scan) -> ismrmrd.xsd.ismrmrdHeader:
    return ismrmrd.xsd.CreateFromDocument(scan.header().replace("<patientBirthdate>unknown</patientBirthdate>", ""))


@contextmanager
def linked(
    limits: MrdLimits = PATIENT, recorder: Recorder | None = None
) -> Iterator[tuple[socket.socket, MrdConnection]]:
    """A bare socket of a peer, and our end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=20)
        ours, _ = listener.accept()
    with theirs, MrdConnection(ours, "mrd test", limits, recorder) as connection:
        yield theirs, connection


class Sender(threading.Thread):
    """Sends bytes and hangs up, so that a test that reads cannot block it."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        super().__init__(daemon=True)
        self._sock, self._data = sock, data
        self.start()

    def run(self) -> None:
        with suppress(OSError):  # our end may hang up first
            self._sock.sendall(self._data)
            self._sock.shutdown(socket.SHUT_WR)


def received(data: bytes, options: MrdOptions | None = None, limits: MrdLimits = PATIENT, at_once: int = 64) -> list:
    with linked(limits) as (theirs, connection):
        sender = Sender(theirs, data)
        items = list(receive_scan(connection, options, at_once))
        sender.join()
        return items


def stack_lines(scan: Scan, slices: int, order: tuple[int, ...]) -> list[ismrmrd.Acquisition]:
    rng = np.random.default_rng(7)
    lines = []
    for ky in range(16):
        for number in range(slices):
            samples = rng.normal(size=(2, 32)) + 1j * rng.normal(size=(2, 32))
            at = scan.position + scan.axes[:, 2] * 6.0 * order[number]
            lines.append(scan.line(samples, kspace_encode_step_1=ky, slice=number, position=at))
    return lines


@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_a_live_scan_is_the_same_as_its_file(tmp_path: Path, directions: np.ndarray, at_once: int) -> None:
    scan = Scan(axes=np.asarray(RAS_FROM_LPS[:3, :3] @ directions), limits={"slice": (0, 2, 0)})
    noise = scan.line(np.ones((2, 24)), flags=[ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    lines = [noise, *stack_lines(scan, 3, (0, 2, 1))]
    stored = read_mrd(scan.write(tmp_path / "a.h5", lines))
    data = stream_bytes(ConfigFile("default.xml"), ConfigText("<a/>"), header_of(scan), *lines, "that was it")
    items = received(data, at_once=at_once)
    texts = [item for item in items if isinstance(item, TextMessage)]
    assert texts == [
        TextMessage(MessageId.CONFIG_FILE, "default.xml"),
        TextMessage(MessageId.CONFIG_TEXT, "<a/>"),
        TextMessage(MessageId.TEXT, "that was it"),
    ]
    (encoding,) = [item for item in items if isinstance(item, Encoding)]
    np.testing.assert_array_equal(encoding.ras_from_ijk, stored.encoding.ras_from_ijk)
    assert (encoding.encoded_matrix, encoding.scan_id) == (stored.encoding.encoded_matrix, "M1")
    blocks = [item for item in items if isinstance(item, Acquisition)]
    assert [block.last for block in blocks] == [False] * (len(blocks) - 1) + [True]
    assert all(block.received_monotonic_s is not None and block.received_utc_s is not None for block in blocks)
    for width in (24, 32):
        live = [block for block in blocks if block.samples.shape[2] == width and len(block.ky)]
        filed = [block for block in stored.acquisitions if block.samples.shape[2] == width]
        for name in ("samples", "ky", "kz", "flags"):
            joined = np.concatenate([getattr(block, name) for block in live])
            np.testing.assert_array_equal(joined, np.concatenate([getattr(block, name) for block in filed]))


@pytest.mark.parametrize("counter", ["phase", "set"])
@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_of_several_phases_or_sets_the_first_is_read_and_the_others_are_counted(counter: str, at_once: int) -> None:
    scan = Scan()
    lines = [
        scan.line(np.full((2, 32), number), kspace_encode_step_1=step, **{counter: number})  # type: ignore[arg-type]
        for number in (3, 4)
        for step in range(16)
    ]
    dummy = scan.line(flags=[ismrmrd.ACQ_IS_DUMMYSCAN_DATA])
    items = received(stream_bytes(header_of(scan), dummy, *lines), at_once=at_once)
    blocks = [item for item in items if isinstance(item, Acquisition)]
    samples = np.concatenate([block.samples for block in blocks if len(block.ky)])
    assert len(samples) == 16
    np.testing.assert_array_equal(samples, 3)
    counted = sum((Counter(block.left_out) for block in blocks), Counter[str]())
    assert counted == {"readouts of other slices, phases or sets": 16, "dummy scan readouts": 1}


def test_what_we_send_the_package_reads(directions: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3] = directions * (2.0, 2.0, 4.0)
    affine[:3, 3] = (5.0, 6.0, 7.0)
    encoding = Encoding("s", "cartesian", (8, 6, 32), (8, 6, 16), (32, 12, 64), (32, 12, 32), 3, affine)
    rng = np.random.default_rng(1)
    samples = (rng.normal(size=(48, 3, 32)) + 1j * rng.normal(size=(48, 3, 32))).astype(np.complex64)
    ky, kz = (np.arange(48, dtype=np.int32) % 6, np.arange(48, dtype=np.int32) // 6)
    with linked() as (theirs, connection):
        sending = threading.Thread(
            target=connection.send_scan, args=(encoding, [Acquisition("s", samples, ky, kz, last=True)]), daemon=True
        )
        sending.start()
        config, header, *lines = ProtocolDeserializer(theirs.makefile("rb")).deserialize()
        sending.join()
    assert config == "default.xml"
    assert header.encoding[0].encodedSpace.matrixSize.z == 8
    np.testing.assert_array_equal([line.data for line in lines], samples)
    assert [(line.idx.kspace_encode_step_1, line.idx.kspace_encode_step_2) for line in lines] == [
        *zip(ky, kz, strict=True)
    ]
    assert [line.isFlagSet(ismrmrd.ACQ_LAST_IN_MEASUREMENT) for line in lines] == [False] * 47 + [True]
    centre_lps = RAS_FROM_LPS @ affine @ (8, 3, 4, 1)
    np.testing.assert_allclose(list(lines[0].position), centre_lps[:3], atol=1e-4)
    np.testing.assert_allclose(list(lines[0].phase_dir), (RAS_FROM_LPS[:3, :3] @ directions)[:, 1], atol=1e-6)


@pytest.mark.parametrize("kind", ["u2", "i2", "u4", "f4", "f8", "c8", "c16"])
def test_images_of_the_package_arrive_in_ras(directions: np.ndarray, kind: str) -> None:
    axes = np.asarray(RAS_FROM_LPS[:3, :3] @ directions)
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(kind)
    if array.dtype.kind == "c":
        array = array * (1 + 2j)
    image = ismrmrd.Image.from_array(array, transpose=False)
    image.field_of_view[:] = (50.0, 40.0, 30.0)
    image.position[:] = (1.0, 2.0, 3.0)
    image.read_dir[:], image.phase_dir[:], image.slice_dir[:] = (tuple(column) for column in axes.T)
    image.image_index, image.image_series_index = 4, 2
    image.meta = {"Comment": "Überblick"}
    (got,) = received(stream_bytes(image))
    assert isinstance(got, Image)
    expected = np.moveaxis(array, 0, 3)
    if array.dtype.kind == "c":
        np.testing.assert_array_equal(got.array[..., 0::2] + 1j * got.array[..., 1::2], expected)
        assert got.metadata["components"] == "real, imaginary"
    else:
        np.testing.assert_array_equal(got.array, expected)
    np.testing.assert_allclose(got.ras_from_ijk @ (2, 2, 1, 1), RAS_FROM_LPS @ (1, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(got.ras_from_ijk[:3, :3], directions * 10.0, atol=1e-4)
    assert (got.metadata["index"], got.metadata["series"]) == ("4", "2")
    assert got.metadata["mrd_attributes"] == image.attribute_string
    assert "Überblick" in image.attribute_string


@pytest.mark.parametrize("array", [np.arange(24.0).reshape(2, 3, 4), np.arange(24, dtype=np.uint8).reshape(4, 3, 1, 2)])
def test_our_images_arrive_at_the_package_and_with_us(directions: np.ndarray, array: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3] = directions * (1.0, 2.0, 3.0)
    affine[:3, 3] = (9.0, 8.0, 7.0)
    with linked() as (theirs, connection):
        connection.send(Image(array, affine, metadata={"kind": "phase"}))
        connection.send(TextMessage(MessageId.CLOSE))
        raw = theirs.makefile("rb").read(198 + 2 + 8 + array.size * max(array.itemsize, 2) + 2)
    (theirs_image,) = ProtocolDeserializer(io.BytesIO(raw)).deserialize()
    pixels = np.moveaxis(array if array.ndim == 4 else array[..., None], 3, 0)
    np.testing.assert_array_equal(theirs_image.data, pixels)
    assert theirs_image.image_type == ismrmrd.IMTYPE_PHASE
    (ours,) = received(raw)
    assert isinstance(ours, Image)
    np.testing.assert_array_equal(ours.array, array)
    np.testing.assert_allclose(ours.ras_from_ijk, affine, atol=1e-5)


def test_images_that_mrd_cannot_hold_are_refused() -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    with linked() as (_, connection):
        with pytest.raises(DataError, match="skewed"):
            connection.send(Image(np.ones((2, 2, 2)), sheared))
        with pytest.raises(DataError, match="int64"):
            connection.send(Image(np.ones((2, 2, 2), np.int64), np.eye(4)))


def test_waveforms_both_ways() -> None:
    values = np.arange(12, dtype=np.uint32).reshape(3, 4)
    theirs_waveform = ismrmrd.Waveform.from_array(values)
    theirs_waveform.waveform_id = 5
    theirs_waveform.sample_time_us = 2500.0
    (got,) = received(stream_bytes(theirs_waveform))
    assert isinstance(got, Waveform)
    np.testing.assert_array_equal(got.samples, values)
    assert got.waveform_id == 5
    assert got.sample_time_s == pytest.approx(0.0025)
    with linked() as (theirs, connection):
        connection.send(got)
        connection.send(TextMessage(MessageId.CLOSE))
        (back,) = ProtocolDeserializer(theirs.makefile("rb")).deserialize()
    np.testing.assert_array_equal(back.data, values)
    assert back.waveform_id == 5


def test_a_client_and_a_server_exchange_scan_and_image() -> None:
    encoding = Encoding("s", "cartesian", (1, 16, 32), (1, 16, 16), (5, 160, 320), (5, 160, 160), 2, np.eye(4), False)
    lines = np.arange(16 * 2 * 32).reshape(16, 2, 32).astype(np.complex64)
    block = Acquisition("s", lines, np.arange(16, dtype=np.int32), np.zeros(16, np.int32), last=True)

    def reconstruct(connection: MrdConnection) -> None:
        items = list(receive_scan(connection))
        kspace = np.concatenate([item.samples for item in items if isinstance(item, Acquisition)])
        connection.send(Image(np.abs(kspace[None, :, 0, :16]).astype(np.float32), np.eye(4)))
        connection.send(TextMessage(MessageId.CLOSE))

    with (
        MrdServer(reconstruct, port=0, limits=PATIENT) as server,
        connect_mrd(port=server.port, limits=PATIENT) as link,
    ):
        link.send_scan(encoding, [block])
        (image,) = receive_scan(link)
    assert isinstance(image, Image)
    np.testing.assert_array_equal(image.array[0], lines[:, 0, :16].real)
    assert not server.failures


def test_a_moving_plane_begins_a_new_scan_for_each_place() -> None:
    scan = Scan()
    lines = []
    for place in range(3):
        lines += [
            scan.line(kspace_encode_step_1=step, repetition=place, position=(0.0, 0.0, 4.0 * place))
            for step in range(16)
        ]
    for at_once in (1, 5, 1000):
        items = received(stream_bytes(header_of(scan), *lines), at_once=at_once)
        encodings = [item for item in items if isinstance(item, Encoding)]
        assert [encoding.scan_id for encoding in encodings] == ["M1", "M1#2", "M1#3"]
        assert [encoding.ras_from_ijk[2, 3] for encoding in encodings] == [0.0, 4.0, 8.0]
        counts = dict.fromkeys(("M1", "M1#2", "M1#3"), 0)
        for item in items:
            if isinstance(item, Acquisition):
                counts[item.scan_id] += len(item.ky)
        assert set(counts.values()) == {16}


@pytest.mark.parametrize("at_once", [1, 5, 1000])
@pytest.mark.parametrize("announced", [1, 2])
def test_interleaved_slices_that_the_header_does_not_count_are_one_scan(announced: int, at_once: int) -> None:
    """The header says one slice, or fewer than come; the lines of one phase step say better."""
    scan = Scan(limits={"slice": (0, announced - 1, 0)})
    first = stack_lines(scan, 3, (0, 2, 1))
    second = stack_lines(scan, 3, (0, 2, 1))
    for line in second:
        line.idx.repetition = 1
    items = received(stream_bytes(header_of(scan), *first, *second), at_once=at_once)
    (encoding,) = [item for item in items if isinstance(item, Encoding)]
    assert encoding.encoded_matrix == (3, 16, 32)
    blocks = [item for item in items if isinstance(item, Acquisition)]
    assert sum(len(block.ky) for block in blocks) == 96
    for repetition in (0, 1):
        kz = np.concatenate([block.kz for block in blocks if block.repetition == repetition and len(block.kz)])
        assert np.bincount(kz).tolist() == [16, 16, 16]


def test_a_stack_that_moves_is_refused() -> None:
    scan = Scan(limits={"slice": (0, 1, 0)})
    lines = [
        scan.line(slice=number, kspace_encode_step_1=step, position=(0, 0, 5 * number))
        for step in (0, 1)
        for number in (0, 1)
    ]
    moved = scan.line(slice=0, position=(0, 0, 1))
    with pytest.raises(WireError, match="moved in mid-scan"):
        received(stream_bytes(header_of(scan), *lines, "", moved))


def test_an_image_without_directions_is_counted_and_the_next_one_delivered() -> None:
    def image(direction: float) -> ismrmrd.Image:
        result = ismrmrd.Image.from_array(np.ones((4, 4), np.float32))
        result.field_of_view[:] = (4.0, 4.0, 1.0)
        result.read_dir[:], result.phase_dir[:], result.slice_dir[:] = (direction, 0, 0), (0, 1, 0), (0, 0, 1)
        return result

    with linked() as (theirs, connection):
        Sender(theirs, stream_bytes(image(0.0), image(np.nan), image(1.0)))
        items = list(receive_scan(connection))
        assert len(items) == 1
        assert connection.refused == {"geometry": 2}
        assert "right angles" in connection.last_refusal


def bad_streams() -> dict[str, tuple[bytes, str]]:
    scan = Scan()
    good = stream_bytes(header_of(scan), scan.line(), close=False)
    head = bytearray(stream_bytes(scan.line(), close=False))
    huge_line, version = head.copy(), head.copy()
    struct.pack_into("<H", huge_line, 2 + 34, 65535)  # number_of_samples
    struct.pack_into("<H", huge_line, 2 + 38, 65535)  # active_channels
    struct.pack_into("<H", version, 2, 9)
    image = struct.pack("<H", 1022) + struct.pack("<HHQI3H", 1, 5, 0, 0, 65535, 65535, 65535)
    image = image.ljust(200, b"\1") + struct.pack("<Q", 0)
    return {
        "unknown id": (good + struct.pack("<H", 77) + b"rest", "id 77 is unknown"),
        "http": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "is unknown"),
        "text of 4 GB": (struct.pack("<HI", 5, 2**32 - 1), "4294967295 bytes"),
        "header of 4 GB": (struct.pack("<HI", 3, 2**32 - 1), "4294967295 bytes"),
        "line of 34 GB": (bytes(huge_line), "at most 100000"),
        "image of 2^50": (image, "at most"),
        "attributes of 2^63": (image[:200] + struct.pack("<Q", 2**63), "at most 10000"),
        "other layout": (bytes(version), "version 9"),
        "cut line": (good[:-100], "middle of a message"),
        "cut id": (good + b"\1", "middle of a message"),
        "no close": (good, "before the scan was closed"),
        "line before header": (bytes(head), "before their XML header"),
        "header that is none": (struct.pack("<HI", 3, 5) + b"<abc/", "not XML"),
        "text that is none": (struct.pack("<HI", 5, 3) + b"\xff\xfe\xff", "UTF-8"),
    }


@pytest.mark.parametrize("name", list(bad_streams()))
def test_bad_streams_end_with_a_reason(name: str) -> None:
    data, message = bad_streams()[name]
    with pytest.raises(WireError, match=message):
        received(data, limits=HASTY)


@pytest.mark.parametrize("part", [1, 3, 100, 341, 400])
def test_a_peer_that_stalls_in_a_message_is_cut_off(part: int) -> None:
    scan = Scan()
    with linked(HASTY) as (theirs, connection):
        theirs.sendall(stream_bytes(scan.line(), close=False)[:part])
        with pytest.raises(WireError, match="too long in a message"):
            connection.receive()
        assert theirs.recv(1) == b""


def test_a_silent_peer_is_cut_off_after_the_idle_time() -> None:
    with linked(MrdLimits(idle_s=0.05)) as (_, connection), pytest.raises(WireError, match="too long to say anything"):
        connection.receive()


def test_a_peer_that_takes_nothing_is_cut_off() -> None:
    with linked(HASTY) as (_, connection), pytest.raises(WireError, match="does not take"):
        connection.send(Image(np.ones((100, 200, 200), np.float32), np.eye(4)))


def test_close_ends_a_waiting_receive() -> None:
    with linked(MrdLimits()) as (_, connection):
        results: list[object] = []

        def wait() -> None:
            try:
                results.append(connection.receive())
            except WireError as error:
                results.append(error)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        connection.close()
        waiting.join(20)
        assert len(results) == 1


def test_a_server_survives_bad_peers_and_serves_the_next() -> None:
    good: list[object] = []

    def collect(connection: MrdConnection) -> None:
        good.extend(receive_scan(connection))
        connection.send(TextMessage(MessageId.CLOSE))

    scan = Scan()
    with MrdServer(collect, port=0, limits=HASTY, max_connections=4) as server:
        bad = [data for data, _ in bad_streams().values()]
        for data in bad:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as peer:
                # Our end hangs up, with or without unread bytes.
                with suppress(OSError):
                    peer.sendall(data)
                    peer.shutdown(socket.SHUT_WR)
                _until_closed(peer)
        # The reason is noted right after the link was closed.
        assert _until(lambda: len(server.failures) == len(bad))
        good.clear()
        with connect_mrd(port=server.port, limits=PATIENT) as link:
            link._send([stream_bytes(header_of(scan), scan.line())])
            assert link.receive() == TextMessage(MessageId.CLOSE)
    assert [type(item) for item in good] == [Encoding, Acquisition, Acquisition]


def _until(condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true within 20 s."""
    deadline = time.monotonic() + 20
    never = threading.Event()
    while not condition() and time.monotonic() < deadline:
        never.wait(0.005)
    return condition()


def _until_closed(peer: socket.socket) -> None:
    try:
        while peer.recv(4096):
            pass
    except ConnectionResetError:
        pass


def test_too_many_links_are_turned_away() -> None:
    leave = threading.Event()
    with MrdServer(lambda _connection: _wait_for(leave), port=0, max_connections=2) as server:
        links = [connect_mrd(port=server.port, limits=PATIENT) for _ in range(2)]
        with connect_mrd(port=server.port, limits=PATIENT) as third:
            assert third.receive() is None
        assert "2 links are open" in server.failures[-1]
        leave.set()
        for link in links:
            assert link.receive() is None
            link.close()


def _wait_for(event: threading.Event) -> None:
    event.wait(20)


def test_addresses_that_cannot_be_had(caplog: pytest.LogCaptureFixture) -> None:
    with MrdServer(lambda _connection: None, port=0) as server, pytest.raises(WireError, match="another port"):
        MrdServer(lambda _connection: None, port=server.port)
    with pytest.raises(WireError, match="no MRD server answers"):
        connect_mrd(port=server.port)
    assert not caplog.records
    with MrdServer(lambda _connection: None, host="0.0.0.0", port=0):
        assert "other machines can connect" in caplog.text


def test_the_recorder_sees_the_bytes_of_the_wire(tmp_path: Path) -> None:
    scan = Scan()
    data = stream_bytes(ConfigFile("a"), header_of(scan), scan.line(), "text")
    with Recorder(tmp_path / "a.rec") as recorder, linked(recorder=recorder) as (theirs, connection):
        Sender(theirs, data)
        list(receive_scan(connection))
        connection.send(TextMessage(MessageId.TEXT, "thanks"))
    with Recording(tmp_path / "a.rec") as recording:
        heard = [record for record in recording if record.direction is Direction.RECEIVED]
        said = [record for record in recording if record.direction is Direction.SENT]
    assert b"".join(record.header + record.body for record in heard) == data
    assert [record.header for record in heard] == [struct.pack("<H", number) for number in (1, 3, 1008, 5, 4)]
    assert said[0].body == stream_bytes("thanks", close=False)


class Memory:
    """An inlet that ends."""

    def __init__(self, data: bytes) -> None:
        self._view, self._at = memoryview(data), 0

    def read(self, count: int) -> memoryview:
        if self._at + count > len(self._view):
            raise WireError("ended")
        self._at += count
        return self._view[self._at - count : self._at]


def test_mutated_messages_raise_nothing_but_the_family() -> None:
    scan = Scan()
    image = ismrmrd.Image.from_array(np.ones((4, 4), np.float32))
    seeds = [
        np.frombuffer(stream_bytes(item, close=False), np.uint8)
        for item in (
            ConfigFile("a"),
            header_of(scan),
            scan.line(),
            image,
            ismrmrd.Waveform.from_array(np.ones((2, 3), np.uint32)),
        )
    ]
    rng = np.random.default_rng(11)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(4000):
        data = seeds[rng.integers(len(seeds))].copy()
        places = rng.integers(0, min(len(data), 400), rng.integers(1, 6))
        data[places] = rng.integers(0, 256, len(places))
        try:
            read_message(Memory(data.tobytes()), HASTY)
            outcomes["read"] += 1
        except IntraopError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 100
