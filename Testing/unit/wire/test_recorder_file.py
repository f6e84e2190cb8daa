"""Recordings: byte for byte, readable after a kill, after damage, and while the disk fails."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire import recorder as recorder_module
from IntraopMRIReconstructionLib.wire.recorder import (
    MARKER,
    RECORD_HEAD_BYTES,
    Direction,
    Record,
    Recorder,
    Recording,
    encode_record,
)
from IntraopMRIReconstructionLib.wire.trust import PeerProfile, facts_of, profile_from

ROOT = Path(recorder_module.__file__).parents[2]


def messages(count: int = 20) -> list[Record]:
    chance = random.Random(4)
    return [
        Record(
            f"peer {number % 3} ä",
            Direction(number % 2),
            chance.randbytes(58),
            chance.randbytes(chance.choice((0, 1, 48, 5000, 200_000))),
            1000.0 + number / 7,
            1.8e9 + number / 7,
        )
        for number in range(count)
    ]


def write(path: Path, records: list[Record]) -> Path:
    with Recorder(path) as recorder:
        for record in records:
            recorder.tap(
                record.connection, record.direction, record.header, record.body, record.monotonic_s, record.utc_s
            )
        assert (recorder.recorded, recorder.lost, recorder.failure) == (len(records), 0, "")
    return path


def read(path: Path) -> tuple[list[Record], int]:
    with Recording(path) as recording:
        return list(recording), recording.damaged_bytes


def test_everything_comes_back(tmp_path: Path) -> None:
    records = messages()
    path = write(tmp_path / "a.rec", records)
    assert read(path) == (records, 0)
    with Recording(path) as recording:
        assert len(recording) == len(records)
        assert recording[7] == records[7]
        assert recording.connections == ("peer 0 ä", "peer 1 ä", "peer 2 ä")
        assert recording.started_utc_s > 1.7e9


def test_what_is_known_about_a_connection_is_kept_once_and_is_no_message(tmp_path: Path) -> None:
    records = messages()
    facts = facts_of(PeerProfile("mine", pose_coordinate="LPS", rigid_transforms=False))
    with Recorder(tmp_path / "a.rec") as recorder:
        for record in records:
            recorder.about(record.connection, facts)
            recorder.tap(
                record.connection, record.direction, record.header, record.body, record.monotonic_s, record.utc_s
            )
    whole = (tmp_path / "a.rec").stat().st_size
    assert read(tmp_path / "a.rec") == (records, 0)
    with Recording(tmp_path / "a.rec") as recording:
        assert recording.about == dict.fromkeys(recording.connections, facts)
        assert profile_from(recording.about["peer 0 ä"]) == PeerProfile(
            "mine", pose_coordinate="LPS", rigid_transforms=False
        )
        assert recording.connections_of(Direction.SENT) == ("peer 1 ä", "peer 0 ä", "peer 2 ä")
    # One line a connection, not one a reconnect.
    assert whole < (write(tmp_path / "b.rec", records)).stat().st_size + 3 * 300


def test_a_recording_of_before_says_nothing_about_its_connections(tmp_path: Path) -> None:
    with Recording(write(tmp_path / "a.rec", messages())) as recording:
        assert recording.about == {}
        assert profile_from({}) is None


@pytest.mark.parametrize(
    "said",
    [
        {"name": "x", "pose_coordinate": "IJK"},
        {"name": "x", "handedness": "left"},
        {"name": 7},
        {"name": "x", "rigid_transforms": "no"},
        {"pose_coordinate": "LPS"},
    ],
)
def test_a_profile_of_another_version_is_not_guessed(said: dict[str, object]) -> None:
    with pytest.raises(WireError, match="unknown here"):
        profile_from({"profile": said})


def test_words_about_a_connection_that_are_no_json_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", messages(2))
    with open(path, "ab") as file:
        file.write(b"".join(encode_record("x", 2, b"", b"{no json", 1.0, 2.0)))
    with pytest.raises(WireError, match="no JSON"):
        Recording(path)


def test_views_of_any_kind_are_taken_as_bytes(tmp_path: Path) -> None:
    import numpy as np

    array = np.arange(6, dtype=">f8")
    with Recorder(tmp_path / "a.rec") as recorder:
        recorder.tap("a", Direction.SENT, bytearray(b"head"), array.data, 1.0, 2.0)
    (record,), _ = read(tmp_path / "a.rec")
    assert (record.header, record.body) == (b"head", array.tobytes())


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", messages(3))
    before = path.read_bytes()
    with pytest.raises(WireError, match="new file"):
        Recorder(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("torn", [1, 3, RECORD_HEAD_BYTES - 1, RECORD_HEAD_BYTES, RECORD_HEAD_BYTES + 30, 3000])
def test_a_torn_last_record_costs_only_itself(tmp_path: Path, torn: int) -> None:
    records = messages()
    path = write(tmp_path / "a.rec", records)
    last = b"".join(encode_record("x", Direction.SENT, b"h" * 58, b"b" * 5000, 1.0, 2.0))
    with open(path, "ab") as file:
        file.write(last[:torn])
    assert read(path) == (records, torn)


def test_damage_in_the_middle_costs_only_the_damaged_records(tmp_path: Path) -> None:
    records = messages()
    path = write(tmp_path / "a.rec", records)
    whole = path.read_bytes()
    offsets = [16]
    for record in records:
        size = RECORD_HEAD_BYTES + len(record.connection.encode()) + len(record.header) + len(record.body)
        offsets.append(offsets[-1] + size)
    assert offsets[-1] == len(whole)
    chance = random.Random(9)
    for number in range(len(records)):
        damaged = bytearray(whole)
        place = chance.randrange(offsets[number], offsets[number + 1])
        damaged[place] ^= 1 << chance.randrange(8)
        other = tmp_path / f"{number}.rec"
        other.write_bytes(damaged)
        got, damaged_bytes = read(other)
        # The reserved byte is covered by the head's checksum as well: any flip is found.
        assert got == records[:number] + records[number + 1 :]
        assert damaged_bytes == offsets[number + 1] - offsets[number]


def test_a_marker_inside_a_payload_starts_no_record(tmp_path: Path) -> None:
    inner = b"".join(encode_record("inner", Direction.SENT, b"", b"never sent", 1.0, 2.0))
    outer = Record("outer", Direction.RECEIVED, MARKER, MARKER + inner + MARKER, 1.0, 2.0)
    assert read(write(tmp_path / "a.rec", [outer, outer])) == ([outer, outer], 0)


@pytest.mark.parametrize("content", [b"", b"IMR", b"GIF89a" * 100, b"IMRIREC\x09" + bytes(100)])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(content)
    with pytest.raises(WireError, match=r"a\.rec"):
        Recording(path)
    with pytest.raises(WireError, match="cannot read"):
        Recording(tmp_path / "missing.rec")


def test_damaged_recordings_raise_nothing(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.rec", messages(30)[:8]).read_bytes()
    chance = random.Random(2)
    for number in range(200):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 30)):
            damaged[chance.randrange(16, len(damaged))] = chance.randrange(256)
        path = tmp_path / f"{number}.rec"
        path.write_bytes(damaged[: chance.randrange(16, len(damaged))])
        records, damaged_bytes = read(path)
        assert len(records) < 8
        assert damaged_bytes > 0 or path.stat().st_size < len(whole)


CHILD = """
import sys
from IntraopMRIReconstructionLib.wire.recorder import Direction, Recorder
recorder = Recorder(sys.argv[1])
size = int(sys.argv[2])
number = 0
while True:
    head, body = number.to_bytes(8, "little"), bytes([number % 256]) * size
    recorder.tap("child", Direction.RECEIVED, head, body, number, number)
    number += 1
    if number <= 5:
        print(number, flush=True)
"""


@pytest.mark.parametrize("size", [100, 1_000_000])
@pytest.mark.parametrize("_attempt", range(3))
def test_a_killed_process_leaves_a_readable_recording(tmp_path: Path, size: int, _attempt: int) -> None:
    path = tmp_path / "a.rec"
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(path), str(size)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        reported = [int(child.stdout.readline()) for _ in range(5)]
        child.kill()
    records, damaged_bytes = read(path)
    assert len(records) >= reported[-1]
    assert [int.from_bytes(record.header, "little") for record in records] == list(range(len(records)))
    assert all(record.body == bytes([number % 256]) * size for number, record in enumerate(records))
    assert damaged_bytes <= RECORD_HEAD_BYTES + 5 + 8 + size


MID_RECORD = """
import sys
from IntraopMRIReconstructionLib.wire import recorder as module
from IntraopMRIReconstructionLib.wire.recorder import Direction, Recorder

class Half:
    # A disk that takes half of a large write and then nothing more.
    closed = False
    def __init__(self, file):
        self.file = file
    def write(self, data):
        if len(data) < 1_000_000:
            return self.file.write(data)
        self.file.write(data[: len(data) // 2])
        print("in the middle", flush=True)
        sys.stdin.read()

recorder = Recorder(sys.argv[1])
recorder.tap("child", Direction.RECEIVED, b"first", b"whole", 1.0, 2.0)
recorder._file = Half(recorder._file)
recorder.tap("child", Direction.RECEIVED, b"second", bytes(2_000_000), 1.0, 2.0)
"""


def test_a_process_killed_in_mid_record_leaves_what_was_before(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    command = [sys.executable, "-c", MID_RECORD, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"in the middle"
        child.kill()
    records, damaged_bytes = read(path)
    assert [record.header for record in records] == [b"first"]
    assert damaged_bytes > 1_000_000


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_stops_the_recording_and_not_the_link(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.rec")
    recorder._file.close()
    recorder._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
    for _ in range(3):
        recorder.tap("a", Direction.RECEIVED, b"head", b"body", 1.0, 2.0)
    assert (recorder.recorded, recorder.lost) == (0, 3)
    assert "No space left" in recorder.failure
    recorder.close()
    recorder.tap("a", Direction.RECEIVED, b"head", b"body", 1.0, 2.0)
    assert recorder.lost == 4


def test_many_threads_may_tap_one_recorder(tmp_path: Path) -> None:
    with Recorder(tmp_path / "a.rec") as recorder:

        def work(name: str) -> None:
            for number in range(200):
                recorder.tap(name, Direction.RECEIVED, number.to_bytes(4, "little"), name.encode() * number, 1.0, 2.0)

        threads = [threading.Thread(target=work, args=(f"link {index}",)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records, damaged_bytes = read(tmp_path / "a.rec")
    assert damaged_bytes == 0
    for index in range(4):
        mine = [record for record in records if record.connection == f"link {index}"]
        assert [int.from_bytes(record.header, "little") for record in mine] == list(range(200))
        assert all(record.body == f"link {index}".encode() * number for number, record in enumerate(mine))
