"""Client and server: queues that keep their promise, reconnection, replies, sentences for a person."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import numpy as np
import pytest
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire import codec, endpoint, subvolume
from IntraopMRIReconstructionLib.wire.connection import Limits
from IntraopMRIReconstructionLib.wire.header import timestamp_now
from IntraopMRIReconstructionLib.wire.intake import IdentityGuard
from IntraopMRIReconstructionLib.wire.message import Message
from IntraopMRIReconstructionLib.wire.queues import MOST_COUNTED, OTHERS, Inbox
from IntraopMRIReconstructionLib.wire.recorder import Direction
from IntraopMRIReconstructionLib.wire.transport import BACK_OFF_S, Client, LinkEvent, Server
from IntraopMRIReconstructionLib.wire.trust import AS_SENT, facts_of
from peers.igtl_samples import frame, rigid, samples, transform_body
from peers.waiting import until

WAIT_S = 20.0


def _text(received: object) -> str:
    message = received.message  # type: ignore[attr-defined]
    assert isinstance(message, codec.StringMessage)
    return message.text


def test_every_type_crosses_a_link_both_ways() -> None:
    with Server(answer_queries=False) as server, Client(port=server.port, answer_queries=False) as client:
        for sender, receiver in ((client, server), (server, client)):
            for message in samples().values():
                assert sender.send(message) == 1
                received = receiver.expect(WAIT_S)
                assert codec.encode(received.message) == codec.encode(message)
                assert received.received_utc_s > 1.7e9
        assert client.counters.received == server.counters.received == len(samples())
        assert client.counters.sent == len(samples())


def test_lossless_streams_hold_the_sender_back_and_lose_nothing() -> None:
    count = 300
    image = np.zeros((1, 64, 512), np.uint8)
    limits = Limits(stream_messages=4, queued_bytes=2**20)
    with Server(limits=limits) as server, Client(port=server.port) as client:

        def send() -> None:
            for number in range(count):
                client.send(codec.ImageMessage(device="T1", timestamp=number + 1, array=image))

        sender = threading.Thread(target=send)
        sender.start()
        # TCP buffers are bounded too: a sender that is not held back would be done by now.
        until(lambda: len(server._inbox) == limits.stream_messages)
        assert sender.is_alive()
        stamps = [server.expect(WAIT_S).message.timestamp for _ in range(count)]
        sender.join()
    assert stamps == list(range(1, count + 1))
    assert not server.counters.dropped


def test_poses_are_latest_wins_and_drops_are_counted() -> None:
    with Server() as server, Client(port=server.port) as client:
        for number in range(1, 101):
            client.send(codec.TransformMessage(device="probe", timestamp=number, matrix=rigid(float(number))))
        client.send(codec.TransformMessage(device="needle", timestamp=7))
        client.send(codec.StringMessage(device="end"))
        until(lambda: server.counters.received == 102)
        first, second = server.expect(WAIT_S), server.expect(WAIT_S)
        assert (first.message.device, first.message.timestamp) == ("probe", 100)
        assert second.message.device == "needle"
        assert server.counters.dropped == {("TRANSFORM", "probe"): 99}


def test_previews_can_be_latest_wins_by_name() -> None:
    with Server(latest=[("IMAGE", "preview")]) as server, Client(port=server.port) as client:
        for number in range(1, 6):
            for device in ("preview", "T1"):
                client.send(codec.ImageMessage(device=device, timestamp=number, array=np.zeros((1, 2, 2))))
        until(lambda: server.counters.received == 10)
        seen = [server.expect(WAIT_S).message for _ in range(6)]
        assert [message.timestamp for message in seen if message.device == "preview"] == [5]
        assert [message.timestamp for message in seen if message.device == "T1"] == [1, 2, 3, 4, 5]


def test_a_deeper_latest_queue_keeps_the_last_ones_in_order() -> None:
    inbox: Inbox[int] = Inbox(10, 10**6)
    key = (0, "TRANSFORM", "probe")
    for number in range(10):
        inbox.put_latest(key, number, 100, depth=4)
        if number == 2:
            inbox.put_latest((0, "TRANSFORM", "other"), 99, 100, depth=4)
    assert [inbox.get(0) for _ in range(6)] == [6, 7, 8, 99, 9, None]
    assert inbox.dropped == {("TRANSFORM", "probe"): 6}
    assert inbox.queued_bytes == 0


def test_invented_names_do_not_fill_the_counters() -> None:
    inbox: Inbox[int] = Inbox(10, 10**9)
    for number in range(MOST_COUNTED + 10):
        for _ in range(2):
            inbox.put_latest((0, "TRANSFORM", str(number)), number, 1, depth=1)
    assert len(inbox.dropped) == MOST_COUNTED + 1
    assert inbox.dropped[OTHERS] == 10


def test_one_type_or_device_can_be_picked() -> None:
    with Server() as server, Client(port=server.port) as client:
        client.send(codec.StringMessage(device="a", text="1"))
        client.send(codec.StatusMessage(device="a"))
        client.send(codec.StringMessage(device="b", text="2"))
        assert _text(server.expect(WAIT_S, device="b")) == "2"
        assert server.expect(WAIT_S, type_name="STATUS").message.device == "a"
        assert _text(server.expect(WAIT_S)) == "1"
        assert server.receive(0) is None


def test_a_server_sends_to_all_and_to_one() -> None:
    with Server() as server, Client(port=server.port) as one, Client(port=server.port) as two:
        until(lambda: len(server.peers) == 2)
        assert server.send(codec.StringMessage(device="x", text="all")) == 2
        assert [_text(client.expect(WAIT_S)) for client in (one, two)] == ["all", "all"]
        one.send(codec.StringMessage(device="x"))
        assert server.send(codec.StringMessage(device="x", text="one"), peer=server.expect(WAIT_S).peer) == 1
        assert _text(one.expect(WAIT_S)) == "one"
        assert two.receive(0) is None


def test_a_client_comes_back_after_the_server_restarted() -> None:
    with Server() as first:
        port = first.port
        with Client(port=port) as client:
            until(lambda: bool(first.peers))
            for number in range(5):
                first.close()
                until(lambda: not client.connected)
                first = Server(port)
                with contextlib.ExitStack() as stack:
                    stack.enter_context(first)
                    assert first.wait_for_peer(WAIT_S)
                    first.send(codec.StringMessage(device="x", text=str(number)))
                    assert _text(client.expect(WAIT_S)) == str(number)
            assert client.counters.lost["closed"] >= 5


def test_closing_loses_nothing_that_was_sent_even_when_the_peer_goes_on_talking() -> None:
    image, count = np.zeros((4, 512, 1024), np.uint8), 8
    with Server() as server, Client(port=server.port, reconnect=False, limits=Limits(stream_messages=1)) as client:
        assert server.wait_for_peer(WAIT_S)
        talking = threading.Thread(target=_talk, args=(client,))
        talking.start()
        seen: list[int] = []
        slow = threading.Thread(target=_take_slowly, args=(client, seen, count))
        slow.start()
        for number in range(1, count + 1):
            server.send(codec.ImageMessage(device="T1", timestamp=number, array=image))
        server.close()
        slow.join()
        talking.join()
    assert seen == list(range(1, count + 1))


def _talk(client: Client) -> None:
    with contextlib.suppress(WireError):
        for _ in range(10_000_000):
            client.send(codec.TransformMessage(device="PLANE_0"))


def _take_slowly(client: Client, seen: list[int], count: int) -> None:
    while len(seen) < count:
        threading.Event().wait(0.02)
        received = client.receive(WAIT_S)
        if received is None:
            return
        seen.append(received.message.timestamp)


def test_a_client_that_must_not_come_back() -> None:
    with Server() as server, Client(port=server.port, reconnect=False) as client:
        assert server.wait_for_peer(WAIT_S)
        server.close()
        until(lambda: not client.connected)
        with pytest.raises(WireError, match="nobody is connected"):
            client.send(codec.StringMessage(device="x"))


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        pytest.raises(WireError, match=f"nothing listens on 127.0.0.1:{port}: start the OpenIGTLink server"),
        Client(port=port),
    ):
        pass


def test_an_unknown_host() -> None:
    with pytest.raises(WireError, match=r"is unknown|cannot connect"), Client("no-such-host.invalid"):
        pass


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_an_impossible_port(port: int) -> None:
    with pytest.raises(WireError, match="port must be 1 to 65535"), Client(port=port):
        pass


def test_a_port_in_use() -> None:
    with Server() as server, pytest.raises(WireError, match="choose another port"), Server(server.port):
        pass


def test_a_peer_that_never_answers() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(port=silent.getsockname()[1]) as client,
        pytest.raises(WireError, match=r"no OpenIGTLink message within 0.05 s; the peer is connected but silent"),
    ):
        client.expect(0.05)


def test_nobody_connected() -> None:
    with Server() as server, pytest.raises(WireError, match=r"no IMAGE named 'T1' within 0.05 s; nobody connected"):
        server.expect(0.05, "IMAGE", "T1")


def test_a_network_address_is_shown() -> None:
    events: list[LinkEvent] = []
    with Server(host="0.0.0.0", on_event=events.append):
        pass
    assert "EVERYBODY ON THE NETWORK" in events[0].text
    with Server(on_event=events.append):
        pass
    assert "this computer only" in events[-1].text


def test_closing_wakes_a_waiting_receiver() -> None:
    with Server() as server:
        result: list[object] = []
        waiting = threading.Thread(target=lambda: result.append(server.receive()))
        waiting.start()
        server.close()
        waiting.join(WAIT_S)
        assert result == [None]


def test_get_is_answered_with_what_is_offered_or_an_empty_body() -> None:
    with Server() as server, Client(port=server.port) as client:
        server.offer("TRANSFORM", "probe", lambda: codec.TransformMessage(device="probe", matrix=rigid()))
        server.offer("STATUS", "scanner", _raise_wire_error)
        for query, answer in [
            (codec.Query(verb="GET", of="TRANSFORM", device="probe"), codec.TransformMessage),
            (codec.Query(verb="GET", of="TRANSFORM"), codec.TransformMessage),
            (codec.Query(verb="GET", of="TRANSFORM", device="needle"), codec.EmptyMessage),
            (codec.Query(verb="GET", of="IMAGE", device="T1"), codec.EmptyMessage),
            (codec.Query(verb="GET", of="STATUS", device="scanner"), codec.EmptyMessage),
            (codec.Query(verb="GET", of="CAPABILITY"), codec.CapabilityMessage),
        ]:
            client.send(query)
            message = client.expect(WAIT_S).message
            assert isinstance(message, answer)
            assert message.type_name == query.of
        assert server.receive(0) is None


def _raise_wire_error() -> Message | None:
    raise WireError("not now")


def test_streams_start_and_stop() -> None:
    with Server() as server, Client(port=server.port) as client:
        server.offer("TDATA", "tracker", lambda: codec.TrackingDataMessage(device="tracker", timestamp=timestamp_now()))
        client.send(codec.Query.start("TDATA", "tracker", 0.01))
        reply = client.expect(WAIT_S, "RTS_TDATA").message
        assert isinstance(reply, codec.Query)
        assert reply.ok
        stamps = [client.expect(WAIT_S, "TDATA").message.timestamp for _ in range(3)]
        assert stamps == sorted(set(stamps))
        client.send(codec.Query(verb="STP", of="TDATA", device="tracker"))
        reply = client.expect(WAIT_S, "RTS_TDATA").message
        assert isinstance(reply, codec.Query)
        assert reply.ok
        for verb in ("STT", "STP"):
            client.send(codec.Query(verb=verb, of="TDATA", device="unknown"))
            reply = client.expect(WAIT_S, "RTS_TDATA").message
            assert isinstance(reply, codec.Query)
            assert not reply.ok


def test_sub_volumes_arrive_as_one_volume() -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    with Server() as server, Client(port=server.port) as client:
        for k in range(4):
            client.send(
                codec.ImageMessage(device="T1", array=voxels[k : k + 1], size_ijk=(2, 3, 4), offset_ijk=(0, 0, k))
            )
        message = server.expect(WAIT_S).message
        assert isinstance(message, codec.ImageMessage)
        np.testing.assert_array_equal(message.array, voxels)
        assert server.receive(0) is None


def test_a_volume_that_stays_incomplete_is_said_so() -> None:
    with Server() as server:
        with Client(port=server.port) as client:
            array = np.zeros((1, 3, 2), np.int16)
            client.send(codec.ImageMessage(device="T1", array=array, size_ijk=(2, 3, 4), offset_ijk=(0, 0, 1)))
            until(lambda: server.counters.received == 1)
        until(lambda: server.counters.incomplete_volumes == 1)
        until(lambda: any(event.kind == "incomplete" and "18 of 24" in event.text for event in server.events))


def test_a_volume_that_stays_incomplete_is_said_although_nothing_else_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scanner that has sent all but one slice, and thinks that it has sent all, is silent."""
    monkeypatch.setattr(subvolume, "LONGEST_PAUSE_S", 0.05)
    with Server() as server, Client(port=server.port) as client:
        assert server.wait_for_peer(WAIT_S)
        server.send(codec.ImageMessage(device="T1", array=np.ones((1, 4, 4), np.int16), size_ijk=(4, 4, 2)))
        until(lambda: client.counters.incomplete_volumes == 1)
        assert client.connected
        assert client.events[-1].kind == "incomplete"


def test_one_identity_guards_several_links() -> None:
    identity = IdentityGuard()
    with Server(identity=identity) as scanner, Server(identity=identity) as pacs:
        for server, patient in ((scanner, "42"), (pacs, "43"), (pacs, "42")):
            with Client(port=server.port) as client:
                client.send(codec.StringMessage(device="x", version=2, metadata={"PatientID": patient}, text=patient))
                until(lambda server=server: server.counters.received + server.counters.refused.total() > 0)  # type: ignore[misc]
        assert _text(scanner.expect(WAIT_S)) == "42"
        assert _text(pacs.expect(WAIT_S)) == "42"
        assert pacs.counters.refused == {"patient": 1}


class _Tap:
    failure = ""

    def __init__(self) -> None:
        self.seen: list[tuple[Direction, bytes]] = []

    def tap(
        self,
        connection: str,
        direction: Direction,
        header_bytes: bytes,
        body_bytes: bytes,
        monotonic_s: float,
        utc_s: float,
    ) -> None:
        self.seen.append((direction, bytes(header_bytes) + bytes(body_bytes)))

    def about(self, connection: str, facts: object) -> None:
        assert facts == facts_of(AS_SENT)


def test_a_tap_sees_all_bytes_both_ways() -> None:
    tap = _Tap()
    hello, answer = codec.StringMessage(device="x", text="hello"), codec.StatusMessage(device="y")
    with Server(tap=tap) as server, Client(port=server.port) as client:  # type: ignore[arg-type]
        client.send(hello)
        server.expect(WAIT_S)
        server.send(answer)
        client.expect(WAIT_S)
        assert not server.counters.callback_errors
    assert tap.seen == [(Direction.RECEIVED, codec.encode(hello)), (Direction.SENT, codec.encode(answer))]


def test_a_server_closes_where_shutdown_does_not_wake_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    class DeafListener(socket.socket):
        def shutdown(self, how: int) -> None:
            raise OSError("not connected")

    create = socket.create_server

    def create_deaf(*args: Any, **options: Any) -> socket.socket:
        return DeafListener(fileno=create(*args, **options).detach())

    monkeypatch.setattr(socket, "create_server", create_deaf)
    with Server() as server:
        closing = threading.Thread(target=server.close, daemon=True)
        closing.start()
        closing.join(WAIT_S)
        assert not closing.is_alive()


def test_whoever_closes_waits_for_no_thread_that_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    server, start = Server(), threading.Thread.start
    known_before: list[bool] = []

    def watched(thread: threading.Thread) -> None:
        known_before.append(thread in server._threads)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", watched)
    with server, socket.create_connection(("127.0.0.1", server.port)):
        assert server.wait_for_peer(WAIT_S)
    assert known_before
    assert not any(known_before)
    assert not server._threads


def test_a_closed_server_still_says_where_it_was() -> None:
    with Server() as server:
        before = server.port, server.address
    assert (server.port, server.address) == before
    assert server.port > 0


def _raise_foreign(*_what: object) -> Any:
    raise ZeroDivisionError("a mistake of the caller")


def test_a_failing_callback_ends_no_link_and_is_counted() -> None:
    with Server() as first:
        port = first.port
        with Client(port=port, on_event=_raise_foreign) as client:
            assert first.wait_for_peer(WAIT_S)
            first.close()
            until(lambda: not client.connected)
            with Server(port) as second:
                assert second.wait_for_peer(WAIT_S)
                second.send(codec.StringMessage(device="x", text="still here"))
                assert _text(client.expect(WAIT_S)) == "still here"
            assert client.counters.callback_errors["on_event"] >= 3
            failed = [event.text for event in client.events if event.kind == "callback failed"]
    assert len(failed) == 1
    assert "ZeroDivisionError" in failed[0]


class _FullDisk:
    failure = "recording to 'a.rec' stopped: no space left"

    def tap(self, *_what: object) -> None:
        """Keep nothing."""

    about = tap


def test_a_recording_that_stopped_is_told_once() -> None:
    told: list[LinkEvent] = []
    with Server() as server, Client(port=server.port, tap=_FullDisk(), on_event=told.append) as client:
        for text in ("first", "second"):
            client.send(codec.StringMessage(device="x", text=text))
            assert _text(server.expect(WAIT_S)) == text
        assert client.counters.callback_errors == {"tap": 3}
        assert [event.kind for event in told] == ["connected", "callback failed"]
        assert "no space left" in told[1].text


class _BrokenTap:
    failure = ""

    def tap(self, *_what: object) -> None:
        raise ValueError("the disk is full")

    about = tap


def test_failing_taps_and_providers_end_no_link() -> None:
    with Server(tap=_BrokenTap()) as server, Client(port=server.port) as client:
        server.offer("TRANSFORM", "probe", _raise_foreign)
        client.send(codec.Query(verb="GET", of="TRANSFORM", device="probe"))
        assert isinstance(client.expect(WAIT_S).message, codec.EmptyMessage)
        client.send(codec.StringMessage(device="x", text="after"))
        assert _text(server.expect(WAIT_S)) == "after"
        assert server.counters.callback_errors == {"provider": 1, "tap": 4}


def test_what_a_provider_gives_that_does_not_fit_ends_no_link() -> None:
    with Server() as server, Client(port=server.port) as client:
        server.offer("STRING", "long", lambda: codec.StringMessage(device="longer than the header holds", text="x"))
        client.send(codec.Query(verb="GET", of="STRING", device="long"))
        assert isinstance(client.expect(WAIT_S).message, codec.EmptyMessage)
        client.send(codec.Query.start("STRING", "long"))
        client.send(codec.StringMessage(device="x", text="after"))
        assert _text(server.expect(WAIT_S)) == "after"
        assert server.counters.callback_errors["provider"] > 0
        assert not server.counters.lost


def test_a_connection_that_is_held_back_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "HELD_BACK_S", 0.05)
    with Server(limits=Limits(stream_messages=1)) as server, Client(port=server.port) as client:
        for number in range(3):
            client.send(codec.StringMessage(device="log", text=str(number)))
        client.send(codec.TransformMessage(device="probe"))
        until(lambda: server.counters.held_back == 1)
        until(lambda: any(event.kind == "held back" for event in server.events))
        (text,) = [event.text for event in server.events if event.kind == "held back"]
        assert "nobody takes STRING 'log'" in text
        assert [_text(server.expect(WAIT_S, "STRING")) for _ in range(3)] == ["0", "1", "2"]
        assert server.expect(WAIT_S, "TRANSFORM").message.device == "probe"
        until(lambda: any(event.kind == "goes on" for event in server.events))


def _tool(name: str, matrix: np.ndarray) -> bytes:
    return name.encode().ljust(20, b"\0") + b"\2\0" + transform_body(matrix)


def test_a_bad_tool_costs_no_other_tool() -> None:
    tools = [("good", rigid()), ("mirrored", np.diag([1.0, 1.0, -1.0, 1.0])), ("unseen", rigid() * np.nan)]
    body = b"".join(_tool(name, matrix) for name, matrix in tools)
    with Server() as server, socket.create_connection((server.host, server.port)) as peer:
        peer.sendall(frame("TDATA", body) + frame("TDATA", body))
        message = server.expect(WAIT_S).message
        assert isinstance(message, codec.TrackingDataMessage)
        assert [tool.name for tool in message.tools] == ["good"]
        until(lambda: server.counters.left_out_tools == {"matrix": 2, "not finite": 2})
        assert not server.counters.refused
        texts = [event.text for event in server.events if event.kind == "left out"]
    assert len(texts) == 2
    assert any("tool 'mirrored' mirrors" in text for text in texts)


def test_a_refused_message_does_not_name_the_patient() -> None:
    with Server(limits=Limits(body_bytes=1000)) as server, Client(port=server.port) as client:
        part = np.zeros((1, 3, 2), np.int16)
        client.send(
            codec.ImageMessage(
                device="T1", array=part, size_ijk=(2, 3, 400), offset_ijk=(0, 0, 1), version=2,
                metadata={"PatientID": "wrong"},
            )
        )  # fmt: skip
        client.send(codec.StringMessage(device="x", version=2, metadata={"PatientID": "42"}, text="42"))
        assert _text(server.expect(WAIT_S)) == "42"
        assert server.counters.refused == {"size": 1}


def test_a_peer_that_hangs_up_at_once_is_asked_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Pauses(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return super().wait(0.0)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(port=listener.getsockname()[1])
        client._closing = Pauses()
        with client:
            for _ in range(8):
                listener.accept()[0].close()
            until(lambda: len(pauses) >= 7)
    assert pauses[:7] == [min(BACK_OFF_S[0] * 2**number, BACK_OFF_S[1]) for number in range(7)]
