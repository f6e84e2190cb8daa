"""Replay: the same bytes, at the chosen speed, into the codec and over TCP into the real client."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import DataError, WireError
from IntraopMRIReconstructionLib.wire.codec import (
    ImageMessage,
    Message,
    StringMessage,
    TransformMessage,
    decode,
    encode,
)
from IntraopMRIReconstructionLib.wire.header import HEADER_SIZE
from IntraopMRIReconstructionLib.wire.recorder import Direction, Record, Recorder, Recording
from IntraopMRIReconstructionLib.wire.replay import ReplayServer, chosen, replay
from IntraopMRIReconstructionLib.wire.transport import Client, Server


def session() -> list[Message]:
    """A tracker, a picture and a text."""
    poses: list[Message] = []
    for number in range(30):
        matrix = np.eye(4)
        matrix[:3, 3] = number, 2, 3
        poses.append(TransformMessage(device="Pointer", matrix=matrix, timestamp=(1000 << 32) + number))
    image = ImageMessage(device="Scan", array=np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    return [*poses[:10], image, *poses[10:], StringMessage(device="Note", text="done")]


def recorded(path: Path, spacing_s: float = 0.1) -> Recording:
    with Recorder(path) as recorder:
        for number, message in enumerate(session()):
            raw = encode(message)
            at = 50.0 + number * spacing_s
            recorder.tap("tracker", Direction.RECEIVED, raw[:HEADER_SIZE], raw[HEADER_SIZE:], at, 1.8e9 + at)
            recorder.tap("tracker", Direction.SENT, b"answer", b"", at, 1.8e9 + at)
    return Recording(path)


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.time_s = 500.0

    def now(self) -> float:
        return self.time_s

    def wait(self, seconds: float) -> None:
        self.time_s += seconds


@pytest.mark.parametrize(("speed", "spacing_s"), [(1.0, 0.1), (4.0, 0.025), (0.5, 0.2), (None, 0.0)])
def test_distances_in_time_follow_the_speed(tmp_path: Path, speed: float | None, spacing_s: float) -> None:
    clock = Clock()
    times = []
    with recorded(tmp_path / "a.rec") as recording:
        count = replay(
            chosen(recording), lambda _record: times.append(clock.now()), speed, now=clock.now, wait=clock.wait
        )
    assert count == len(times) == 32
    np.testing.assert_allclose(times, 500.0 + spacing_s * np.arange(32), atol=1e-9)


def test_a_slow_sink_delays_and_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()

    def slow(_record: Record) -> None:
        clock.time_s += 0.3 if clock.time_s < 501.0 else 0.0

    with recorded(tmp_path / "a.rec") as recording:
        assert replay(chosen(recording), slow, now=clock.now, wait=clock.wait) == 32
    # It catches up: the end is where it would have been.
    assert clock.time_s == pytest.approx(500.0 + 31 * 0.1)


def test_replay_stops_while_it_waits(tmp_path: Path) -> None:
    stop = threading.Event()
    with recorded(tmp_path / "a.rec", spacing_s=1000.0) as recording:
        assert replay(chosen(recording), lambda _record: stop.set(), stop=stop) == 1


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan")])
def test_wrong_speeds_are_refused(tmp_path: Path, speed: float) -> None:
    with recorded(tmp_path / "a.rec") as recording, pytest.raises(DataError, match="speed"):
        replay(recording, lambda _record: None, speed)


def test_replay_feeds_the_codec_directly(tmp_path: Path) -> None:
    messages: list[Message] = []
    with recorded(tmp_path / "a.rec") as recording:
        replay(chosen(recording), lambda record: messages.append(decode(record.header, record.body)), None)
    assert [encode(message) for message in messages] == [encode(message) for message in session()]


def test_a_live_session_is_recorded_and_replayed_to_the_real_client(tmp_path: Path) -> None:
    sent = session()
    with Recorder(tmp_path / "a.rec") as recorder:
        with Server() as server, Client(port=server.port, tap=recorder, latest_depth=1000) as client:
            name = f"127.0.0.1:{server.port}"
            assert server.wait_for_peer(20)
            for message in sent:
                server.send(message)
            live = [client.expect(20).message for _ in sent]
            client.send(StringMessage(device="Answer", text="thanks"))
            assert server.expect(20).message.device == "Answer"
        assert not recorder.failure
    assert [encode(message) for message in live] == [encode(message) for message in sent]
    with Recording(tmp_path / "a.rec") as recording:
        assert recording.connections == (name,)
        assert [record.header + record.body for record in chosen(recording)] == [encode(message) for message in sent]
        said = [*chosen(recording, direction=Direction.SENT)]
        assert [decode(record.header, record.body).device for record in said] == ["Answer"]
        with (
            ReplayServer(recording, speed=None) as player,
            Client(port=player.port, reconnect=False, latest_depth=1000) as again,
        ):
            replayed = [again.expect(20).message for _ in sent]
            assert player.wait_finished(20)
            assert (player.played, player.failures) == (len(sent), [])
    assert [encode(message) for message in replayed] == [encode(message) for message in sent]


def test_each_play_is_whole_and_then_nobody_is_served(tmp_path: Path) -> None:
    with recorded(tmp_path / "a.rec") as recording, ReplayServer(recording, None, plays=2) as player:
        expected = b"".join(record.header + record.body for record in chosen(recording))
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", player.port), timeout=20) as peer:
                # What the peer says while it listens must not reset the link.
                peer.sendall(b"hello")
                assert peer.makefile("rb").read() == expected
        assert player.wait_finished(20)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", player.port), timeout=20)


def test_a_peer_that_leaves_ends_its_play(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    with Recorder(path) as recorder:
        for _ in range(40):
            recorder.tap("a", Direction.RECEIVED, b"head", bytes(1_000_000), 1.0, 2.0)
    with Recording(path) as recording, ReplayServer(recording, None) as player:
        socket.create_connection(("127.0.0.1", player.port), timeout=20).close()
        assert player.wait_finished(20)
        assert "went away" in player.failures[0]


def test_closing_ends_a_waiting_play(tmp_path: Path) -> None:
    with recorded(tmp_path / "a.rec", spacing_s=1000.0) as recording:
        player = ReplayServer(recording)
        with socket.create_connection(("127.0.0.1", player.port), timeout=20) as peer:
            assert peer.recv(1)
            player.close()
        assert player.wait_finished(0)


def test_the_choice_of_connection_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    with Recorder(path) as recorder:
        for name in ("one", "two"):
            recorder.tap(name, Direction.RECEIVED, name.encode(), b"", 1.0, 2.0)
    with Recording(path) as recording:
        for wrong in (None, "three"):
            with pytest.raises(DataError, match="one, two"):
                ReplayServer(recording, connection=wrong)
        with (
            ReplayServer(recording, connection="two") as player,
            socket.create_connection(("127.0.0.1", player.port), timeout=20) as peer,
        ):
            assert peer.makefile("rb").read() == b"two"
        with ReplayServer(recording, connection="two") as player, pytest.raises(WireError, match="another port"):
            ReplayServer(recording, connection="two", port=player.port)
