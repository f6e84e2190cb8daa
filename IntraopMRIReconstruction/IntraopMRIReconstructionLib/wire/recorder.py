"""Wire traffic on disk, byte for byte: written while the link lives, readable after a crash.

A recording is a file header followed by records, one a message. Each record carries a marker, its lengths, the receive
times, the name of its connection and two checksums: one over its own head (so that lengths can be trusted when the
file is damaged) and one over the payload. Nothing is buffered in the process: a killed process loses at most the
record it was writing. There is no index on disk; :class:`Recording` rebuilds it on opening.

All numbers are little-endian:

    file    magic "IMRIREC" + version (8 bytes), start of the recording in UTC seconds (f64)
    record  marker "\\xf5REC" (4), direction (u8), reserved (u8), connection name length (u16), header length (u32),
            body length (u64), monotonic seconds (f64), UTC seconds (f64), CRC-64 of name + header + body (u64),
            CRC-32 of the bytes so far (u32); then name (UTF-8), header, body

A record of direction 2 is no message: its body is a JSON object, what is known about the connection (how its peer
means what it sends). Recordings of before have none.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from fastcrc import crc64

from ..errors import WireError

Bytes = bytes | bytearray | memoryview

MAGIC = b"IMRIREC\x01"
MARKER = b"\xf5REC"
_FILE_HEAD = struct.Struct("<8sd")
_RECORD_HEAD = struct.Struct("<4sBBHIQddQ")
_HEAD_CRC = struct.Struct("<I")
RECORD_HEAD_BYTES = _RECORD_HEAD.size + _HEAD_CRC.size

#: In the place of a direction: what is known about the connection.
_ABOUT = 2
#: Below this size one joined write is faster than three.
_JOIN_BELOW_BYTES = 1 << 16


class Direction(IntEnum):
    """Which way a message went, seen from here."""

    RECEIVED = 0
    SENT = 1


class ByteTap(Protocol):
    """Sees every message of a link as the bytes that travelled, before anything interprets them.

    ``failure``: why it keeps nothing any more, "" while it does; an OpenIGTLink endpoint says it.
    """

    failure: str

    def tap(
        self,
        connection: str,
        direction: Direction,
        header_bytes: Bytes,
        body_bytes: Bytes,
        monotonic_s: float,
        utc_s: float,
    ) -> None:
        """Take one message. Called from the thread of its connection; must be quick and must not raise."""

    def about(self, connection: str, facts: Mapping[str, Any]) -> None:
        """Take what is known about a connection that has begun, as JSON can hold it. Must not raise either."""


@dataclass(frozen=True)
class Record:
    """One recorded message. ``header + body`` are exactly the bytes that travelled."""

    connection: str
    direction: Direction
    header: bytes
    body: bytes
    monotonic_s: float
    utc_s: float


class Recorder:
    """Writes a new recording; use as the ``tap`` of one or more links, and as a context manager.

    Every record goes to the operating system in the call that brings it (no buffer in the process). When the disk
    fails, the link goes on: recording stops, ``failure`` says why and ``lost`` counts the messages since then.

    Raises WireError when the file exists already (recordings are never overwritten) or cannot be created.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 (closed by close)
        except OSError as error:
            raise WireError(f"cannot start the recording '{self.path}': {error}. Name a new file.") from error
        self._lock = threading.Lock()
        self._about: dict[str, bytes] = {}
        self.recorded = 0
        self.lost = 0
        self.failure = ""
        self._write([_FILE_HEAD.pack(MAGIC, time.time())])

    def tap(
        self,
        connection: str,
        direction: Direction,
        header_bytes: Bytes,
        body_bytes: Bytes,
        monotonic_s: float,
        utc_s: float,
    ) -> None:
        """Append one message (see :class:`ByteTap`)."""
        parts = encode_record(connection, direction, header_bytes, body_bytes, monotonic_s, utc_s)
        with self._lock:
            if self._kept(parts):
                self.recorded += 1
            else:
                self.lost += 1

    def about(self, connection: str, facts: Mapping[str, Any]) -> None:
        """Append what is known about a connection, unless that is what stands there (see :class:`ByteTap`)."""
        body = json.dumps(facts, sort_keys=True).encode()
        parts = encode_record(connection, _ABOUT, b"", body, time.monotonic(), time.time())
        with self._lock:
            if self._about.get(connection) != body and self._kept(parts):
                self._about[connection] = body

    def close(self) -> None:
        """Bring everything to the disk and close the file; harmless when done twice."""
        with self._lock:
            if self._file.closed:
                return
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self.failure = self.failure or f"recording to '{self.path}' may be incomplete: {error}"
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _kept(self, parts: Sequence[Bytes]) -> bool:
        if self.failure or self._file.closed:
            return False
        try:
            self._write(parts)
        except OSError as error:
            self.failure = f"recording to '{self.path}' stopped: {error}"
        return not self.failure

    def _write(self, parts: Sequence[Bytes]) -> None:
        for part in parts:
            rest = memoryview(part)
            while rest.nbytes:
                rest = rest[self._file.write(rest) :]


def encode_record(
    connection: str,
    direction: int,
    header_bytes: Bytes,
    body_bytes: Bytes,
    monotonic_s: float,
    utc_s: float,
) -> list[Bytes]:
    """Bytes of one record, in the parts to be written one after the other."""
    name = connection.encode("utf-8", "replace")[:0xFFFF]
    header, body = memoryview(header_bytes).cast("B"), memoryview(body_bytes).cast("B")
    head = _RECORD_HEAD.pack(
        MARKER,
        int(direction),
        0,
        len(name),
        header.nbytes,
        body.nbytes,
        monotonic_s,
        utc_s,
        _payload_crc(name, header, body),
    )
    head += _HEAD_CRC.pack(zlib.crc32(head))
    if body.nbytes < _JOIN_BELOW_BYTES:
        return [b"".join((head, name, header, body))]
    return [head + name + bytes(header), body]


class Recording:
    """A recording opened for reading: a sequence of the records that are whole, in the order of their arrival.

    ``damaged_bytes``: bytes that belong to no whole record (a record torn by a crash, a damaged part); reading goes on
    behind them. ``about``: what is known about the connections, by their names; nothing in older recordings.
    Raises WireError when the file is not a recording.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise WireError(f"cannot read the recording '{self.path}': {error}") from error
        if len(self._bytes) < _FILE_HEAD.size or self._bytes[: len(MAGIC)] != MAGIC:
            found = bytes(self._bytes[: len(MAGIC)])
            self._bytes.close()
            raise WireError(f"'{self.path}' is not a recording: expected it to begin with {MAGIC!r}, got {found!r}")
        self.started_utc_s: float = _FILE_HEAD.unpack_from(self._bytes)[1]
        offsets, self.damaged_bytes = _index(self._bytes)
        self.about: dict[str, dict[str, Any]] = {}
        self._messages: list[tuple[int, Direction, str]] = []
        for offset in offsets:
            direction, name = self._head(offset)
            if direction == _ABOUT:
                self.about[name] = self._facts(offset)
            else:
                self._messages.append((offset, Direction(direction), name))

    def __len__(self) -> int:
        return len(self._messages)

    def __getitem__(self, number: int) -> Record:
        offset, direction, name = self._messages[number]
        _, _, _, name_n, header_n, body_n, monotonic_s, utc_s, _ = _RECORD_HEAD.unpack_from(self._bytes, offset)
        header_at = offset + RECORD_HEAD_BYTES + name_n
        body_at = header_at + header_n
        header, body = self._bytes[header_at:body_at], self._bytes[body_at : body_at + body_n]
        return Record(name, direction, header, body, monotonic_s, utc_s)

    def _head(self, offset: int) -> tuple[int, str]:
        """Direction and name of a record; its header and body, perhaps a large image, are not read."""
        _, direction, _, name_n, *_ = _RECORD_HEAD.unpack_from(self._bytes, offset)
        raw = self._bytes[offset + RECORD_HEAD_BYTES : offset + RECORD_HEAD_BYTES + name_n]
        return direction, sys.intern(raw.decode("utf-8", "replace"))

    def _facts(self, offset: int) -> dict[str, Any]:
        _, _, _, name_n, header_n, body_n, *_ = _RECORD_HEAD.unpack_from(self._bytes, offset)
        start = offset + RECORD_HEAD_BYTES + name_n + header_n
        try:
            facts = json.loads(self._bytes[start : start + body_n])
        except ValueError as error:
            raise WireError(f"'{self.path}' says something about a connection that is no JSON: {error}") from error
        return facts if isinstance(facts, dict) else {}

    def __iter__(self) -> Iterator[Record]:
        return (self[number] for number in range(len(self)))

    @property
    def connections(self) -> tuple[str, ...]:
        """Names of the recorded connections in the order of their first message."""
        return self.connections_of(*Direction)

    def connections_of(self, *directions: Direction) -> tuple[str, ...]:
        """Names of the connections with messages of these directions, in the order of their first one."""
        return tuple(dict.fromkeys(name for _, direction, name in self._messages if direction in directions))

    def close(self) -> None:
        """Let go of the file."""
        self._bytes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _index(data: mmap.mmap) -> tuple[list[int], int]:
    """Offsets of the whole records, and how many bytes belong to none."""
    offsets: list[int] = []
    damaged = 0
    position = _FILE_HEAD.size
    with memoryview(data) as view:
        while position < len(data):
            end = _record_end(view, position)
            if end:
                offsets.append(position)
                position = end
                continue
            next_position = data.find(MARKER, position + 1)
            next_position = len(data) if next_position < 0 else next_position
            damaged += next_position - position
            position = next_position
    return offsets, damaged


def _record_end(view: memoryview, start: int) -> int:
    """Where the record at ``start`` ends, 0 when there is no whole record."""
    payload = start + RECORD_HEAD_BYTES
    if payload > len(view):
        return 0
    marker, direction, _, name_n, header_n, body_n, _, _, crc = _RECORD_HEAD.unpack_from(view, start)
    (head_crc,) = _HEAD_CRC.unpack_from(view, payload - _HEAD_CRC.size)
    if marker != MARKER or head_crc != zlib.crc32(view[start : payload - _HEAD_CRC.size]) or direction > _ABOUT:
        return 0
    end = payload + name_n + header_n + body_n
    return int(end) if end <= len(view) and crc == _payload_crc(view[payload:end]) else 0


def _payload_crc(*parts: Bytes) -> int:
    crc = 0
    for part in parts:
        crc = crc64.ecma_182(part, crc)
    return crc
