"""OpenIGTLink header, extended header, metadata and check sum: the envelope of every message.

Source: OpenIGTLink protocol version 3 (header, metadata) and ECMA-182 (CRC-64, not reflected, initial value 0).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from fastcrc import crc64

from ..errors import WireError

Buffer = bytes | bytearray | memoryview

HEADER = struct.Struct(">H12s20sQQQ")
HEADER_SIZE = HEADER.size
EXTENDED_HEADER = struct.Struct(">HHII")
METADATA_COUNT = struct.Struct(">H")
METADATA_ENTRY = struct.Struct(">HHI")

#: IANA MIBenum of the two encodings that may be sent. UTF-8 contains US-ASCII, so both are read as UTF-8.
US_ASCII = 3
UTF_8 = 106
ENCODINGS = (US_ASCII, UTF_8)

#: Headers that may be read. 3 occurs in a draft and is laid out like 2; only 1 and 2 are ever sent.
VERSIONS = (1, 2, 3)

TYPE_LENGTH = 12
DEVICE_LENGTH = 20

#: A person reads why a message was refused, and what a STATUS says: names may have 64 kB, and thousands are kept.
LONGEST_TEXT = 500
#: Texts take up to four times their bytes in memory. A block of k-space carries its trajectory in its metadata.
MOST_TEXT_BYTES = 2**24


class RefusedMessage(WireError):
    """A message that must not be delivered. ``reason`` is a short stable word under which it is counted."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(shortened(text))
        self.reason = reason


class Header(NamedTuple):
    """The 58 bytes before every body. ``timestamp``: 32.32 fixed-point UTC seconds, 0 when unused."""

    version: int
    type_name: str
    device: str
    timestamp: int
    body_size: int
    crc: int


def shortened(text: str) -> str:
    """What a person reads of a text that another program chose."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ..."


def body_size_of(raw: Buffer) -> int:
    """Size of the body that follows, in bytes, also when the rest of the header is not understood."""
    return int(HEADER.unpack(raw)[4])


def parse_header(raw: Buffer) -> Header:
    """Read a header of 58 bytes. Raises RefusedMessage (length, version, type, device name)."""
    if len(raw) != HEADER_SIZE:
        raise RefusedMessage("length", f"a header has {HEADER_SIZE} bytes, got {len(raw)}")
    version, type_raw, device_raw, timestamp, body_size, crc = HEADER.unpack(raw)
    if version not in VERSIONS:
        raise RefusedMessage(
            "version", f"header version must be 1 or 2, got {version}; set the peer to protocol 1 to 3"
        )
    type_name, device = _names(type_raw, device_raw)
    return Header(version, type_name, device, timestamp, body_size, crc)


def pack_header(version: int, type_name: str, device: str, timestamp: int, parts: Iterable[Buffer]) -> bytes:
    """Header for a body that consists of ``parts`` in this order. Raises WireError for a name that does not fit."""
    size = crc = 0
    for part in parts:
        size += len(part)
        crc = crc_of(part, crc)
    return HEADER.pack(
        min(version, 2),
        fixed_text(type_name, TYPE_LENGTH, "message type"),
        fixed_text(device, DEVICE_LENGTH, "device name"),
        timestamp,
        size,
        crc,
    )


def crc_of(part: Buffer, before: int = 0) -> int:
    """CRC of a body whose parts up to this one have the CRC ``before``."""
    return crc64.ecma_182(part, before)


def check_crc(header: Header, actual: int) -> None:
    """Raise RefusedMessage when the body, which has the CRC ``actual``, is not what the sender summed up."""
    if actual != header.crc:
        raise RefusedMessage(
            "crc",
            f"{header.type_name} '{header.device}' was damaged on the way: its CRC is {actual:016x}, "
            f"the header says {header.crc:016x}; check the network and the sender",
        )


def split_body(header: Header, body: memoryview) -> tuple[memoryview, int, dict[str, str], dict[str, int]]:
    """Split a body into (content, message id, metadata, metadata encodings that are not the default ones)."""
    if header.version == 1:
        return body, 0, {}, {}
    who = f"{header.type_name} '{header.device}'"
    if len(body) < EXTENDED_HEADER.size:
        raise RefusedMessage("extended header", f"{who} is version {header.version} but has no extended header")
    extended_size, index_size, values_size, message_id = EXTENDED_HEADER.unpack_from(body)
    end = len(body) - index_size - values_size
    if not EXTENDED_HEADER.size <= extended_size <= end:
        raise RefusedMessage(
            "extended header",
            f"{who}: extended header ({extended_size}), metadata header ({index_size}) and metadata ({values_size} "
            f"bytes) do not fit into its body of {len(body)} bytes",
        )
    metadata, encodings = _parse_metadata(body[end : end + index_size], body[end + index_size :], who)
    return body[extended_size:end], message_id, metadata, encodings


def extended_parts(
    message_id: int, metadata: Mapping[str, str], encodings: Mapping[str, int]
) -> tuple[bytes, bytes, bytes]:
    """Extended header, metadata header and metadata of a version 2 message."""
    index = [METADATA_COUNT.pack(len(metadata))]
    values = []
    for key, value in metadata.items():
        key_raw, value_raw = key.encode(), value.encode()
        index.append(METADATA_ENTRY.pack(len(key_raw), encodings.get(key, encoding_of(value)), len(value_raw)))
        values += [key_raw, value_raw]
    index_raw, values_raw = b"".join(index), b"".join(values)
    return (
        EXTENDED_HEADER.pack(EXTENDED_HEADER.size, len(index_raw), len(values_raw), message_id),
        index_raw,
        values_raw,
    )


def encoding_of(text: str) -> int:
    """MIBenum under which a text is sent: US-ASCII where it suffices, UTF-8 otherwise."""
    return US_ASCII if text.isascii() else UTF_8


def decoded_text(raw: Buffer, encoding: int, what: str) -> str:
    """Text of US-ASCII or UTF-8 bytes. Raises RefusedMessage for another encoding or bytes that are neither."""
    if encoding not in ENCODINGS:
        raise RefusedMessage("encoding", f"{what} must be US-ASCII (3) or UTF-8 (106), got MIBenum {encoding}")
    if len(raw) > MOST_TEXT_BYTES:
        raise RefusedMessage("text", f"{what} has {len(raw)} bytes, at most {MOST_TEXT_BYTES} are read")
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        raise RefusedMessage("text", f"{what} is neither US-ASCII nor UTF-8: {bytes(raw[:40])!r}") from None


def fixed_text(text: str, length: int, what: str) -> bytes:
    """Zero-padded bytes of a fixed field. A text that does not fit is refused, never cut."""
    raw = text.encode()
    if len(raw) > length or b"\0" in raw:
        raise WireError(f"{what} must have at most {length} bytes and no NUL, got {text!r}")
    return raw.ljust(length, b"\0")


def field_text(raw: Buffer, what: str) -> str:
    """Text of a fixed field inside a body; what follows the first NUL is padding, whatever a sender left there."""
    return decoded_text(bytes(raw).split(b"\0", 1)[0], UTF_8, what)


def timestamp_of(utc_s: float) -> int:
    """32.32 fixed-point time stamp of POSIX seconds."""
    seconds = int(utc_s // 1)
    return (seconds << 32) | min(int((utc_s - seconds) * 2**32), 2**32 - 1)


def timestamp_now() -> int:
    """Time stamp of now, to the nanosecond."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return (seconds << 32) | (nanoseconds << 32) // 1_000_000_000


def utc_of(timestamp: int) -> float | None:
    """POSIX seconds of a time stamp, None when the sender left it unused (0)."""
    return timestamp / 2**32 if timestamp else None


@lru_cache(maxsize=1024)
def _names(type_raw: bytes, device_raw: bytes) -> tuple[str, str]:
    return _strict_text(type_raw, "message type"), _strict_text(device_raw, "device name")


def _strict_text(raw: bytes, what: str) -> str:
    name, _, rest = raw.partition(b"\0")
    if rest.strip(b"\0"):
        raise RefusedMessage("name", f"{what} has text after a NUL: {raw!r}")
    return decoded_text(name, UTF_8, what)


def _parse_metadata(index: memoryview, values: memoryview, who: str) -> tuple[dict[str, str], dict[str, int]]:
    metadata: dict[str, str] = {}
    encodings: dict[str, int] = {}
    if not len(index) and not len(values):
        return metadata, encodings
    if len(values) > MOST_TEXT_BYTES:
        raise RefusedMessage("metadata", f"{who}: metadata of {len(values)} bytes, at most {MOST_TEXT_BYTES} are read")
    count = METADATA_COUNT.unpack_from(index)[0] if len(index) >= METADATA_COUNT.size else -1
    if len(index) != METADATA_COUNT.size + count * METADATA_ENTRY.size:
        raise RefusedMessage(
            "metadata", f"{who}: the metadata header has {len(index)} bytes, which is not what {count} entries need"
        )
    position = 0
    for number in range(count):
        offset = METADATA_COUNT.size + number * METADATA_ENTRY.size
        key_size, encoding, value_size = METADATA_ENTRY.unpack_from(index, offset)
        middle, end = position + key_size, position + key_size + value_size
        if end > len(values):
            raise RefusedMessage("metadata", f"{who}: metadata entry {number} is longer than the metadata")
        key = decoded_text(values[position:middle], UTF_8, f"{who}: metadata key {number}")
        if key in metadata:
            raise RefusedMessage("metadata", f"{who}: metadata key '{key}' occurs twice")
        metadata[key] = decoded_text(values[middle:end], encoding, f"{who}: metadata '{key}'")
        if encoding != encoding_of(metadata[key]):
            encodings[key] = encoding
        position = end
    if position != len(values):
        raise RefusedMessage("metadata", f"{who}: {len(values) - position} bytes of metadata belong to no entry")
    return metadata, encodings
