"""Messages that say where something is: TRANSFORM, POSITION, QTDATA, TDATA, SENSOR."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ..data import Matrix
from ..errors import WireError
from .header import Buffer, RefusedMessage, field_text, fixed_text
from .message import Head, Message, array_bytes, elements, finite, floats_from_matrix, matrix_from_floats, unpack, view

Tool = TypeVar("Tool")

NAME_LENGTH = 20
#: Tools of one message, and tools that are followed at a time. Trackers see some 20.
MOST_TOOLS = 256
FLOATS_12 = struct.Struct(">12f")
#: Kinds of tracked instruments in QTDATA and TDATA.
TRACKER, TOOL_6D, TOOL_3D, TOOL_5D = 1, 2, 3, 4

#: Lengths of quaternions that are brought to 1. The C++ library's own examples send 0.88, and the
#: rotation does not depend on the length; far from 1 it is no quaternion but something else.
LENGTH_RANGE = (0.5, 2.0)
#: Three elements of a unit quaternion may be this much longer than 1: float32 keeps 1e-7, some trackers round.
UNIT_TOLERANCE = 1e-3


def _identity() -> Matrix:
    return np.eye(4)


@dataclass(frozen=True, eq=False, kw_only=True)
class TransformMessage(Message):
    """TRANSFORM. ``matrix``: (4, 4), mm; leads from the device's own frame to RAS unless a profile says otherwise."""

    TYPE: ClassVar[str] = "TRANSFORM"

    matrix: Matrix = field(default_factory=_identity)

    def content(self) -> list[Buffer]:
        """Twelve float32."""
        return [array_bytes(floats_from_matrix(self.matrix))]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 48 bytes; every value must be finite."""
        what = f"TRANSFORM '{head['device']}'"
        return cls(**head, matrix=matrix_from_floats(unpack(FLOATS_12, content, what), what))


@dataclass(frozen=True, eq=False, kw_only=True)
class PositionMessage(Message):
    """POSITION. ``position_mm``: (3,). ``quaternion``: (x, y, z, w).

    ``values``: how many floats travel: 3 (position only), 6 (w is left out and follows from the unit length) or 7.
    """

    TYPE: ClassVar[str] = "POSITION"

    position_mm: npt.NDArray[np.float64]
    quaternion: npt.NDArray[np.float64] = field(default_factory=lambda: np.array([0.0, 0.0, 0.0, 1.0]))
    values: int = 7

    def content(self) -> list[Buffer]:
        """12, 24 or 28 bytes."""
        floats = np.concatenate([self.position_mm, self.quaternion])[: self.values]
        return [array_bytes(floats.astype(">f4"))]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 12, 24 or 28 bytes."""
        what = f"POSITION '{head['device']}'"
        if len(content) not in (12, 24, 28):
            raise RefusedMessage("length", f"{what} must have 12, 24 or 28 bytes, got {len(content)}")
        floats = finite(struct.unpack(f">{len(content) // 4}f", content), what)
        quaternion = np.array([0.0, 0.0, 0.0, 1.0])
        quaternion[: len(floats) - 3] = floats[3:]
        if len(floats) == 6:
            rest = 1.0 - float(quaternion[:3] @ quaternion[:3])
            if rest < -UNIT_TOLERANCE:
                raise RefusedMessage(
                    "quaternion", f"{what}: quaternion must have unit length, got {floats[3:].tolist()}"
                )
            quaternion[3] = np.sqrt(max(0.0, rest))
        checked_quaternion(quaternion, what)
        return cls(**head, position_mm=floats[:3], quaternion=quaternion, values=len(floats))

    @property
    def matrix(self) -> Matrix:
        """(4, 4), mm."""
        return matrix_from_quaternion(self.quaternion, self.position_mm)


@dataclass(frozen=True, eq=False)
class TrackedTool:
    """One instrument of TDATA or QTDATA. ``matrix``: (4, 4), mm. ``kind``: TRACKER, TOOL_6D, TOOL_3D or TOOL_5D."""

    name: str
    matrix: Matrix
    kind: int = TOOL_6D


@dataclass(frozen=True, eq=False, kw_only=True)
class TrackingDataMessage(Message):
    """TDATA: the poses of several tools at one moment. ``left_out``: why tools of it could not be read."""

    TYPE: ClassVar[str] = "TDATA"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">20sBB48s")

    tools: tuple[TrackedTool, ...] = ()
    left_out: tuple[RefusedMessage, ...] = ()

    @property
    def parts(self) -> int:
        """Its tools."""
        return 1 + len(self.tools) + len(self.left_out)

    def content(self) -> list[Buffer]:
        """70 bytes a tool."""
        return [
            b"".join(
                self.LAYOUT.pack(
                    fixed_text(tool.name, NAME_LENGTH, "tool name"),
                    tool.kind,
                    0,
                    floats_from_matrix(tool.matrix).tobytes(),
                )
                for tool in self.tools
            )
        ]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 70 bytes a tool. Trackers fill tools that they do not see with NaN: such tools are left out."""
        what = f"TDATA '{head['device']}'"

        def read(name_raw: bytes, kind: int, _reserved: int, floats: bytes) -> TrackedTool:
            name = _tool_name(name_raw, kind, what)
            return TrackedTool(name, matrix_from_floats(FLOATS_12.unpack(floats), f"{what}, tool '{name}'"), kind)

        tools, left_out = _readable(read, elements(cls.LAYOUT, content, what, MOST_TOOLS), what)
        return cls(**head, tools=tools, left_out=left_out)


@dataclass(frozen=True, eq=False)
class QuaternionTool:
    """One instrument of QTDATA. ``position_mm``: (3,). ``quaternion``: (x, y, z, w)."""

    name: str
    position_mm: npt.NDArray[np.float64]
    quaternion: npt.NDArray[np.float64]
    kind: int = TOOL_6D

    @property
    def matrix(self) -> Matrix:
        """(4, 4), mm."""
        return matrix_from_quaternion(self.quaternion, self.position_mm)


@dataclass(frozen=True, eq=False, kw_only=True)
class QuaternionTrackingMessage(Message):
    """QTDATA: as TDATA, with quaternions."""

    TYPE: ClassVar[str] = "QTDATA"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">20sBB7f")

    tools: tuple[QuaternionTool, ...] = ()
    left_out: tuple[RefusedMessage, ...] = ()

    @property
    def parts(self) -> int:
        """Its tools."""
        return 1 + len(self.tools) + len(self.left_out)

    def content(self) -> list[Buffer]:
        """50 bytes a tool."""
        return [
            b"".join(
                self.LAYOUT.pack(
                    fixed_text(tool.name, NAME_LENGTH, "tool name"), tool.kind, 0, *tool.position_mm, *tool.quaternion
                )
                for tool in self.tools
            )
        ]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 50 bytes a tool, see :class:`TrackingDataMessage`."""
        what = f"QTDATA '{head['device']}'"

        def read(name_raw: bytes, kind: int, _reserved: int, *floats: float) -> QuaternionTool:
            name = _tool_name(name_raw, kind, what)
            values = finite(floats, f"{what}, tool '{name}'")
            checked_quaternion(values[3:], f"{what}, tool '{name}'")
            return QuaternionTool(name, values[:3], values[3:], kind)

        tools, left_out = _readable(read, elements(cls.LAYOUT, content, what, MOST_TOOLS), what)
        return cls(**head, tools=tools, left_out=left_out)


@dataclass(frozen=True, eq=False, kw_only=True)
class SensorMessage(Message):
    """SENSOR. ``values``: (n,) float64, n at most 255. ``unit``: the protocol's 64-bit unit."""

    TYPE: ClassVar[str] = "SENSOR"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">BBQ")

    values: npt.NDArray[np.float64]
    unit: int = 0
    sensor_status: int = 0

    def content(self) -> list[Buffer]:
        """10 bytes and a float64 a value."""
        if len(self.values) > 255:
            raise WireError(f"SENSOR '{self.device}' carries at most 255 values, got {len(self.values)}")
        return [
            self.LAYOUT.pack(len(self.values), self.sensor_status, self.unit),
            array_bytes(np.asarray(self.values, ">f8")),
        ]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 10 bytes and as many values as they announce."""
        what = f"SENSOR '{head['device']}'"
        if len(content) < cls.LAYOUT.size:
            raise RefusedMessage("length", f"{what} needs at least {cls.LAYOUT.size} bytes, got {len(content)}")
        length, status, unit = cls.LAYOUT.unpack_from(content)
        values = view(content, ">f8", (length,), cls.LAYOUT.size, what)
        return cls(**head, values=finite(values.tolist(), what), unit=unit, sensor_status=status)


def checked_quaternion(quaternion: npt.NDArray[np.float64], what: str) -> None:
    """Raise RefusedMessage when a quaternion is far from unit length."""
    if not LENGTH_RANGE[0] <= float(np.linalg.norm(quaternion)) <= LENGTH_RANGE[1]:
        raise RefusedMessage("quaternion", f"{what}: quaternion must have unit length, got {quaternion.tolist()}")


def matrix_from_quaternion(quaternion: npt.ArrayLike, position_mm: npt.ArrayLike) -> Matrix:
    """(4, 4) rigid matrix of a quaternion (x, y, z, w), which is brought to unit length, and a position in mm."""
    x, y, z, w = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, 3] = position_mm
    return matrix


def _readable(
    read: Callable[..., Tool], pieces: Sequence[tuple[Any, ...]], what: str
) -> tuple[tuple[Tool, ...], tuple[RefusedMessage, ...]]:
    """(tools, why others were left out). Raises RefusedMessage when none can be read.

    Tools of one name are left out, seen or not: the place of one would be taken for that of the other. Some senders cut
    names to 20 bytes.
    """
    tools, left_out = [], []
    names = [piece[0].partition(b"\0")[0] for piece in pieces]
    times = Counter(names)
    for name, piece in zip(names, pieces, strict=True):
        try:
            if times[name] > 1:
                raise RefusedMessage(
                    "tool name", f"{what} holds several tools named '{name.decode(errors='replace')}': rename them"
                )
            tools.append(read(*piece))
        except RefusedMessage as refused:
            left_out.append(refused)
    if left_out and not tools:
        raise left_out[0]
    return tuple(tools), tuple(left_out)


def _tool_name(raw: bytes, kind: int, what: str) -> str:
    name = field_text(raw, f"{what}, tool name")
    if kind not in (TRACKER, TOOL_6D, TOOL_3D, TOOL_5D):
        raise RefusedMessage("tool type", f"{what}, tool '{name}': type must be 1 to 4, got {kind}")
    return name
