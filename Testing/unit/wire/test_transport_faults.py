"""The 29 wire faults, sent by a raw socket to a live server.

Each test ends in :func:`_still_serves`: nothing bad was delivered, a new peer is served within a second, and where the
lengths on the link were valid the next good message on the same link was delivered.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import psutil
import pytest
from IntraopMRIReconstructionLib.wire import codec, connection
from IntraopMRIReconstructionLib.wire.adapters import image_from_message
from IntraopMRIReconstructionLib.wire.connection import Limits
from IntraopMRIReconstructionLib.wire.timing import PoseBoard
from IntraopMRIReconstructionLib.wire.transport import Client, Received, Server
from peers.igtl_samples import extended, frame, image_body, rigid, slow_crc64, transform_body
from peers.waiting import until

#: Short deadlines, so that the tests of slow peers need not last long.
LIMITS = Limits(
    body_bytes=2**22, queued_bytes=2**23, streams=64, header_s=0.8, stall_s=0.5, slowest_bytes_per_s=1e6, send_s=1.0
)
GOOD = frame("STRING", struct.pack(">HH", 3, 4) + b"good", device="good")
EXTENDED = struct.Struct(">HHII")
MIRROR = np.diag([1.0, 1.0, -1.0, 1.0])
SHEAR = np.array([[1.0, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(limits=LIMITS) as running:
        yield running


def _raw(server: Server) -> socket.socket:
    sock = socket.create_connection((server.host, server.port), 5.0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _is_good(received: Received | None) -> bool:
    return received is not None and received.message.device == "good"


def _still_serves(server: Server) -> None:
    """A new peer is served within a second, and nothing else was delivered before."""
    with _raw(server) as fresh:
        fresh.sendall(GOOD)
        assert _is_good(server.receive(1.0))
    assert server.receive(0) is None


def _lost(server: Server, reason: str) -> None:
    until(lambda: server.counters.lost[reason] > 0)


#: Messages with valid lengths that must not be delivered: fault, bytes, reason.
BAD: list[tuple[str, bytes, str]] = [
    ("1 flipped bit", frame("TRANSFORM", b"\1" + transform_body()[1:], crc=slow_crc64(transform_body())), "crc"),
    ("2 CRC 0", frame("TRANSFORM", transform_body(), crc=0), "crc"),
    ("15 unknown type", frame("NONSENSE", b"abc"), "type"),
    ("15 compressed video", frame("VIDEO", b"abc"), "type"),
    ("16 version 2 without extended header", frame("TRANSFORM", b"12345", version=2), "extended header"),
    ("16 version 9", frame("TRANSFORM", transform_body(), version=9), "version"),
    ("17 metadata larger than the body", frame("STRING", EXTENDED.pack(12, 9, 2**31, 0), version=2), "extended header"),
    ("18 metadata index count 65535", frame("STRING", EXTENDED.pack(12, 2, 0, 0) + b"\xff\xff", version=2), "metadata"),
    ("19 name not UTF-8", frame("TRANSFORM", transform_body(), device=b"\xff\xfe"), "text"),
    ("19 name with a NUL", frame("TRANSFORM", transform_body(), device=b"a\0b"), "name"),
    ("21 STRING of encoding 4", frame("STRING", struct.pack(">HH", 4, 1) + b"a"), "encoding"),
    ("21 STRING longer than its body", frame("STRING", struct.pack(">HH", 3, 9) + b"a"), "length"),
    ("22 sub-volume outside", frame("IMAGE", image_body(bytes(4), (4, 1, 1), offset=(1, 0, 0))), "sub-volume"),
    ("23 scalar type 99", frame("IMAGE", image_body(bytes(4), (4, 1, 1), scalar=99)), "scalar type"),
    ("23 endian 7", frame("IMAGE", image_body(bytes(4), (4, 1, 1), endian=7)), "endian"),
    ("23 coordinate byte 9", frame("IMAGE", image_body(bytes(4), (4, 1, 1), coordinate=9)), "coordinate"),
    ("23 components 0", frame("IMAGE", image_body(bytes(4), (4, 1, 1), components=0)), "size"),
    ("23 dimension 0", frame("IMAGE", image_body(b"", (4, 0, 1))), "size"),
    ("24 pixels short", frame("IMAGE", image_body(bytes(3), (4, 1, 1))), "length"),
    ("24 pixels extra", frame("IMAGE", image_body(bytes(5), (4, 1, 1))), "length"),
    ("25 NaN", frame("TRANSFORM", transform_body(rigid() * np.nan)), "not finite"),
    ("25 infinite", frame("TRANSFORM", transform_body(rigid(position_mm=(np.inf, 0, 0)))), "not finite"),
    ("25 1e30", frame("TRANSFORM", transform_body(rigid(position_mm=(1e30, 0, 0)))), "matrix"),
    ("26 determinant -1", frame("TRANSFORM", transform_body(MIRROR)), "matrix"),
    ("26 shear", frame("TRANSFORM", transform_body(SHEAR)), "matrix"),
    ("26 scale 1000", frame("TRANSFORM", transform_body(rigid() * [[1000.0], [1000], [1000], [1]])), "matrix"),
    ("26 image in metres", frame("IMAGE", image_body(bytes(4), (4, 1, 1), axes=np.eye(3) / 1000)), "matrix"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_messages_are_counted_and_the_next_good_one_is_delivered(server: Server, raw: bytes, reason: str) -> None:
    with _raw(server) as peer:
        peer.sendall(raw + GOOD)
        assert _is_good(server.receive(5.0))
    assert server.counters.refused == {reason: 1}
    assert any(event.kind == "refused" and len(event.text) > 20 for event in server.events)
    _still_serves(server)


def test_03_truncated_body(server: Server) -> None:
    with _raw(server) as peer:
        peer.sendall(frame("TRANSFORM", transform_body())[:-5])
    _lost(server, "truncated")
    _still_serves(server)


def test_04_half_a_header_then_close(server: Server) -> None:
    with _raw(server) as peer:
        peer.sendall(GOOD[:29])
    _lost(server, "truncated")
    _still_serves(server)


def _dribble(peer: socket.socket, data: bytes, step: int, pause_s: float) -> None:
    for start in range(0, len(data), step):
        peer.sendall(data[start : start + step])
        threading.Event().wait(pause_s)


def test_05_header_split_by_50_ms(server: Server) -> None:
    with _raw(server) as peer:
        _dribble(peer, GOOD[:58], 29, 0.05)
        peer.sendall(GOOD[58:] + GOOD)
        assert _is_good(server.receive(5.0))
        assert _is_good(server.receive(5.0))
    _still_serves(server)


def test_06_a_byte_every_20_ms() -> None:
    # With the deadlines of the product: a slow link is no fault.
    with Server() as server, _raw(server) as peer:
        _dribble(peer, GOOD, 1, 0.02)
        assert _is_good(server.receive(5.0))
        _still_serves(server)


def test_07_a_byte_now_and_then_for_ever(server: Server) -> None:
    # A quarter of the header's deadline between two bytes stands for 4 s; it never arrives within it.
    with _raw(server) as peer, contextlib.suppress(OSError):
        for byte in GOOD[:58]:
            peer.sendall(bytes([byte]))
            threading.Event().wait(LIMITS.header_s / 4)
            if server.counters.lost["stalled"]:
                break
    assert server.counters.lost["stalled"] == 1
    _still_serves(server)


@pytest.mark.parametrize("size", [2**63, 2**40, LIMITS.body_bytes + 1])
def test_08_09_hostile_body_sizes(server: Server, size: int) -> None:
    before = psutil.Process().memory_info().rss
    with _raw(server) as peer:
        peer.sendall(frame("IMAGE", b"abc", size=size))
        _lost(server, "size")
    assert psutil.Process().memory_info().rss - before < LIMITS.body_bytes
    _still_serves(server)


def test_10_size_within_the_cap_and_the_body_stalls(server: Server) -> None:
    with _raw(server) as peer:
        peer.sendall(frame("IMAGE", b"abc", size=LIMITS.body_bytes))
        _still_serves(server)
        _lost(server, "stalled")
    assert any("3 of 4194304 bytes of IMAGE 'Device' and went silent" in event.text for event in server.events)
    _still_serves(server)


HTTP = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n"


@pytest.mark.parametrize("garbage", [HTTP, np.random.default_rng(1).bytes(5000), b"\xff" * 1000])
def test_11_garbage(server: Server, garbage: bytes) -> None:
    with _raw(server) as peer, contextlib.suppress(OSError):
        peer.sendall(garbage)
        _lost(server, "size")
    _still_serves(server)


def test_11_silence_and_zeros(server: Server) -> None:
    with _raw(server) as peer:
        peer.sendall(bytes(58))
        until(lambda: server.counters.refused["version"] == 1)
    _still_serves(server)


def test_12_reset_in_mid_body(server: Server) -> None:
    with _raw(server) as peer:
        peer.sendall(frame("IMAGE", bytes(1000), size=2000))
        until(lambda: bool(server.peers))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: server.counters.lost.total() == 1)
    _still_serves(server)


def test_13_server_restarted_100_times() -> None:
    before = threading.active_count()
    server = Server(limits=LIMITS)
    with server:
        port = server.port
    for _ in range(100):
        with Server(port, limits=LIMITS) as server:
            _still_serves(server)
    until(lambda: threading.active_count() <= before)


def test_14_a_hundred_connections_one_idle(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        idle = stack.enter_context(_raw(server))
        peers = [stack.enter_context(_raw(server)) for _ in range(99)]
        for peer in peers:
            peer.sendall(GOOD)
        assert all(_is_good(server.receive(5.0)) for _ in peers)
        assert len(server.peers) == 100
        idle.sendall(GOOD)
        assert _is_good(server.receive(5.0))
        _still_serves(server)


def test_14_more_peers_than_allowed_are_turned_away() -> None:
    limits = Limits(peers=2)
    with Server(limits=limits) as server, _raw(server), _raw(server) as second:
        until(lambda: len(server.peers) == 2)
        with _raw(server) as third:
            assert third.recv(1) == b""
        _lost(server, "too many peers")
        second.close()
        until(lambda: len(server.peers) == 1)
        _still_serves(server)


def test_20_ten_thousand_device_names(server: Server) -> None:
    with _raw(server) as peer:
        body = transform_body()
        crc = slow_crc64(body)
        peer.sendall(b"".join(frame("TRANSFORM", body, device=f"tool {n}", crc=crc) for n in range(10_000)))
        until(lambda: server.counters.received + server.counters.refused.total() == 10_000)
        assert server.counters.received == LIMITS.streams
        assert server.counters.refused == {"streams": 10_000 - LIMITS.streams}
    for _ in range(LIMITS.streams):
        assert server.receive(1.0) is not None
    _still_serves(server)


def test_22_sub_volumes_are_put_together(server: Server) -> None:
    with _raw(server) as peer:
        for k in (1, 0):
            body = image_body(bytes([k] * 6), (3, 2, 2), offset=(0, 0, k), part=(3, 2, 1))
            peer.sendall(frame("IMAGE", body))
        received = server.receive(5.0)
    assert received is not None
    assert isinstance(received.message, codec.ImageMessage)
    assert received.message.array.tolist() == [[[0] * 3] * 2, [[1] * 3] * 2]
    _still_serves(server)


def _stamped(seconds: float, x: float = 0.0) -> bytes:
    return frame(
        "TRANSFORM", transform_body(rigid(position_mm=(x, 0, 0))), device="probe", timestamp=int(seconds * 2**32)
    )


@pytest.mark.parametrize(("second", "fault"), [(0.0, "absent"), (4102444800.0, "wrong clock")])
def test_27_a_stamp_of_no_clock_is_not_believed(server: Server, second: float, fault: str) -> None:
    with _raw(server) as peer:
        peer.sendall(_stamped(second))
        received = server.receive(5.0)
    assert received is not None
    assert (received.sent_utc_s, received.latency_s, received.time.fault) == (None, None, fault)
    assert server.counters.suspect == {fault: 1}


def test_27_backwards_and_frozen_stamps_on_a_live_link(server: Server) -> None:
    now = time.time()
    board = PoseBoard(stale_after_s=0.2)
    faults = []
    with _raw(server) as peer:
        for stamp in (now, now - 5.0, *[now - 5.0] * 40):
            peer.sendall(_stamped(stamp))
            received = server.receive(5.0)
            assert received is not None
            board.update(received)
            faults.append(received.time.fault)
            threading.Event().wait(0.01)
    assert faults == ["", "backwards"] + ["frozen"] * 40
    state = board.state("probe")
    assert state is not None
    assert not state.usable


def test_28_lps_and_ras_of_the_same_anatomy(server: Server) -> None:
    flip = np.diag([-1.0, -1.0, 1.0])
    with _raw(server) as peer:
        for coordinate, to_frame in ((1, np.eye(3)), (2, flip)):
            centre = tuple(to_frame @ [10.0, 20.0, 30.0])
            body = image_body(bytes(24), (4, 3, 2), axes=to_frame, centre=centre, coordinate=coordinate)
            peer.sendall(frame("IMAGE", body))
        images = [image_from_message(server.expect(5.0).message) for _ in range(2)]  # type: ignore[arg-type]
    np.testing.assert_allclose(images[0].ras_from_ijk, images[1].ras_from_ijk)


@pytest.mark.parametrize(("key", "reason"), [("PatientID", "patient"), ("FrameOfReferenceUID", "frame")])
def test_29_patient_or_frame_changing_in_mid_stream(server: Server, key: str, reason: str) -> None:
    with _raw(server) as peer:
        for value in ("42", "43", "42"):
            body = extended(image_body(bytes(24), (4, 3, 2)), {key: value})
            peer.sendall(frame("IMAGE", body, version=2))
        seen = [server.expect(5.0).message.metadata[key] for _ in range(2)]
    assert seen == ["42", "42"]
    assert server.counters.refused == {reason: 1}
    _still_serves(server)


def test_idle_links_cost_no_cpu(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(_raw(server))
        stalled = stack.enter_context(_raw(server))
        stalled.sendall(GOOD[:10])
        until(lambda: len(server.peers) == 11)
        before = time.process_time()
        threading.Event().wait(0.6)
        # Half a second of eleven waiting threads; a busy loop would take all of it.
        assert time.process_time() - before < 0.2


def test_memory_stays_within_the_cap_when_nobody_takes_the_images(server: Server) -> None:
    image = codec.encode(codec.ImageMessage(device="T1", array=np.ones((4, 512, 512), np.uint8)))
    with _raw(server) as peer:
        peer.settimeout(0.5)
        with pytest.raises(TimeoutError):
            peer.sendall(image * 100)
        assert server._inbox.queued_bytes <= LIMITS.queued_bytes
        for _ in range(LIMITS.queued_bytes // len(image)):
            received = server.receive(5.0)
            assert received is not None
            assert isinstance(received.message, codec.ImageMessage)
            assert received.message.array.all()


def test_a_peer_that_takes_nothing_is_cut_off_and_the_others_are_served() -> None:
    image = codec.ImageMessage(device="T1", array=np.zeros((4, 512, 1024), np.uint8))
    with Server(limits=replace(LIMITS, send_s=0.3)) as server, _raw(server), Client(port=server.port) as client:
        until(lambda: len(server.peers) == 2)
        reached = [server.send(image)]
        while reached[-1] == 2:
            assert client.receive(5.0) is not None
            reached.append(server.send(image))
        assert reached[-1] == 1
        assert client.receive(5.0) is not None
        until(lambda: len(server.peers) == 1)


def test_a_client_survives_the_same_faults() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Client(port=port, limits=LIMITS) as client:
            for bad in (frame("IMAGE", b"", size=2**63), b"HTTP/1.1 200 OK\r\n" + bytes(range(255)), GOOD[:20]):
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(GOOD + bad)
                    assert _is_good(client.receive(5.0))
                    with contextlib.suppress(OSError):
                        peer.shutdown(socket.SHUT_WR)
                    until(lambda: not client.connected)
            peer, _ = listener.accept()
            with peer:
                peer.sendall(GOOD)
                assert _is_good(client.receive(5.0))
            assert client.counters.lost["size"] == 2
            assert client.counters.lost["truncated"] == 1


@pytest.fixture
def without_kernel_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets as on Windows: no option that times a call, no call that collects all bytes."""
    monkeypatch.setattr(connection, "KERNEL_TICKS", False)
    monkeypatch.setattr(connection, "_WAIT_ALL", 0)


def _no_timed_calls(link: connection.Connection) -> bool:
    empty = bytes(struct.calcsize("ll"))
    options = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)
    return all(link._socket.getsockopt(socket.SOL_SOCKET, option, len(empty)) == empty for option in options)


def test_links_work_without_ticks_of_the_kernel(without_kernel_ticks: None) -> None:
    image = codec.ImageMessage(device="T1", array=np.arange(2**20, dtype=np.uint32).reshape(16, 256, 256))
    with Server() as server, Client(port=server.port) as client:
        for sender, receiver in ((client, server), (server, client)):
            for _ in range(3):
                sender.send(image)
                assert codec.encode(receiver.expect(10.0).message) == codec.encode(image)
        assert all(_no_timed_calls(link) for link in server._connections.values())


def test_deadlines_hold_without_ticks_of_the_kernel(without_kernel_ticks: None, server: Server) -> None:
    with _raw(server) as slow, _raw(server) as stalled:
        stalled.sendall(frame("IMAGE", b"abc", size=1000))
        _dribble(slow, GOOD, 1, connection.TICK_S / 50)
        assert _is_good(server.receive(5.0))
        _lost(server, "stalled")
    _still_serves(server)
