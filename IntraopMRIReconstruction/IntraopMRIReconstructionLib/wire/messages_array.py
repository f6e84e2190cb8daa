"""Messages that carry arrays: IMAGE, NDARRAY, COLORTABLE. Arrays look at the received bytes, nothing is copied."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from ..data import AnyArray
from ..errors import WireError
from .header import Buffer, RefusedMessage
from .message import Head, Message, array_bytes, finite, floats_from_matrix, frozen, view

#: Scalar types of IMAGE, NDARRAY and IMGMETA. 13 is a pair of float64: real and imaginary part.
SCALAR_TYPES: dict[int, str] = {
    2: "i1", 3: "u1", 4: "i2", 5: "u2", 6: "i4", 7: "u4", 10: "f4", 11: "f8", 13: "c16",
}  # fmt: skip
SCALAR_CODES = {np.dtype(name): code for code, name in SCALAR_TYPES.items()}

Coordinate = Literal["RAS", "LPS"]
COORDINATES: dict[int, Coordinate] = {1: "RAS", 2: "LPS"}
Endian = Literal["big", "little"]
ENDIANS: dict[int, Endian] = {1: "big", 2: "little"}
ORDERS: dict[Endian, Literal[">", "<"]] = {"big": ">", "little": "<"}

#: Layouts of the image header that are known; both are laid out alike.
IMAGE_VERSIONS = (1, 2)
#: Lengths in IMAGE and NDARRAY travel as 16 bits.
LONGEST_AXIS = 65535
#: numpy holds no more (32 before numpy 2).
MOST_AXES = 32


def scalar_code(dtype: npt.DTypeLike, what: str) -> int:
    """Scalar type of the protocol for a numpy type. Raises WireError when it has none (int64, complex64, bool ...)."""
    code = SCALAR_CODES.get(np.dtype(dtype).newbyteorder("="))
    if code is None:
        raise WireError(f"{what}: OpenIGTLink cannot carry {np.dtype(dtype)}, only {', '.join(SCALAR_TYPES.values())}")
    return code


def scalar_type(code: int, endian: Endian, what: str) -> np.dtype[Any]:
    """Numpy type of a scalar type. Raises RefusedMessage for an unknown one."""
    name = SCALAR_TYPES.get(code)
    if name is None:
        raise RefusedMessage("scalar type", f"{what}: scalar type must be one of {sorted(SCALAR_TYPES)}, got {code}")
    return np.dtype(ORDERS[endian] + name)


def endian_of(array: AnyArray) -> Endian:
    """Byte order in which the elements of an array lie in memory; little for single bytes."""
    return "big" if array.dtype.str[0] == ">" else "little"


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageMessage(Message):
    """IMAGE, whole or a box of it.

    ``array``: shape (k, j, i) or (k, j, i, components) of the part that this message carries.
    ``axes_mm``: (3, 3), columns are direction times spacing along i, j, k. ``centre_mm``: (3,), CENTRE of the whole
    volume. Both are in the frame ``coordinate``, as the sender says.
    ``size_ijk``: size of the whole volume, ``offset_ijk``: where this part begins in it.
    ``endian``: byte order of the voxels on the wire; None takes that of ``array``.
    """

    TYPE: ClassVar[str] = "IMAGE"
    LAYOUT: ClassVar[struct.Struct] = struct.Struct(">HBBBB3H48s3H3H")

    array: AnyArray
    axes_mm: npt.NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    centre_mm: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    coordinate: Coordinate = "RAS"
    size_ijk: tuple[int, int, int] | None = None
    offset_ijk: tuple[int, int, int] = (0, 0, 0)
    endian: Endian | None = None
    layout_version: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.array.ndim not in (3, 4) or 0 in self.array.shape or max(self.array.shape[:3]) > LONGEST_AXIS:
            raise WireError(
                f"IMAGE '{self.device}' must have shape (k, j, i) or (k, j, i, components), each 1 to {LONGEST_AXIS}, "
                f"got {self.array.shape}"
            )
        if self.size_ijk is None:
            object.__setattr__(self, "size_ijk", self.part_ijk)
        elif _leaves(self.offset_ijk, self.part_ijk, self.size_ijk):
            raise WireError(
                f"IMAGE '{self.device}': part {self.part_ijk} at {self.offset_ijk} leaves its volume of {self.size_ijk}"
            )
        if self.endian is None:
            object.__setattr__(self, "endian", endian_of(self.array))

    @property
    def part_ijk(self) -> tuple[int, int, int]:
        """Size of the part that this message carries."""
        k, j, i = self.array.shape[:3]
        return i, j, k

    @property
    def components(self) -> int:
        """Values per voxel."""
        return self.array.shape[3] if self.array.ndim == 4 else 1

    @property
    def is_whole(self) -> bool:
        """Whether this message carries its whole volume."""
        return self.part_ijk == self.size_ijk

    def content(self) -> list[Buffer]:
        """72 bytes and the voxels."""
        endian = self.endian or endian_of(self.array)
        head = self.LAYOUT.pack(
            self.layout_version,
            self.components,
            scalar_code(self.array.dtype, f"IMAGE '{self.device}'"),
            1 if endian == "big" else 2,
            1 if self.coordinate == "RAS" else 2,
            *(self.size_ijk or self.part_ijk),
            floats_from_matrix(np.column_stack([self.axes_mm, self.centre_mm])).tobytes(),
            *self.offset_ijk,
            *self.part_ijk,
        )
        return [head, array_bytes(self.array.astype(self.array.dtype.newbyteorder(ORDERS[endian]), copy=False))]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read 72 bytes and exactly the voxels that they announce."""
        what = f"IMAGE '{head['device']}'"
        if len(content) < cls.LAYOUT.size:
            raise RefusedMessage("length", f"{what} needs at least {cls.LAYOUT.size} bytes, got {len(content)}")
        facts, kind, shape = _image_head(bytes(content[: cls.LAYOUT.size]), what)
        return cls(**head, **facts, array=view(content, kind, shape, cls.LAYOUT.size, what))


@lru_cache(maxsize=64)
def _image_head(raw: bytes, what: str) -> tuple[dict[str, Any], np.dtype[Any], tuple[int, ...]]:
    """(fields of the message, type and shape of its voxels) of 72 bytes. Kept: a live view repeats them.

    Raises RefusedMessage for what no image has.
    """
    version, components, code, endian_byte, coordinate_byte, *rest = ImageMessage.LAYOUT.unpack(raw)
    size, place, offset, part = tuple(rest[:3]), rest[3], tuple(rest[4:7]), tuple(rest[7:])
    if version not in IMAGE_VERSIONS:
        raise RefusedMessage("image layout", f"{what}: image header version must be 1 or 2, got {version}")
    if endian_byte not in ENDIANS:
        raise RefusedMessage("endian", f"{what}: endian must be 1 (big) or 2 (little), got {endian_byte}")
    if coordinate_byte not in COORDINATES:
        raise RefusedMessage("coordinate", f"{what}: coordinate must be 1 (RAS) or 2 (LPS), got {coordinate_byte}")
    if components < 1 or min(size) < 1 or min(part) < 1:
        raise RefusedMessage(
            "size", f"{what}: components and sizes must be at least 1, got {components}, {size}, part {part}"
        )
    if _leaves(offset, part, size):
        raise RefusedMessage("sub-volume", f"{what}: part {part} at {offset} leaves its volume of {size}")
    matrix = frozen(finite(struct.unpack(">12f", place), f"{what}: matrix").reshape(4, 3))
    facts = {
        "axes_mm": matrix[:3].T,
        "centre_mm": matrix[3],
        "coordinate": COORDINATES[coordinate_byte],
        "size_ijk": size,
        "offset_ijk": offset,
        "endian": ENDIANS[endian_byte],
        "layout_version": version,
    }
    shape = part[::-1] if components == 1 else (*part[::-1], components)
    return facts, scalar_type(code, ENDIANS[endian_byte], what), shape


def _leaves(offset: tuple[int, ...], part: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether a part leaves its volume."""
    return offset[0] + part[0] > size[0] or offset[1] + part[1] > size[1] or offset[2] + part[2] > size[2]


@dataclass(frozen=True, eq=False, kw_only=True)
class NDArrayMessage(Message):
    """NDARRAY. ``array``: any shape of up to 32 axes, big-endian as received; complex128 for scalar type 13."""

    TYPE: ClassVar[str] = "NDARRAY"

    array: AnyArray

    def content(self) -> list[Buffer]:
        """Type, number of axes, their lengths, the elements in network byte order."""
        what = f"NDARRAY '{self.device}'"
        if not 1 <= self.array.ndim <= MOST_AXES or not all(1 <= length <= LONGEST_AXIS for length in self.array.shape):
            raise WireError(f"{what} takes 1 to {MOST_AXES} axes of up to {LONGEST_AXIS}, got shape {self.array.shape}")
        head = struct.pack(
            f">BB{self.array.ndim}H", scalar_code(self.array.dtype, what), self.array.ndim, *self.array.shape
        )
        return [head, array_bytes(self.array.astype(self.array.dtype.newbyteorder(">"), copy=False))]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read type, axes and exactly the elements that they announce."""
        what = f"NDARRAY '{head['device']}'"
        axes = content[1] if len(content) >= 2 else 0
        offset = 2 + 2 * axes
        if axes == 0 or len(content) < offset:
            raise RefusedMessage("length", f"{what} of {len(content)} bytes ends before the sizes of its {axes} axes")
        if axes > MOST_AXES:
            raise RefusedMessage("size", f"{what}: at most {MOST_AXES} axes can be held, got {axes}")
        shape = struct.unpack_from(f">{axes}H", content, 2)
        if min(shape) < 1:
            raise RefusedMessage("size", f"{what}: every axis must have at least 1 element, got {shape}")
        return cls(**head, array=view(content, scalar_type(content[0], "big", what), shape, offset, what))


@dataclass(frozen=True, eq=False, kw_only=True)
class ColorTableMessage(Message):
    """COLORT or COLORTABLE. ``table``: (256,) or (65536,) uint8 or uint16, or (.., 3) uint8 RGB; row = index."""

    TYPE: ClassVar[str] = "COLORT"
    ROWS: ClassVar[dict[int, int]] = {3: 256, 5: 65536}
    MAPS: ClassVar[dict[int, tuple[str, tuple[int, ...]]]] = {3: ("u1", ()), 5: (">u2", ()), 19: ("u1", (3,))}

    table: AnyArray

    def content(self) -> list[Buffer]:
        """Index type, map type, table."""
        rows = {rows: code for code, rows in self.ROWS.items()}
        maps = {(np.dtype(kind).newbyteorder("="), rest): code for code, (kind, rest) in self.MAPS.items()}
        index_type = rows.get(self.table.shape[0])
        map_type = maps.get((self.table.dtype.newbyteorder("="), self.table.shape[1:]))
        if index_type is None or map_type is None:
            raise WireError(
                f"COLORT '{self.device}' needs 256 or 65536 rows of uint8, uint16 or RGB, "
                f"got {self.table.dtype} {self.table.shape}"
            )
        return [bytes([index_type, map_type]), array_bytes(self.table.astype(self.MAPS[map_type][0], copy=False))]

    @classmethod
    def from_content(cls, content: memoryview, head: Head) -> Self:
        """Read two types and the table."""
        what = f"COLORT '{head['device']}'"
        if len(content) < 2 or content[0] not in cls.ROWS or content[1] not in cls.MAPS:
            raise RefusedMessage(
                "scalar type", f"{what}: index type must be 3 or 5, map type 3, 5 or 19, got {bytes(content[:2])!r}"
            )
        kind, rest = cls.MAPS[content[1]]
        return cls(**head, table=view(content, kind, (cls.ROWS[content[0]], *rest), 2, what))
