"""What a session takes from its tracker and its live stream, over a day and beside what else they send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from IntraopMRILib.navigate.watch import PoseWatch
from IntraopMRILib.session import Session
from IntraopMRILib.session import links as module
from IntraopMRILib.session.journal import Journal
from IntraopMRILib.session.links import Link, Links
from IntraopMRILib.session.updates import Problem, Update
from IntraopMRIReconstructionLib.data import Image, Pose
from IntraopMRIReconstructionLib.errors import DataError, WireError
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.connection import Limits
from IntraopMRIReconstructionLib.wire.scanner_dialect import ScannerState
from IntraopMRIReconstructionLib.wire.transport import Server
from IntraopMRIReconstructionLib.wire.trust import profile_named
from peers.igtl_samples import frame, transform_body
from peers.waiting import until
from session.small_world import SmallWorld

WAIT_S = 20.0


@contextmanager
def linked(part: str, told: list[Update] | None = None, **known: object) -> Iterator[tuple[Links, Server]]:
    """Links with one peer."""
    with Server() as server:
        links = Links("patient", Journal("patient", "test"), (told if told is not None else []).append, {})
        link = Link("127.0.0.1", server.port, **known)  # type: ignore[arg-type]
        links.connect(*(link if name == part else None for name in ("scanner", "tracker", "live")))
        try:
            assert server.wait_for_peer(WAIT_S)
            yield links, server
        finally:
            links.close()


def shifted(x_mm: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 3] = x_mm
    return matrix


def transform(device: str, x_mm: float) -> codec.TransformMessage:
    return codec.TransformMessage(device=device, matrix=shifted(x_mm))


def tools(*named: tuple[str, float]) -> codec.TrackingDataMessage:
    found = tuple(codec.TrackedTool(name, shifted(x_mm)) for name, x_mm in named)
    return codec.TrackingDataMessage(device="tracker", tools=found)


def heartbeats(server: Server, count: int) -> None:
    """A peer that reports its state all day."""
    for number in range(count):
        server.send(codec.StatusMessage(device="camera", text=str(number)))


def taken(links: Links) -> list[Pose]:
    """Every pose that is handed on until one at x = 99 mm comes."""
    poses: list[Pose] = []

    def ends() -> bool:
        pose = links.pose()
        poses.extend([pose] if pose is not None else [])
        return bool(poses) and poses[-1].ras_from_tool[0, 3] == 99.0

    until(ends)
    return poses


def test_live_slices_come_all_day_beside_reports_of_state() -> None:
    slices: list[Image] = []

    def arrived(count: int) -> bool:
        live = links.live_slice()
        slices.extend([live] if live is not None else [])
        return len(slices) == count

    with linked("live") as (links, server):
        for number in range(1, 4):
            heartbeats(server, Limits().stream_messages // 2)
            server.send(codec.ImageMessage(device="live", array=np.full((1, 4, 4), number, np.int16)))
            until(lambda number=number: arrived(number))  # type: ignore[misc]
    assert [int(live.array[0, 0, 0]) for live in slices] == [1, 2, 3]


def test_the_newest_pose_comes_beside_reports_of_state() -> None:
    with linked("tracker") as (links, server):
        assert links.tracker is not None
        client = links.tracker
        for number in range(1, 4):
            heartbeats(server, 300)
            server.send(transform("pointer", float(number)))
            until(lambda number=number: client.counters.received == 301 * number)  # type: ignore[misc]
            pose = links.pose()
            assert pose is not None
            assert pose.ras_from_tool[0, 3] == number


def test_the_pointer_never_becomes_another_tool_that_the_tracker_sees() -> None:
    told: list[Update] = []
    with linked("tracker", told) as (links, server):
        # The camera loses the pointer and still sees the reference: nothing is a pointer then.
        server.send(tools(("pointer", 1.0), ("reference", 50.0)))
        until(lambda: links.pose() is not None)
        for seen in ([("reference", 50.0)], [("reference", 50.0), ("pointer", 99.0)]):
            server.send(tools(*seen))
            server.send(transform("patient", 60.0))
        assert {pose.tool for pose in taken(links)} == {"pointer"}
    (problem,) = told
    assert isinstance(problem, Problem)
    assert not problem.fatal
    assert "sees 'reference' too; only 'pointer' is followed" in problem.text


def test_a_tool_that_comes_alone_is_taken_up_and_one_from_beside_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pointer is put away and a probe taken up; the reference, which the camera sees all the time, is neither."""
    monkeypatch.setattr(module, "HANDOVER_S", 0.1)
    tick = threading.Event()
    with linked("tracker") as (links, server):
        server.send(tools(("pointer", 1.0), ("reference", 50.0)))
        until(lambda: links.pose() is not None)
        # Long after, the reference alone; and the pointer comes back behind another one in the list.
        tick.wait(0.2)
        server.send(tools(("drill", 3.0), ("reference", 50.0), ("pointer", 99.0)))
        assert [pose.tool for pose in taken(links)] == ["pointer"]
        seen: set[str] = set()
        for _ in range(15):
            server.send(tools(("reference", 50.0)))
            tick.wait(0.02)
            pose = links.pose()
            seen |= {pose.tool} if pose is not None else set()
        assert not seen
        server.send(tools(("reference", 50.0), ("probe", 99.0)))
        assert [pose.tool for pose in taken(links)] == ["probe"]


@pytest.mark.parametrize("chosen", [False, True])
def test_what_the_tracker_does_not_see_is_no_pointer(monkeypatch: pytest.MonkeyPatch, chosen: bool) -> None:
    monkeypatch.setattr(module, "HANDOVER_S", -1.0)

    def sent(tool: str, status: str) -> Pose | None:
        count, metadata = client.counters.received, {"Status": status}
        server.send(codec.TransformMessage(device=tool, version=2, metadata=metadata, matrix=shifted(1.0)))
        until(lambda: client.counters.received > count and len(client._inbox) > 0)
        return links.pose()

    with linked("tracker", tool="pointer" if chosen else "") as (links, server):
        assert links.tracker is not None
        client = links.tracker
        assert sent("probe", "MISSING") is None
        first = sent("pointer", "OK")
        assert first is not None
        unseen = sent("pointer", "MISSING")
        assert unseen is not None
        assert not unseen.valid
        taken_up = sent("probe", "OK")
        assert (taken_up is None) is chosen


def test_a_person_says_which_tool_is_the_pointer() -> None:
    with linked("tracker", tool="pointer") as (links, server):
        server.send(tools(("reference", 50.0)))
        server.send(tools(("reference", 50.0), ("pointer", 99.0)))
        poses = taken(links)
        assert links.tools() == module.Tools("pointer", True, ("reference",))
    assert [pose.tool for pose in poses] == ["pointer"]


def test_a_chosen_tool_that_does_not_come_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDOVER_S", 0.1)
    told: list[Update] = []
    with linked("tracker", told, tool="Pointre") as (links, server):
        assert not links.tools().is_missing, "nothing has come at all"
        server.send(tools(("pointer", 1.0), ("reference", 50.0)))
        until(lambda: links.pose() is None and bool(links.tools().others))
        assert links.tools() == module.Tools("Pointre", False, ("pointer", "reference"))
        assert links.tools().is_missing
        assert not told, "it may still come"

        def seen_again() -> bool:
            server.send(tools(("pointer", 1.0), ("reference", 50.0)))
            assert links.pose() is None
            return bool(told)

        until(seen_again)
        for _ in range(3):
            seen_again()
        # It comes, though out of sight: the name was right.
        server.send(replace(transform("Pointre", 9.0), version=2, metadata={"Status": "MISSING"}))
        until(lambda: links.pose() is not None)
        assert not links.tools().is_missing
    (problem,) = told
    assert isinstance(problem, Problem)
    assert not problem.fatal
    assert problem.text.endswith("'Pointre', which was chosen as the pointer, but 'pointer', 'reference'")


def test_a_scaling_that_is_no_tool_hides_no_tool() -> None:
    scaling = codec.TransformMessage(device="ImageToProbe", matrix=np.diag([0.2, 0.2, 0.2, 1.0]))
    with linked("tracker", profile=profile_named("Plus")) as (links, server):
        server.send(scaling)
        with pytest.raises(DataError, match="ImageToProbe"):
            until(lambda: links.pose() is not None)
        server.send(transform("ProbeToTracker", 1.0))
        server.send(scaling)
        server.send(transform("ProbeToTracker", 99.0))
        assert {pose.tool for pose in taken(links)} == {"ProbeToTracker"}


def test_a_peer_that_stops_reading_does_not_hold_up_the_window() -> None:
    picture = codec.ImageMessage(device="x", array=np.zeros((64, 512, 512), np.int16))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        links = Links("patient", Journal("patient", "test"), lambda _update: None, {})
        links.connect(Link("127.0.0.1", deaf.getsockname()[1]), None, None)
        try:
            assert links.scanner is not None
            with pytest.raises(WireError, match=r"takes no data for 0\.5 s"):
                links.scanner.send(picture)
        finally:
            links.close()


def test_a_night_of_a_flapping_link_is_a_few_lines_and_loses_no_count() -> None:
    """A scanner that reports and hangs up, again and again: what happened stays, what repeats is counted."""
    told: list[Update] = []
    flaps = 12

    def flap(links: Links, server: Server) -> None:
        assert links.scanner is not None
        client, count = links.scanner, links.scanner.counters.connections
        assert server.wait_for_peer(WAIT_S)
        server.send(codec.StatusMessage(device="START_UP"))
        assert client.receive(WAIT_S) is not None
        for connection in list(server._connections.values()):
            connection.close(0.0)
        until(lambda: client.counters.connections > count)

    with linked("scanner", told) as (links, server), pytest.MonkeyPatch.context() as patch:
        patch.setattr("IntraopMRIReconstructionLib.wire.transport.BACK_OFF_S", (0.01, 0.02))
        for _ in range(flaps):
            flap(links, server)
        links.controls["scanner"].panic("the patient moves")
        events = links._journal.record.events
    texts = [event.text for event in events]
    assert len(events) <= 4 * 4 + 4, texts
    for words, count in (("is connected", flaps + 1), ("hung up (", flaps), ("ready: STATUS", flaps - 1)):
        assert sum(f"({count} times since {events[0].utc[:13]}" in text for text in texts if words in text), texts
    first = next(event.utc for event in events if "lost" in event.text)
    counted = next(event for event in events if "lost" in event.text and f"({flaps} times" in event.text)
    assert f"since {first}, last " in counted.text
    assert counted.text.rpartition("last ")[2][:-1] > counted.utc
    # What a person does in the middle of it is no repetition.
    assert any("the patient moves" in text for text in texts)
    assert any("EMERGENCY" in text or "is sent as CMD_" in text for text in texts)
    # A person hears of it at first, and then at every doubling.
    said = [update.text for update in told if isinstance(update, Problem) and "does not answer" in update.text]
    assert [text.partition(" (")[2] for text in said] == ["", "", "", "4 times by now)", "8 times by now)"]


@pytest.mark.parametrize("clock_s", [1000.0, 4.2e9], ids=["1970", "2103"])
@pytest.mark.parametrize("bound", [False, True])
def test_a_frozen_tracker_is_not_live_although_its_clock_is_wrong_by_years(clock_s: float, bound: bool) -> None:
    """Its stamps tell no time, but that they stand still is told by any clock."""
    with linked("tracker") as (links, server):
        watch, seen = PoseWatch("pointer", lambda: now_s), []
        now_s = 0.0
        for step in range(40):
            stamp = codec.timestamp_of(clock_s + min(step, 20) / 60)
            moved: codec.Message = replace(transform("pointer", float(step)), timestamp=0 if bound else stamp)
            if bound:
                moved = codec.BindMessage(device="tools", timestamp=stamp, children=(moved,))
            server.send(moved)
            poses: list[Pose | None] = []
            until(lambda poses=poses: poses.append(links.pose()) or poses[-1] is not None)  # type: ignore[misc]
            assert poses[-1] is not None
            assert poses[-1].sent_utc_s is None
            now_s += 1 / 60
            watch.update(replace(poses[-1], received_monotonic_s=now_s))
            seen.append(watch.state().live)
    assert all(seen[10:20])
    assert not any(seen[-2:])


def test_a_noisy_cable_does_not_hide_that_the_patient_is_another_one() -> None:
    """Each damaged message has a text of its own; they are told a few times, then counted, each reason by itself."""
    told: list[Update] = []
    with linked("scanner", told) as (links, server):
        assert links.scanner is not None
        client = links.scanner
        for number in range(200):
            good = bytearray(codec.encode(codec.StringMessage(device="noise", text=str(number))))
            good[-1] ^= 0xFF
            for connection in list(server._connections.values()):
                connection.send([bytes(good)])
        server.send(codec.StringMessage(device="scan", version=2, metadata={"PatientID": "somebody else"}, text="x"))
        until(lambda: client.counters.refused["patient"] == 1)
        assert client.counters.refused["crc"] == 200
    texts = [update.text for update in told if isinstance(update, Problem)]
    assert "is of patient 'somebody else'" in texts[-1]
    assert len(texts) < 20
    assert any("(128 times by now)" in text for text in texts)


def test_a_scan_that_stays_incomplete_and_tools_of_one_name_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a scan, or for the pointer, must hear why it does not come; an unseen tool is no fault."""
    monkeypatch.setattr("IntraopMRIReconstructionLib.wire.subvolume.LONGEST_PAUSE_S", 0.05)
    told: list[Update] = []
    with linked("scanner", told) as (_links, server):
        server.send(codec.ImageMessage(device="T1", array=np.ones((1, 4, 4), np.int16), size_ijk=(4, 4, 2)))
        until(lambda: bool(told))
    with linked("tracker", told) as (links, server):
        body = b"".join(
            name.ljust(20, b"\0") + b"\2\0" + transform_body(shifted(x_mm))
            for name, x_mm in ((b"drill", 1.0), (b"hidden", np.nan), (b"stylus", 2.0), (b"stylus", 3.0))
        )
        for connection in list(server._connections.values()):
            connection.send([frame("TDATA", body)])
        until(lambda: links.pose() is not None)
        assert links.tools().pointer == "drill"
    said = [update.text for update in told if isinstance(update, Problem)]
    assert len(said) == 2, said
    assert "a volume of IMAGE 'T1' stayed incomplete: 16 of 32 voxels never came; it is not shown" in said[0]
    assert "several tools named 'stylus'" in said[1]


def test_scans_that_are_started_at_the_console_are_no_flapping_link() -> None:
    """A peer that is believed by its images: each time that it scans, and stops, is written down."""
    clock = [0.0]
    with linked("scanner", profile=profile_named("mrigtlbridge")) as (links, _server):
        control = links.controls["scanner"]
        control._now = lambda: clock[0]
        for _ in range(6):
            control.on_message(codec.ImageMessage(device="MR", array=np.zeros((1, 2, 2), np.int16)))
            clock[0] += 10.0
            control.poll()
        texts = [event.text for event in links._journal.record.events if event.kind == "scanner"]
    assert texts == 6 * ["scanning: images arrive", "ready: no image for 3 s"]


@pytest.mark.parametrize("beside", [("scanner",), ()])
def test_a_robot_is_heard_all_day_and_an_emergency_stop_reaches_all(beside: tuple[str, ...]) -> None:
    """Beside a scanner, or beside chosen volumes."""
    with Server() as scanner, Server() as robot, Session(SmallWorld().brain()) as session:
        asked = Link("127.0.0.1", robot.port, profile_named("MR robot"))
        session.connect(Link("127.0.0.1", scanner.port) if beside else None, robot=asked)
        assert set(session.links()) == {*beside, "robot"}
        control = session.controls["robot"]
        assert robot.wait_for_peer(WAIT_S)
        heartbeats(robot, Limits().stream_messages + 10)
        robot.send(codec.StatusMessage(device="PLANNING"))
        until(lambda: control.phase == "PLANNING")
        for each in session.controls.values():
            each.panic("the patient moves")
        servers = [scanner, robot] if beside else [robot]
        sent = [server.expect(WAIT_S).message for server in servers]
        assert [message.text for message in sent if isinstance(message, codec.StringMessage)] == (
            ["STOP_SEQUENCE", "EMERGENCY"] if beside else ["EMERGENCY"]
        )
        robot.send(codec.StatusMessage(device="EMERGENCY", code=3))
        until(lambda: control.emergency_stop is not None and control.emergency_stop.confirmed_utc_s is not None)
        unconfirmed = [
            part
            for part, each in session.controls.items()
            if each.emergency_stop is not None and each.emergency_stop.confirmed_utc_s is None
        ]
        assert unconfirmed == [*beside]
        told = {event.kind for event in session.journal.record.events if "the patient moves" in event.text}
    assert {*beside, "robot"} <= told


def test_a_robot_that_hangs_up_is_said_and_no_scan_is_lost_by_it() -> None:
    with Server() as scanner, Server() as robot, Session(SmallWorld().brain()) as session:
        asked = Link("127.0.0.1", robot.port, profile_named("MR robot"))
        session.connect(Link("127.0.0.1", scanner.port), robot=asked)
        assert robot.wait_for_peer(WAIT_S)
        robot.close()
        until(lambda: session.controls["robot"].state is ScannerState.NO_ANSWER)
        assert session.controls["scanner"].state is ScannerState.UNKNOWN
        until(lambda: not session.links()["robot"][1])
        assert session.links()["scanner"][1]
        said = [update.text for update in session.drain() if isinstance(update, Problem)]
    assert any(text.startswith("the robot: does not answer") for text in said), said
