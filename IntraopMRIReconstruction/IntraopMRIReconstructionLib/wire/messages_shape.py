"""Messages of planned and measured shapes, and the container: POINT, TRAJ, POLYDATA, BIND."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ..errors import WireError
from .header import UTF_8, Buffer, RefusedMessage, decoded_text, field_text, fixed_text
from .message import MOST_ELEMENTS, Head, Message, array_bytes, checked_count, elements, finite, unpack, view

Rgba = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Point:
    """A point of POINT. ``position_mm``: (3,). ``radius_mm``: as the C library and Slicer mean it; the protocol's
    document calls it a diameter, and pyigtl sends one.
    """

    name: str
    position_mm: npt.NDArray[np.float64]
    group: str = ""
    rgba: Rgba = (255, 255, 255, 255)
    radius_mm: float = 0.0
    owner: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class PointMessage(Message):
    """POINT: landmarks, fiducials."""

    TYPE: ClassVar[str] = "POINT"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">64s32s4B4f20s")

    points: tuple[Point, ...] = ()

    @property
    def parts(self) -> int:
        """Its points."""
        return 1 + len(self.points)

    def content(self) -> list[Buffer]:
        """136 bytes a point."""
        return [
            b"".join(
                self.LAYOUT.pack(
                    fixed_text(point.name, 64, "point name"),
                    fixed_text(point.group, 32, "group"),
                    *point.rgba,
                    *point.position_mm,
                    point.radius_mm,
                    fixed_text(point.owner, 20, "owner"),
                )
                for point in self.points
            )
        ]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 136 bytes a point."""
        what = f"POINT '{head['device']}'"
        points = []
        for name, group, r, g, b, a, x, y, z, radius, owner in elements(cls.LAYOUT, content, what):
            position = finite((x, y, z, radius), f"{what}: position and radius")
            texts = [field_text(text, what) for text in (name, group, owner)]
            points.append(Point(texts[0], position[:3], texts[1], (r, g, b, a), float(position[3]), texts[2]))
        return cls(**head, points=tuple(points))


#: Which ends of a trajectory are meant.
ENTRY_ONLY, TARGET_ONLY, ENTRY_AND_TARGET = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A planned path of TRAJ, (3,) mm each. ``kind``: ENTRY_ONLY, TARGET_ONLY or ENTRY_AND_TARGET."""

    name: str
    entry_mm: npt.NDArray[np.float64]
    target_mm: npt.NDArray[np.float64]
    kind: int = ENTRY_AND_TARGET
    group: str = ""
    rgba: Rgba = (255, 255, 255, 255)
    radius_mm: float = 0.0
    owner: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrajectoryMessage(Message):
    """TRAJ: planned needle and screw paths."""

    TYPE: ClassVar[str] = "TRAJ"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">64s32sBB4B7f20s")

    trajectories: tuple[Trajectory, ...] = ()

    @property
    def parts(self) -> int:
        """Its trajectories."""
        return 1 + len(self.trajectories)

    def content(self) -> list[Buffer]:
        """150 bytes a trajectory."""
        return [
            b"".join(
                self.LAYOUT.pack(
                    fixed_text(path.name, 64, "trajectory name"),
                    fixed_text(path.group, 32, "group"),
                    path.kind,
                    0,
                    *path.rgba,
                    *path.entry_mm,
                    *path.target_mm,
                    path.radius_mm,
                    fixed_text(path.owner, 20, "owner"),
                )
                for path in self.trajectories
            )
        ]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 150 bytes a trajectory."""
        what = f"TRAJ '{head['device']}'"
        paths = []
        for name, group, kind, _reserved, r, g, b, a, *floats, owner in elements(cls.LAYOUT, content, what):
            if kind not in (ENTRY_ONLY, TARGET_ONLY, ENTRY_AND_TARGET):
                raise RefusedMessage("trajectory type", f"{what}: type must be 1, 2 or 3, got {kind}")
            values = finite(floats, f"{what}: positions and radius")
            texts = [field_text(text, what) for text in (name, group, owner)]
            paths.append(
                Trajectory(texts[0], values[:3], values[3:6], kind, texts[1], (r, g, b, a), float(values[6]), texts[2])
            )
        return cls(**head, trajectories=tuple(paths))


@dataclass(frozen=True, eq=False)
class PolyAttribute:
    """Values per point or cell. ``kind``: 0 scalars, 1 vectors, 2 normals, 3 tensors, 4 RGBA; plus 16 for cells.

    ``values``: shape (n, components) float32.
    """

    name: str
    kind: int
    values: npt.NDArray[np.float32]


#: Kind of attribute to its number of components, None where it is free.
ATTRIBUTE_COMPONENTS: dict[int, int | None] = {0: None, 1: 3, 2: 3, 3: 9, 4: 4}
#: Points of a POLYDATA, and cells of one section: the surface of a head at 0.5 mm has a million triangles.
MOST_MESH_POINTS = MOST_CELLS = 2_000_000
#: Cells of one section whose sizes differ: they are looked at one by one, these in 0.3 s.
MOST_MIXED_CELLS = 500_000
#: Numbers of cells that cost as much as one element of a list.
INDICES_A_PART = 100
#: Attributes of a POLYDATA.
MOST_ATTRIBUTES = 256
CELL_SECTIONS = ("vertices", "lines", "polygons", "triangle_strips")


def _no_cells() -> npt.NDArray[np.uint32]:
    return np.zeros(0, ">u4")


@dataclass(frozen=True, eq=False, kw_only=True)
class PolyDataMessage(Message):
    """POLYDATA. ``points``: (n, 3) float32, mm. Cells are flat: number of points, their indices, the next number ..."""

    TYPE: ClassVar[str] = "POLYDATA"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">10I")
    ATTRIBUTE: ClassVar[struct.Struct] = struct.Struct(">BBI")

    points: npt.NDArray[np.float32]
    vertices: npt.NDArray[np.uint32] = field(default_factory=_no_cells)
    lines: npt.NDArray[np.uint32] = field(default_factory=_no_cells)
    polygons: npt.NDArray[np.uint32] = field(default_factory=_no_cells)
    triangle_strips: npt.NDArray[np.uint32] = field(default_factory=_no_cells)
    attributes: tuple[PolyAttribute, ...] = ()

    def cells(self, section: str) -> list[npt.NDArray[np.uint32]]:
        """Point indices of every cell of ``vertices``, ``lines``, ``polygons`` or ``triangle_strips``."""
        flat = getattr(self, section)
        starts = cell_starts(flat, len(self.points), f"POLYDATA '{self.device}', {section}")
        return [flat[start + 1 : start + 1 + int(flat[start])] for start in starts]

    @property
    def parts(self) -> int:
        """Its attributes, and its cells, which cost less."""
        return 1 + len(self.attributes) + sum(len(getattr(self, name)) for name in CELL_SECTIONS) // INDICES_A_PART

    def content(self) -> list[Buffer]:
        """Counts, points, cells, attributes."""
        what = f"POLYDATA '{self.device}'"
        counts = [len(self.points)]
        parts: list[Buffer] = [array_bytes(self.points.astype(">f4", copy=False))]
        for section in CELL_SECTIONS:
            flat = getattr(self, section)
            counts += [len(cell_starts(flat, len(self.points), f"{what}, {section}")), 4 * len(flat)]
            parts.append(array_bytes(flat.astype(">u4", copy=False)))
        for attribute in self.attributes:
            parts.append(self.ATTRIBUTE.pack(attribute.kind, attribute.values.shape[1], len(attribute.values)))
        names = b"".join(attribute.name.encode() + b"\0" for attribute in self.attributes)
        parts.append(names + b"\0" * (len(names) % 2))
        parts += [array_bytes(attribute.values.astype(">f4", copy=False)) for attribute in self.attributes]
        return [self.LAYOUT.pack(*counts, len(self.attributes)), *parts]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read it; every count must agree with what is there and every index must name a point."""
        what = f"POLYDATA '{head['device']}'"
        counts = unpack(cls.LAYOUT, content, what, exact=False)
        checked_count(counts[0], MOST_MESH_POINTS, f"{what}, points")
        take = _Taker(content[cls.LAYOUT.size :], what)
        points = view(take(counts[0] * 12, "points"), ">f4", (counts[0], 3))
        _check_finite(points, f"{what}: points")
        sections: dict[str, npt.NDArray[Any]] = {}
        for number, section in enumerate(CELL_SECTIONS):
            cell_count, size = counts[1 + 2 * number], counts[2 + 2 * number]
            checked_count(cell_count, MOST_CELLS, f"{what}, {section}")
            if size % 4:
                raise RefusedMessage("length", f"{what}: {section} must be whole numbers of 4 bytes, got {size}")
            sections[section] = view(take(size, section), ">u4", (size // 4,))
            found = len(cell_starts(sections[section], counts[0], f"{what}, {section}", cell_count))
            if found != cell_count:
                raise RefusedMessage("shape", f"{what}: {cell_count} {section} announced, {found} found")
        contents = {**head, **sections, "attributes": cls._attributes(take, counts[9], what)}
        return cls(**contents, points=points)

    @classmethod
    def _attributes(cls, take: _Taker, count: int, what: str) -> tuple[PolyAttribute, ...]:
        heads_raw = take(count * cls.ATTRIBUTE.size, "attribute headers")
        heads = elements(cls.ATTRIBUTE, heads_raw, f"{what}, attributes", MOST_ATTRIBUTES)
        names = take.names(count)
        attributes = []
        for (kind, components, length), name in zip(heads, names, strict=True):
            expected = ATTRIBUTE_COMPONENTS.get(kind & 0x0F, 0) if kind < 0x20 else 0
            if components < 1 or expected not in (None, components):
                raise RefusedMessage(
                    "shape", f"{what}: attribute '{name}' of kind {kind} cannot have {components} components"
                )
            values = view(take(length * components * 4, f"attribute '{name}'"), ">f4", (length, components))
            _check_finite(values, f"{what}: attribute '{name}'")
            attributes.append(PolyAttribute(name, kind, values))
        take.end()
        return tuple(attributes)


@dataclass(frozen=True, eq=False, kw_only=True)
class BindMessage(Message):
    """BIND: several messages in one. Children carry no time stamp of their own: theirs is that of the bind."""

    TYPE: ClassVar[str] = "BIND"
    CHILD: ClassVar[struct.Struct] = struct.Struct(">12sQ")

    children: tuple[Message, ...] = ()

    @property
    def parts(self) -> int:
        """All that its children consist of."""
        return 1 + sum(child.parts for child in self.children)

    def content(self) -> list[Buffer]:
        """Number of children, their types and sizes, their names, their contents."""
        heads, names = [struct.pack(">H", len(self.children))], b""
        parts: list[Buffer] = []
        for child in self.children:
            content = b"".join(child.content())
            heads.append(self.CHILD.pack(fixed_text(child.type_name, 12, "message type"), len(content)))
            names += fixed_text(child.device, 20, "device name").rstrip(b"\0") + b"\0"
            parts.append(content + b"\0" * (len(content) % 2))
        names += b"\0" * (len(names) % 2)
        if len(names) > 65535:
            raise WireError(f"BIND '{self.device}' has too many children: {len(self.children)}")
        return [b"".join(heads), struct.pack(">H", len(names)), names, *parts]


#: Children of a BIND: a tracker's tools, or an image and its texts.
MOST_CHILDREN = 256


def bind_children(
    content: memoryview, what: str, decode_child: Callable[[str, str, memoryview], Message]
) -> tuple[Message, ...]:
    """Split the content of a BIND and decode each child with ``decode_child(type, device, content)``.

    One child may be as large as a message of its own; the others together have at most ``MOST_ELEMENTS`` parts.
    """
    take = _Taker(content, what)
    (count,) = struct.unpack(">H", take(2, "number of children"))
    heads = elements(BindMessage.CHILD, take(count * BindMessage.CHILD.size, "child headers"), what, MOST_CHILDREN)
    (names_size,) = struct.unpack(">H", take(2, "size of the name table"))
    table = _Taker(take(names_size, "name table"), what)
    names = table.names(count)
    table.end()
    children, parts, largest = [], 0, 0
    for (type_raw, size), name in zip(heads, names, strict=True):
        part = take(size, f"child '{name}'")
        take(min(size % 2, take.left), "padding")
        child = decode_child(field_text(type_raw, f"{what}, child type"), name, part)
        parts, largest = parts + child.parts, max(largest, child.parts)
        checked_count(parts - largest, MOST_ELEMENTS, f"{what}, beside its largest child,")
        children.append(child)
    take.end()
    return tuple(children)


def cell_starts(flat: npt.NDArray[Any], points: int, what: str, most: int = MOST_CELLS) -> npt.NDArray[np.int64]:
    """Where each cell begins in a flat list of at most ``most`` cells.

    Raises RefusedMessage for a count or index out of range.
    """
    if not len(flat):
        return np.zeros(0, np.int64)
    length = int(flat[0]) + 1
    if len(flat) % length == 0 and (flat[::length] == length - 1).all():
        starts = np.arange(0, len(flat), length)
    else:
        most = min(most, MOST_MIXED_CELLS)
        # Only the numbers of points are looked at one by one; a list of all numbers would be ten times the message.
        numbers = flat.astype(np.uint32).data
        found, position = array("q"), 0
        while position < len(numbers):
            if len(found) == most:
                raise RefusedMessage("count", f"{what}: there are more than {most} cells")
            found.append(position)
            position += numbers[position] + 1
        if position != len(numbers):
            raise RefusedMessage("shape", f"{what}: the last cell is longer than the list")
        starts = np.frombuffer(found, np.int64)
    if int(flat.max()) < points:
        return starts
    is_index = np.ones(len(flat), bool)
    is_index[starts] = False
    if is_index.any() and int(flat[is_index].max()) >= points:
        raise RefusedMessage("shape", f"{what}: index {int(flat[is_index].max())} names none of {points} points")
    return starts


class _Taker:
    """Takes pieces from the front of a content and counts what is missing or left."""

    def __init__(self, content: memoryview, what: str) -> None:
        self._content, self._what, self._position = content, what, 0

    @property
    def left(self) -> int:
        return len(self._content) - self._position

    def __call__(self, size: int, part: str) -> memoryview:
        if size > self.left:
            raise RefusedMessage("length", f"{self._what}: {part} needs {size} bytes, {self.left} are left")
        self._position += size
        return self._content[self._position - size : self._position]

    def names(self, count: int) -> list[str]:
        """``count`` texts that each end in a NUL; a NUL pads them to an even length."""
        names, raw = [], bytes(self._content[self._position :]) if count else b""
        position = 0
        for number in range(count):
            end = raw.find(b"\0", position)
            if end < 0:
                raise RefusedMessage("length", f"{self._what}: name {number} of {count} is missing")
            names.append(decoded_text(raw[position:end], UTF_8, f"{self._what}: name {number}"))
            position = end + 1
        self(position, "names")
        self(position % 2, "padding")
        return names

    def end(self) -> None:
        """Refuse what is left over."""
        if self.left:
            raise RefusedMessage("length", f"{self._what}: {self.left} bytes are left over")


def _check_finite(values: npt.NDArray[Any], what: str) -> None:
    if not np.isfinite(values).all():
        raise RefusedMessage("not finite", f"{what} must be finite")
