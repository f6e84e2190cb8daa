"""Messages of words: STATUS, STRING, COMMAND, CAPABILITY, IMGMETA, LBMETA, and the queries GET_, STT_, STP_, RTS_."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from ..errors import WireError
from .header import UTF_8, Buffer, RefusedMessage, decoded_text, encoding_of, field_text, fixed_text, shortened
from .message import Head, Message, elements, unpack
from .messages_array import SCALAR_TYPES

#: What STATUS codes mean, for a person.
STATUS_TEXTS: dict[int, str] = {
    1: "OK",
    2: "unknown error",
    3: "panic (emergency)",
    4: "not found",
    5: "access denied",
    6: "busy",
    7: "time out or connection lost",
    8: "overflow, cannot be reached",
    9: "checksum error",
    10: "configuration error",
    11: "not enough resource",
    12: "illegal or unknown instruction",
    13: "not ready",
    14: "manual mode",
    15: "disabled",
    16: "not present",
    17: "unknown version",
    18: "hardware failure",
    19: "shutting down",
}

#: STRING carries its length in 16 bits.
LONGEST_STRING = 65535


@dataclass(frozen=True, eq=False, kw_only=True)
class StatusMessage(Message):
    """STATUS. ``terminated``: whether the text ends in a NUL on the wire, as the C++ library sends it."""

    TYPE: ClassVar[str] = "STATUS"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">Hq20s")

    code: int = 1
    subcode: int = 0
    error_name: str = ""
    text: str = ""
    terminated: bool = True

    @property
    def meaning(self) -> str:
        """The code in words."""
        return STATUS_TEXTS.get(self.code, f"unknown status {self.code}")

    @property
    def said(self) -> str:
        """The text for a person; a peer may have put its whole log there."""
        return shortened(self.text)

    def content(self) -> list[Buffer]:
        """30 bytes and the text."""
        head = self.LAYOUT.pack(self.code, self.subcode, fixed_text(self.error_name, 20, "error name"))
        return [head, self.text.encode() + (b"\0" if self.terminated else b"")]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 30 bytes and a text."""
        what = f"STATUS '{head['device']}'"
        code, subcode, name = unpack(cls.LAYOUT, content, what, exact=False)
        if code == 0:
            raise RefusedMessage("status", f"{what}: status code 0 stands for an invalid packet")
        raw = bytes(content[cls.LAYOUT.size :])
        terminated = raw.endswith(b"\0")
        return cls(
            **head,
            code=code,
            subcode=subcode,
            error_name=field_text(name, f"{what}, error name"),
            text=decoded_text(raw[:-1] if terminated else raw, UTF_8, f"{what}, text"),
            terminated=terminated,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class StringMessage(Message):
    """STRING, at most 65535 bytes. ``encoding``: MIBenum 3 (US-ASCII) or 106 (UTF-8), None chooses."""

    TYPE: ClassVar[str] = "STRING"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">HH")

    text: str = ""
    encoding: int | None = None

    def content(self) -> list[Buffer]:
        """Encoding, length, bytes."""
        raw = self.text.encode()
        if len(raw) > LONGEST_STRING:
            raise WireError(f"STRING '{self.device}' carries at most {LONGEST_STRING} bytes, got {len(raw)}")
        return [self.LAYOUT.pack(self.encoding or encoding_of(self.text), len(raw)), raw]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read encoding, length and exactly so many bytes."""
        what = f"STRING '{head['device']}'"
        encoding, length = unpack(cls.LAYOUT, content, what, exact=False)
        raw = content[cls.LAYOUT.size :]
        if len(raw) != length:
            raise RefusedMessage("length", f"{what} announces {length} bytes and has {len(raw)}")
        return cls(**head, text=decoded_text(raw, encoding, what), encoding=encoding)


@dataclass(frozen=True, eq=False, kw_only=True)
class CommandMessage(Message):
    """COMMAND and its answer RTS_COMMAND. ``command_id`` ties the two together. ``name``: at most 128 bytes."""

    TYPE: ClassVar[str] = "COMMAND"
    REPLY: ClassVar[str] = "RTS_COMMAND"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">I128sHI")

    command_id: int = 0
    name: str = ""
    text: str = ""
    is_reply: bool = False
    encoding: int | None = None

    @property
    def type_name(self) -> str:
        """COMMAND or RTS_COMMAND."""
        return self.REPLY if self.is_reply else self.TYPE

    def content(self) -> list[Buffer]:
        """Id, name, encoding, length, bytes."""
        raw = self.text.encode()
        encoding = self.encoding or encoding_of(self.text)
        name = fixed_text(self.name, 128, "command name")
        return [self.LAYOUT.pack(self.command_id, name, encoding, len(raw)), raw]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read id, name, encoding, length and exactly so many bytes."""
        what = f"{head['wire_type']} '{head['device']}'"
        command_id, name, encoding, length = unpack(cls.LAYOUT, content, what, exact=False)
        raw = content[cls.LAYOUT.size :]
        if len(raw) != length:
            raise RefusedMessage("length", f"{what} announces {length} bytes and has {len(raw)}")
        return cls(
            **head,
            command_id=command_id,
            name=field_text(name, f"{what}, name"),
            text=decoded_text(raw, encoding, what),
            is_reply=head["wire_type"] == cls.REPLY,
            encoding=encoding,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class CapabilityMessage(Message):
    """CAPABILITY. ``types``: the message types that the sender understands."""

    TYPE: ClassVar[str] = "CAPABILITY"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">12s")

    types: tuple[str, ...] = ()

    @property
    def parts(self) -> int:
        """Its types."""
        return 1 + len(self.types)

    def content(self) -> list[Buffer]:
        """12 bytes a type."""
        return [b"".join(fixed_text(name, 12, "message type") for name in self.types)]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 12 bytes a type."""
        what = f"CAPABILITY '{head['device']}'"
        return cls(**head, types=tuple(field_text(raw, what) for (raw,) in elements(cls.LAYOUT, content, what)))


@dataclass(frozen=True)
class ImageMeta:
    """One image that a peer offers. ``timestamp``: of the scan. ``size_ijk``: voxels. ``scalar_code``: as in IMAGE."""

    name: str
    device: str
    modality: str = ""
    patient_name: str = ""
    patient_id: str = ""
    timestamp: int = 0
    size_ijk: tuple[int, int, int] = (0, 0, 0)
    scalar_code: int = 4


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageMetaMessage(Message):
    """IMGMETA: a list of images, to be asked for by device name."""

    TYPE: ClassVar[str] = "IMGMETA"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">64s20s32s64s64sQ3HBB")

    images: tuple[ImageMeta, ...] = ()

    @property
    def parts(self) -> int:
        """Its images."""
        return 1 + len(self.images)

    def content(self) -> list[Buffer]:
        """260 bytes an image."""
        return [
            b"".join(
                self.LAYOUT.pack(
                    fixed_text(image.name, 64, "image name"),
                    fixed_text(image.device, 20, "device name"),
                    fixed_text(image.modality, 32, "modality"),
                    fixed_text(image.patient_name, 64, "patient name"),
                    fixed_text(image.patient_id, 64, "patient id"),
                    image.timestamp,
                    *image.size_ijk,
                    image.scalar_code,
                    0,
                )
                for image in self.images
            )
        ]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 260 bytes an image."""
        what = f"IMGMETA '{head['device']}'"
        images = []
        for *texts, timestamp, i, j, k, code, _reserved in elements(cls.LAYOUT, content, what):
            if code not in SCALAR_TYPES:
                raise RefusedMessage(
                    "scalar type", f"{what}: scalar type must be in {sorted(SCALAR_TYPES)}, got {code}"
                )
            name, device, modality, patient_name, patient_id = (field_text(text, what) for text in texts)
            images.append(ImageMeta(name, device, modality, patient_name, patient_id, timestamp, (i, j, k), code))
        return cls(**head, images=tuple(images))


@dataclass(frozen=True)
class LabelMeta:
    """One label that a peer offers. ``label``: its value in the image ``owner``; 0 stands for the whole label map."""

    name: str
    device: str
    label: int = 0
    rgba: tuple[int, int, int, int] = (0, 0, 0, 0)
    size_ijk: tuple[int, int, int] = (0, 0, 0)
    owner: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelMetaMessage(Message):
    """LBMETA: a list of labels."""

    TYPE: ClassVar[str] = "LBMETA"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">64s20sBB4B3H20s")

    labels: tuple[LabelMeta, ...] = ()

    @property
    def parts(self) -> int:
        """Its labels."""
        return 1 + len(self.labels)

    def content(self) -> list[Buffer]:
        """116 bytes a label."""
        return [
            b"".join(
                self.LAYOUT.pack(
                    fixed_text(label.name, 64, "label name"),
                    fixed_text(label.device, 20, "device name"),
                    label.label,
                    0,
                    *label.rgba,
                    *label.size_ijk,
                    fixed_text(label.owner, 20, "owner"),
                )
                for label in self.labels
            )
        ]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 116 bytes a label."""
        what = f"LBMETA '{head['device']}'"
        labels = []
        for name, device, label, _reserved, r, g, b, a, i, j, k, owner in elements(cls.LAYOUT, content, what):
            texts = [field_text(text, what) for text in (name, device, owner)]
            labels.append(LabelMeta(texts[0], texts[1], label, (r, g, b, a), (i, j, k), texts[2]))
        return cls(**head, labels=tuple(labels))


Verb = Literal["GET", "STT", "STP", "RTS"]
VERBS: tuple[Verb, ...] = ("GET", "STT", "STP", "RTS")

_START = struct.Struct(">i32s")
_INTERVAL = struct.Struct(">Q")


@dataclass(frozen=True, eq=False, kw_only=True)
class Query(Message):
    """GET_, STT_, STP_ or RTS_ of a data type: ask once, start, stop, and the answer to start and stop.

    ``of``: the data type in full, although the wire cuts ``GET_TRANSFORM`` to 12 characters.
    ``payload``: content as on the wire; build it with :meth:`start` and :meth:`reply`.
    """

    verb: Verb = "GET"
    of: str
    payload: bytes = b""

    @property
    def type_name(self) -> str:
        """As received, or cut to the 12 characters that a header holds."""
        return self.wire_type or f"{self.verb}_{self.of}"[:12]

    @classmethod
    def start(cls, of: str, device: str = "", interval_s: float = 0.0, coordinate_name: str = "") -> Query:
        """STT_: ask for a stream with at least ``interval_s`` between two messages, 0 for as fast as possible."""
        if of in ("TDATA", "QTDATA"):
            payload = _START.pack(round(interval_s * 1000), fixed_text(coordinate_name, 32, "coordinate name"))
        elif of in ("POLYDATA", "SENSOR", "BIND"):
            payload = _INTERVAL.pack(round(interval_s * 2**32))
        else:
            payload = b""
        return cls(verb="STT", of=of, device=device, payload=payload)

    @classmethod
    def reply(cls, query: Query, ok: bool) -> Query:
        """RTS_: the answer to STT_ and STP_, under the same name."""
        return cls(verb="RTS", of=query.of, device=query.device, payload=b"\0" if ok else b"\1")

    @property
    def ok(self) -> bool:
        """Of RTS_: whether the peer does what it was asked for. An answer without a status counts as yes."""
        return self.payload in (b"", b"\0")

    @property
    def interval_s(self) -> float:
        """Of STT_: seconds between two messages, 0 for as fast as possible."""
        if len(self.payload) == _START.size:
            return float(max(0, _START.unpack(self.payload)[0])) / 1000.0
        return float(_INTERVAL.unpack(self.payload)[0]) / 2**32 if len(self.payload) == _INTERVAL.size else 0.0

    def content(self) -> list[Buffer]:
        """The payload."""
        return [self.payload]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read a query of a known type with a payload of a length that some query has."""
        type_name = head["wire_type"]
        verb = next(verb for verb in VERBS if verb == type_name[:3])
        of = full_type(type_name[4:])
        if of is None:
            raise RefusedMessage("type", f"{type_name} '{head['device']}' asks about a type that is unknown here")
        return cls(**head, verb=verb, of=of, payload=bytes(content))


#: Data types that queries ask about, in full.
QUERY_TYPES = (
    "IMAGE", "TRANSFORM", "POSITION", "QTDATA", "TDATA", "STATUS", "STRING", "POINT", "TRAJ", "POLYDATA", "SENSOR",
    "NDARRAY", "IMGMETA", "LBMETA", "CAPABILITY", "BIND", "COLORTABLE", "COLORT",
)  # fmt: skip
#: Shortest cut form: documents have GET_TRANSFOR and GET_TRANS.
_SHORTEST_CUT = 5


def full_type(cut: str) -> str | None:
    """Data type in full from the form that a query carries, None when there is no such type."""
    if cut in QUERY_TYPES:
        return "COLORT" if cut == "COLORTABLE" else cut
    found = [name for name in QUERY_TYPES if len(cut) >= _SHORTEST_CUT and name.startswith(cut)]
    return full_type(found[0]) if found else None
