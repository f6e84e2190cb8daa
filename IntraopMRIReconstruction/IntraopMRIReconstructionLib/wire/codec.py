"""OpenIGTLink, pure: bytes to typed messages and back. No sockets, no clocks, no trust decisions.

``decode(header, body)`` gives a :class:`Message`; ``encode(message)`` gives the bytes, identical to the received
ones when these were canonical (padding zero, extended header of 12 bytes). Arrays look at the received bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import WireError
from .header import (
    Buffer,
    Header,
    RefusedMessage,
    check_crc,
    crc_of,
    extended_parts,
    pack_header,
    parse_header,
    split_body,
    timestamp_now,
    timestamp_of,
)
from .message import Head, Message
from .messages_array import ColorTableMessage, ImageMessage, NDArrayMessage
from .messages_shape import (
    BindMessage,
    Point,
    PointMessage,
    PolyAttribute,
    PolyDataMessage,
    Trajectory,
    TrajectoryMessage,
    bind_children,
)
from .messages_text import (
    VERBS,
    CapabilityMessage,
    CommandMessage,
    ImageMeta,
    ImageMetaMessage,
    LabelMeta,
    LabelMetaMessage,
    Query,
    StatusMessage,
    StringMessage,
)
from .messages_tracking import (
    PositionMessage,
    QuaternionTool,
    QuaternionTrackingMessage,
    SensorMessage,
    TrackedTool,
    TrackingDataMessage,
    TransformMessage,
)

__all__ = [
    "TYPE_NAMES",
    "BindMessage",
    "CapabilityMessage",
    "ColorTableMessage",
    "CommandMessage",
    "EmptyMessage",
    "Header",
    "ImageMessage",
    "ImageMeta",
    "ImageMetaMessage",
    "LabelMeta",
    "LabelMetaMessage",
    "Message",
    "NDArrayMessage",
    "Point",
    "PointMessage",
    "PolyAttribute",
    "PolyDataMessage",
    "PositionMessage",
    "QuaternionTool",
    "QuaternionTrackingMessage",
    "Query",
    "RefusedMessage",
    "SensorMessage",
    "StatusMessage",
    "StringMessage",
    "TrackedTool",
    "TrackingDataMessage",
    "Trajectory",
    "TrajectoryMessage",
    "TransformMessage",
    "decode",
    "encode",
    "encode_parts",
    "parse_header",
    "timestamp_now",
    "timestamp_of",
]  # fmt: skip

#: A BIND inside a BIND inside ...: nobody needs more, and hostile nesting must end somewhere.
DEEPEST_BIND = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class EmptyMessage(Message):
    """A data message without content: the answer of a peer that cannot give what a GET_ asked for."""

    def content(self) -> list[Buffer]:
        """Nothing."""
        return []


#: Reads the content of every type that is understood, by its name in the header. BIND is read by itself.
READERS: dict[str, Callable[[memoryview, Head], Message]] = {
    "IMAGE": ImageMessage.from_content,
    "TRANSFORM": TransformMessage.from_content,
    "POSITION": PositionMessage.from_content,
    "QTDATA": QuaternionTrackingMessage.from_content,
    "TDATA": TrackingDataMessage.from_content,
    "STATUS": StatusMessage.from_content,
    "STRING": StringMessage.from_content,
    "POINT": PointMessage.from_content,
    "TRAJ": TrajectoryMessage.from_content,
    "POLYDATA": PolyDataMessage.from_content,
    "SENSOR": SensorMessage.from_content,
    "NDARRAY": NDArrayMessage.from_content,
    "IMGMETA": ImageMetaMessage.from_content,
    "LBMETA": LabelMetaMessage.from_content,
    "COMMAND": CommandMessage.from_content,
    "RTS_COMMAND": CommandMessage.from_content,
    "CAPABILITY": CapabilityMessage.from_content,
    "COLORT": ColorTableMessage.from_content,
    "COLORTABLE": ColorTableMessage.from_content,
}

#: What may be answered to GET_CAPABIL.
TYPE_NAMES = (*READERS, BindMessage.TYPE)

#: Types whose empty content is an empty list. For the others it means that the peer has nothing to give.
_LISTS = ("TDATA", "QTDATA", "POINT", "TRAJ", "IMGMETA", "LBMETA", "CAPABILITY")
_QUERY_PREFIXES = tuple(f"{verb}_" for verb in VERBS)


def decode(header: Header | Buffer, body: Buffer, crc: int | None = None) -> Message:
    """Decode one message. ``header``: parsed or its 58 bytes. ``body``: exactly the bytes that the header announces.
    ``crc``: their CRC when it was summed up while they came.

    Arrays of the message keep ``body`` alive and must not be written to through it.
    Raises RefusedMessage, whose ``reason`` is a short word to count by.
    """
    if not isinstance(header, Header):
        header = parse_header(header)
    if len(body) != header.body_size:
        raise RefusedMessage(
            "length", f"{header.type_name} '{header.device}' announces {header.body_size} bytes and has {len(body)}"
        )
    check_crc(header, crc_of(body) if crc is None else crc)
    content, message_id, metadata, encodings = split_body(header, memoryview(body))
    head = {
        "device": header.device,
        "timestamp": header.timestamp,
        "version": header.version,
        "message_id": message_id,
        "metadata": metadata,
        "metadata_encodings": encodings,
    }
    return _decode_content(header.type_name, content, head, 0)


def encode(message: Message) -> bytes:
    """All bytes of a message. Raises WireError when a field does not fit the protocol."""
    return b"".join(encode_parts(message))


def encode_parts(message: Message) -> list[Buffer]:
    """The bytes of a message in parts, big arrays uncopied: for ``socket.sendmsg``."""
    try:
        parts = message.content()
        if message.version > 1:
            extended, index, values = extended_parts(message.message_id, message.metadata, message.metadata_encodings)
            parts = [extended, *parts, index, values]
        header = pack_header(message.version, message.type_name, message.device, message.timestamp, parts)
    except (struct.error, OverflowError, ValueError, TypeError) as error:
        raise WireError(f"{message.type_name} '{message.device}' does not fit the protocol: {error}") from error
    return [header, *parts]


def _decode_content(type_name: str, content: memoryview, head: Head, depth: int) -> Message:
    head = {**head, "wire_type": type_name}
    if type_name not in TYPE_NAMES:
        if type_name[:4] in _QUERY_PREFIXES:
            return Query.from_content(content, head)
        raise RefusedMessage("type", _unknown_type(type_name, head["device"]))
    if not len(content) and type_name not in _LISTS:
        return EmptyMessage(**head)
    if type_name != BindMessage.TYPE:
        return READERS[type_name](content, head)
    what = f"BIND '{head['device']}'"
    if depth >= DEEPEST_BIND:
        raise RefusedMessage("depth", f"{what}: at most {DEEPEST_BIND} binds may lie in one another")

    def decode_child(child_type: str, name: str, child: memoryview) -> Message:
        child_head = {"device": name, "timestamp": head["timestamp"]}
        return _decode_content(child_type, child, child_head, depth + 1)

    return BindMessage(**head, children=bind_children(content, what, decode_child))


def _unknown_type(type_name: str, device: str) -> str:
    if type_name.startswith("VIDEO"):
        return f"{type_name} '{device}' is compressed video, which is not decoded here; let the peer send IMAGE"
    return f"type '{type_name}' of device '{device}' is unknown here"
