"""What a peer can cost: memory, threads, attempts to connect; and what a defect of ours costs the link."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from typing import Any

import numpy as np
import psutil
import pytest
from IntraopMRIReconstructionLib.wire import codec, connection, intake, transport
from IntraopMRIReconstructionLib.wire.bodies import BodyPool
from IntraopMRIReconstructionLib.wire.connection import Limits, prepare
from IntraopMRIReconstructionLib.wire.endpoint import PART_BYTES
from IntraopMRIReconstructionLib.wire.header import RefusedMessage
from IntraopMRIReconstructionLib.wire.queues import Inbox
from IntraopMRIReconstructionLib.wire.subvolume import MOST_LARGE_VOLUMES, VolumeAssembler
from IntraopMRIReconstructionLib.wire.transport import BACK_OFF_S, GREETING, Client, Server
from peers.igtl_samples import frame
from peers.waiting import until

WAIT_S = 20.0


class Pauses(threading.Event):
    """Notes how long somebody would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.asked.append(timeout or 0.0)
        return super().wait(0.0)


@pytest.mark.parametrize(("words", "grows"), [(0, True), (1, True), (GREETING, True), (GREETING + 1, False)])
def test_a_server_that_greets_and_hangs_up_is_asked_less_and_less(words: int, grows: bool) -> None:
    """One that serves a single client says so and hangs up; twenty attempts a second all day help nobody."""
    greeting = codec.encode(codec.StatusMessage(device="Server", code=6, text="another client is served"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(port=listener.getsockname()[1])
        pauses = client._closing = Pauses()
        with client:
            for number in range(1, 8):
                peer, _ = listener.accept()
                peer.sendall(greeting * words)
                peer.close()
                until(lambda number=number: len(pauses.asked) >= number)  # type: ignore[misc]
            assert client.counters.received == 7 * words
    growing = [min(BACK_OFF_S[0] * 2**number, BACK_OFF_S[1]) for number in range(7)]
    assert pauses.asked[:7] == (growing if grows else [BACK_OFF_S[0]] * 7)


def test_a_link_that_lasted_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BACK_OFF_S", (0.01, 0.0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(port=listener.getsockname()[1])
        pauses = client._closing = Pauses()
        with client:
            for _ in range(4):
                listener.accept()[0].close()
            until(lambda: len(pauses.asked) >= 4)
    assert pauses.asked[:4] == [0.01] * 4


def test_nobody_waits_for_a_peer_that_hung_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is that of a person who has just pressed Connect."""
    serve = Client._serve
    ended = threading.Event()

    def over(client: Client, sock: socket.socket) -> connection.LinkEnded:
        end = serve(client, sock)
        ended.set()
        return end

    def late(client: Client, work: Any, name: str) -> None:
        start(client, work, name)
        assert ended.wait(WAIT_S)

    start = Client._start
    monkeypatch.setattr(Client, "_serve", over)
    monkeypatch.setattr(Client, "_start", late)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hangs_up = threading.Thread(target=lambda: listener.accept()[0].close())
        hangs_up.start()
        with Client(port=listener.getsockname()[1], reconnect=False, connect_s=3600.0) as client:
            assert client.counters.connections == 1
            assert not client.connected
        hangs_up.join()


def test_a_storm_of_connections_leaves_no_thread_and_no_file_behind() -> None:
    process = psutil.Process()
    with Server() as server:
        before = process.num_threads(), process.num_fds()
        for number in range(300):
            with contextlib.suppress(OSError), socket.create_connection((server.host, server.port)) as peer:
                # Some say nothing, some half a header, some a whole message.
                peer.sendall(codec.encode(codec.StringMessage(device="x", text="hello"))[: (0, 30, 200)[number % 3]])
        until(lambda: server.counters.connections + server.counters.lost["too many peers"] == 300)
        until(lambda: not server.peers)
        until(lambda: process.num_threads() <= before[0])
        assert process.num_fds() <= before[1]
        with Client(port=server.port) as client:
            client.send(codec.StringMessage(device="after", text="storm"))
            assert server.receive(WAIT_S, device="after") is not None


def test_what_is_queued_counts_what_it_takes_in_memory() -> None:
    """A one-letter text of 63 bytes is an object of ten times that; a million of them are no 63 MB."""
    limits = Limits(queued_bytes=100 * (PART_BYTES + 64), streams=100_000, stream_messages=10_000)
    with Server(limits=limits) as server, Client(port=server.port) as client:
        for _ in range(300):
            client.send(codec.StringMessage(device="x", text="a"))
        until(lambda: server.counters.received >= 101)
        assert len(server._inbox) <= 100
        for _ in range(300):
            assert server.receive(WAIT_S) is not None


def test_streams_of_which_the_newest_counts_are_bounded_together() -> None:
    inbox: Inbox[int] = Inbox(10, 1000)
    for number in range(50):
        assert inbox.put_latest((0, "IMAGE", str(number)), number, 100, depth=1)
    assert inbox.queued_bytes == 2000
    assert len(inbox) == 20
    assert inbox.dropped.total() == 30
    # The newest of a stream that is there still comes through.
    inbox.put_latest((0, "IMAGE", "3"), 99, 100, depth=1)
    assert [inbox.get(0) for _ in range(5)] == [0, 1, 2, 99, 4]


def test_volumes_of_which_parts_have_come_are_bounded_together() -> None:
    part = np.zeros((1, 10, 10), np.int16)
    limit = 10 * 10 * 10 * 3
    assembler = VolumeAssembler(limit)

    def begin(device: str) -> None:
        assembler.feed(codec.ImageMessage(device=device, array=part, size_ijk=(10, 10, 10)), 0.0)

    for number in range(MOST_LARGE_VOLUMES):
        begin(str(number))
    with pytest.raises(RefusedMessage, match="no more can begin") as refused:
        begin("one more")
    assert refused.value.reason == "size"
    assembler.feed(codec.ImageMessage(device="0", array=np.zeros((10, 10, 10), np.int16)), 0.0)
    begin("one more")


def test_a_body_that_no_memory_is_left_for_ends_the_link_and_the_client_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take, lacking = BodyPool.take, [True]

    def none_left(pool: BodyPool, size: int) -> memoryview:
        if size > 1000 and lacking.pop():
            raise MemoryError
        return take(pool, size)

    monkeypatch.setattr(BodyPool, "take", none_left)
    image = codec.ImageMessage(device="T1", array=np.zeros((1, 64, 64), np.int16))
    with Server() as server, Client(port=server.port) as client:
        assert server.wait_for_peer(WAIT_S)
        server.send(image)
        until(lambda: client.counters.lost["memory"] == 1)
        lacking.append(False)
        until(lambda: client.counters.connections == 2 and bool(server.peers))
        server.send(image)
        assert client.expect(WAIT_S).message.device == "T1"
        assert any("memory" in event.text for event in client.events if event.kind == "lost")


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), MemoryError()])
def test_a_defect_of_ours_costs_one_message_and_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    decode = intake.decode

    def defective(raw: Any, body: Any, crc: int) -> codec.Message:
        message = decode(raw, body, crc)
        if message.device == "fatal":
            raise error
        return message

    monkeypatch.setattr(intake, "decode", defective)
    with Server() as server, Client(port=server.port) as client:
        client.send(codec.StringMessage(device="fatal", text="x"))
        client.send(codec.StringMessage(device="next", text="x"))
        assert server.expect(WAIT_S).message.device == "next"
        assert server.counters.refused == {"defect": 1}
        assert not server.counters.lost
        assert any("defect in this software" in event.text for event in server.events)
    assert "defect while a message" in caplog.text


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no such option")
@pytest.mark.parametrize(("send_s", "expected_ms"), [(10.0, 20_000), (120.0, 120_000)])
def test_a_cable_that_is_pulled_while_we_send_is_noticed(send_s: float, expected_ms: int) -> None:
    """Without the option the kernel repeats what was sent for a quarter of an hour and calls the link alive."""
    with Server(limits=Limits(send_s=send_s)) as server, Client(port=server.port, limits=Limits(send_s=send_s)):
        assert server.wait_for_peer(WAIT_S)
        (link,) = server._connections.values()
        assert link._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == expected_ms


class _Cut:
    """A socket whose kernel has given up on what it sent."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def recv_into(self, *_where: object) -> int:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def test_a_peer_out_of_reach_is_not_one_that_hung_up() -> None:
    with Server() as server, Client(port=server.port, reconnect=False) as client:
        until(lambda: bool(client.peers))
        (link,) = client._connections.values()
        link._socket = _Cut(link._socket)  # type: ignore[assignment]
        until(lambda: client.counters.lost == {"unreachable": 1})
        assert any("check cable and network" in event.text for event in client.events)


def test_a_body_that_dribbles_does_not_hold_its_link_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is progress, but a megabyte of them would take a day."""
    limits = Limits(stall_s=0.4, slowest_bytes_per_s=1e6)
    with Server(limits=limits) as server, socket.create_connection((server.host, server.port)) as peer:
        peer.sendall(frame("IMAGE", b"", size=1_000_000))
        tick = threading.Event()
        with contextlib.suppress(OSError):
            while not server.counters.lost:
                peer.sendall(b"x")
                tick.wait(limits.stall_s / 8)
        assert server.counters.lost == {"stalled": 1}
        assert any("of 1000000 bytes of IMAGE" in event.text for event in server.events)


def test_a_deaf_peer_costs_the_sender_its_limit_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that stops reading: one call waits, the link is cut, all later calls fail at once."""
    monkeypatch.setattr(connection, "TICK_S", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as deaf,
        Client(port=deaf.getsockname()[1], reconnect=False, limits=Limits(send_s=0.2)) as client,
    ):
        picture = codec.ImageMessage(device="x", array=np.zeros((64, 512, 512), np.int16))
        with pytest.raises(transport.WireError, match="takes no data"):
            client.send(picture)
        until(lambda: not client.connected)
        for _ in range(1000):
            with pytest.raises(transport.WireError, match="nobody is connected"):
                client.send(picture)


def test_a_dead_peer_is_looked_for_under_either_name_of_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS calls TCP_KEEPIDLE TCP_KEEPALIVE: without it a half-open link would stay for two hours."""
    option = socket.TCP_KEEPIDLE
    monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", option, raising=False)
    with socket.socket() as sock:
        prepare(sock, 10.0)
        assert sock.getsockopt(socket.IPPROTO_TCP, option) == 10
