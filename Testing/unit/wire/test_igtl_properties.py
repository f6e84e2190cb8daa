"""Properties of the wire for whatever a peer or a network does: hypothesis looks for what breaks them."""

from __future__ import annotations

import contextlib
import socket
import struct
import tracemalloc

import numpy as np
from fastcrc import crc64
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IntraopMRIReconstructionLib.data import CLOCK_BELIEVED_AFTER_S, POSE_STALE_S
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.connection import Limits
from IntraopMRIReconstructionLib.wire.header import HEADER, HEADER_SIZE, LONGEST_TEXT, RefusedMessage, timestamp_of
from IntraopMRIReconstructionLib.wire.intake import IdentityGuard, Intake, Received
from IntraopMRIReconstructionLib.wire.timing import WINDOW_S, WRONG_CLOCK_S, PoseBoard, SenderClock, SenderTime
from IntraopMRIReconstructionLib.wire.transport import Server
from IntraopMRIReconstructionLib.wire.trust import AS_SENT, PROFILES, PeerProfile
from peers.igtl_samples import extended, frame, rigid, transform_body
from peers.waiting import until

#: Every reason under which something may be refused: a new one has to be thought about here.
REASONS = {
    *("coordinate", "count", "crc", "depth", "encoding", "endian", "extended header", "image layout"),
    *("length", "matrix", "metadata", "name", "not finite", "quaternion", "scalar type", "shape", "size", "status"),
    *("streams", "sub-volume", "text", "tool type", "trajectory type", "type", "version", "patient", "frame"),
}
TYPES = (*codec.TYPE_NAMES, "GET_IMAGE", "STT_TDATA", "STP_TDATA", "RTS_TDATA", "GET_TRANS", "VIDEO", "", "IMAGE\0")
LIMITS = Limits(body_bytes=2**20)


def taken(raw: bytes, body: bytes, profile: PeerProfile = AS_SENT) -> Received | RefusedMessage | None:
    """What the receiving thread makes of a message whose CRC is right; whatever else is raised is a defect."""
    intake = Intake("peer", 0, profile, LIMITS, IdentityGuard(), lambda _text: None)
    try:
        return intake.take(raw, memoryview(bytearray(body)), crc64.ecma_182(body), 100.0, 1.8e9)
    except RefusedMessage as refused:
        return refused


def head(version: int, type_name: bytes, device: bytes, stamp: int, body: bytes) -> bytes:
    return HEADER.pack(version, type_name[:12], device[:20], stamp, len(body), crc64.ecma_182(body))


@settings(max_examples=500, deadline=None)
@given(
    version=st.sampled_from([0, 1, 2, 3, 4, 65535]),
    type_name=st.one_of(st.sampled_from([name.encode() for name in TYPES]), st.binary(max_size=12)),
    device=st.binary(max_size=20),
    stamp=st.integers(0, 2**64 - 1),
    body=st.binary(max_size=300),
    profile=st.sampled_from(list(PROFILES.values())),
)
def test_whatever_comes_is_taken_or_refused_with_a_reason(
    version: int, type_name: bytes, device: bytes, stamp: int, body: bytes, profile: PeerProfile
) -> None:
    verdict = taken(head(version, type_name, device, stamp, body), body, profile)
    if isinstance(verdict, RefusedMessage):
        assert verdict.reason in REASONS
        assert len(str(verdict)) > 20


SIZES = st.one_of(st.integers(0, 40), st.sampled_from([255, 256, 65534, 65535]))


@settings(max_examples=400, deadline=None)
@given(
    version=st.sampled_from([2, 3]),
    extended_size=SIZES,
    index_size=SIZES,
    values_size=st.one_of(SIZES, st.sampled_from([2**31 - 1, 2**31, 2**32 - 1])),
    rest=st.binary(max_size=120),
)
@example(3, 12, 2, 0, b"\xff\xff")
@example(3, 65535, 0, 0, b"\0\3\0\1a")
def test_an_extended_header_that_lies_is_found_out(
    version: int, extended_size: int, index_size: int, values_size: int, rest: bytes
) -> None:
    body = struct.pack(">HHII", extended_size, index_size, values_size, 7) + rest
    fits = 12 <= extended_size <= len(body) - index_size - values_size
    verdict = taken(head(version, b"STRING", b"x", 0, body), body)
    if isinstance(verdict, RefusedMessage):
        assert (verdict.reason == "extended header") is not fits
        return
    assert fits
    assert verdict is not None
    # What was taken for the content is just what the sizes leave.
    content = body[extended_size : len(body) - index_size - values_size]
    assert content == b"".join(verdict.message.content())


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=12), st.text(max_size=20), max_size=40), st.integers(0, 2**32 - 1))
def test_any_metadata_comes_back(metadata: dict[str, str], message_id: int) -> None:
    message = codec.StringMessage(device="x", version=2, metadata=metadata, message_id=message_id, text="a")
    raw = codec.encode(message)
    back = codec.decode(raw[:HEADER_SIZE], raw[HEADER_SIZE:])
    assert (dict(back.metadata), back.message_id) == (metadata, message_id)


def test_as_many_metadata_as_the_protocol_allows_cost_little() -> None:
    """Its header holds 8191 entries; more of them are refused before anything is made of them."""
    most = (65535 - 2) // 8
    body = extended(struct.pack(">HH", 3, 1) + b"a", {f"{number:04x}": "" for number in range(most)})
    raw = head(2, b"STRING", b"x", 0, body)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        received = taken(raw, body)
        assert tracemalloc.get_traced_memory()[1] - before < 200 * most + 3 * len(body)
    finally:
        tracemalloc.stop()
    assert isinstance(received, Received)
    assert len(received.message.metadata) == most


def test_a_name_of_64_kb_does_not_fill_the_screen() -> None:
    name = b"k" * 65000
    index = struct.pack(">H", 2) + 2 * struct.pack(">HHI", len(name), 3, 0)
    body = struct.pack(">HHII", 12, len(index), 2 * len(name), 0) + struct.pack(">HH", 3, 0) + index + 2 * name
    refused = taken(head(2, b"STRING", b"x", 0, body), body)
    assert isinstance(refused, RefusedMessage)
    assert refused.reason == "metadata"
    assert str(refused).startswith("STRING 'x': metadata key 'kkk")
    assert len(str(refused)) <= LONGEST_TEXT + 4


FLOATS = st.one_of(
    st.floats(width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e38, 1e-45])
)


@settings(max_examples=500, deadline=None)
@given(st.lists(FLOATS, min_size=12, max_size=12), st.sampled_from(list(PROFILES.values())))
@example([0.0] * 12, PROFILES["Plus"])
@example([1.0, 0, 0, 2.0, 0, 0, 0, 0, 1.0, 0, 0, 0], PROFILES["Plus"])
def test_what_passes_for_a_transform_is_one(values: list[float], profile: PeerProfile) -> None:
    body = struct.pack(">12f", *values)
    received = taken(head(1, b"TRANSFORM", b"probe", 0, body), body, profile)
    if isinstance(received, RefusedMessage):
        assert received.reason in ("matrix", "not finite")
        return
    assert received is not None
    message = received.message
    assert isinstance(message, codec.TransformMessage)
    assert np.isfinite(message.matrix).all()
    assert abs(np.linalg.det(message.matrix[:3, :3])) > (0.9 if profile.rigid_transforms else 0.0)
    assert np.isfinite(np.linalg.inv(message.matrix)).all()


#: Messages with right lengths, and what of them is delivered.
GOOD = [frame("STRING", struct.pack(">HH", 3, 1) + bytes([65 + number]), device="good") for number in range(8)]
BAD = [
    frame("STRING", b"xx", device="bad"),
    frame("STRING", struct.pack(">HH", 3, 1) + b"a", device="bad", crc=1),
    frame("NONSENSE", bytes(70), device="bad"),
    frame("TRANSFORM", transform_body(rigid() * np.nan), device="bad"),
    frame("STRING", b"a", device="bad", version=3),
    frame("STRING", b"a", device=b"\xff"),
]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from(range(len(GOOD))), st.sampled_from(range(-len(BAD), 0))), max_size=12),
    st.lists(st.integers(1, 150), min_size=1, max_size=8),
    st.one_of(st.none(), st.binary(min_size=1, max_size=57)),
)
def test_the_good_ones_arrive_in_order_however_the_network_cuts(
    order: list[int], pieces: list[int], tail: bytes | None
) -> None:
    """Refused ones between them, pieces of any size, and half a header before the peer leaves."""
    stream = b"".join(GOOD[number] if number >= 0 else BAD[number] for number in order) + (tail or b"")
    wanted = [chr(65 + number) for number in order if number >= 0]
    with Server(answer_queries=False) as server:
        with socket.create_connection((server.host, server.port)) as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            at, turn = 0, 0
            while at < len(stream):
                peer.sendall(stream[at : at + pieces[turn % len(pieces)]])
                at, turn = at + pieces[turn % len(pieces)], turn + 1
        until(lambda: server.counters.lost.total() == 1)
        texts = [received.message.text for received in _all(server)]  # type: ignore[attr-defined]
        assert texts == wanted
        assert server.counters.refused.total() == len(order) - len(wanted)
        assert server.counters.lost == {"closed" if tail is None else "truncated": 1}


def _all(server: Server) -> list[Received]:
    found = []
    while (received := server.receive(0)) is not None:
        found.append(received)
    return found


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=3000))
def test_a_server_survives_any_bytes(data: bytes) -> None:
    with Server(limits=LIMITS) as server:
        with socket.create_connection((server.host, server.port)) as peer, contextlib.suppress(OSError):
            peer.sendall(data)
        with socket.create_connection((server.host, server.port)) as peer:
            peer.sendall(GOOD[0])
            received = server.receive(20.0, device="good")
        assert received is not None
        assert "defect" not in server.counters.refused


STEPS = st.lists(
    st.tuples(
        st.floats(0.001, 0.2),
        st.one_of(st.just(0.0), st.floats(-WRONG_CLOCK_S / 2, WRONG_CLOCK_S / 2), st.sampled_from([-3600.0, 3600.0])),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_a_clock_that_is_set_while_it_runs_hurts_for_a_moment_only(steps: list[tuple[float, float]]) -> None:
    """Each step: time that passes, and by how much the peer's clock is set. Then it runs undisturbed."""
    clock, board = SenderClock(), PoseBoard()
    now_s, utc_s, offset_s = 100.0, 1.8e9, 0.0

    def pose(passed_s: float) -> SenderTime:
        nonlocal now_s, utc_s
        now_s, utc_s = now_s + passed_s, utc_s + passed_s
        stamp = timestamp_of(utc_s + offset_s)
        message = codec.TransformMessage(device="probe", timestamp=stamp, matrix=rigid())
        time = clock.note(message, utc_s, now_s)
        board.update(Received(message, now_s, utc_s, "peer", 0, 106, time))
        return time

    for passed_s, set_by_s in steps:
        # A clock that is off by more than a day is not believed at all.
        offset_s = float(np.clip(offset_s + set_by_s, -0.9 * WRONG_CLOCK_S, 0.9 * WRONG_CLOCK_S))
        time = pose(passed_s)
        assert time.latency_s is None or time.latency_s >= 0.0
        state = board.state("probe", now_s)
        assert state is not None
        # Never is a pose believed longer than a pose may be old.
        assert state.usable is (state.age_s <= POSE_STALE_S)
    for _ in range(int((CLOCK_BELIEVED_AFTER_S + 1.0) / 0.02)):
        time = pose(0.02)
    state = board.state("probe", now_s)
    assert state is not None
    assert state.usable
    assert time.fault == ""
    for _ in range(int(2 * WINDOW_S / 0.1) + 10):
        time = pose(0.1)
    assert time.latency_s is not None
    assert time.latency_s < 1e-3


def test_two_peers_with_one_device_name_are_both_not_believed_and_one_alone_is() -> None:
    board, clock = PoseBoard(), SenderClock()

    def came(peer: str, at_s: float) -> None:
        message = codec.TransformMessage(device="probe", timestamp=timestamp_of(1.8e9 + at_s), matrix=rigid())
        time = clock.note(message, 1.8e9 + at_s, at_s)
        with contextlib.suppress(WireError):
            board.update(Received(message, at_s, 1.8e9 + at_s, peer, 0, 106, time))

    for number in range(10):
        came("one", number / 60)
        came("two", number / 60 + 0.001)
        state = board.state("probe", number / 60 + 0.002)
        assert state is not None
        assert "two trackers send 'probe'" in state.unusable_because
    for number in range(200):
        came("one", 1.0 + number / 60)
    state = board.state("probe", 1.0 + 199 / 60)
    assert state is not None
    assert state.usable
