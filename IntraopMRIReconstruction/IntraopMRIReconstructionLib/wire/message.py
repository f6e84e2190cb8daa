"""What all OpenIGTLink messages share, and small tools to pack and unpack their contents."""

from __future__ import annotations

import math
import struct
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..data import Matrix
from ..errors import WireError
from .header import VERSIONS, Buffer, RefusedMessage, utc_of

#: Parts of one message that each become an object: points, trajectories, descriptions of images. Ten times what a plan
#: or a catalogue has, and 0.1 s of work.
MOST_ELEMENTS = 10_000

#: Header fields of a decoded message, passed on to its constructor.
Head = Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Message:
    """Header fields of a message. The content is in the fields of the subclasses.

    Every subclass has ``from_content(content, head)``, which reads a content and raises RefusedMessage when it is not
    what the type demands. Not an ABC, whose ``isinstance`` takes six times as long: a message is asked a dozen times.

    ``timestamp``: 32.32 fixed-point UTC seconds as on the wire (0 = unused); see :attr:`sent_utc_s`.
    ``version``: header version, 1 or 2. Metadata and a message id need 2: old receivers lose the thread on it, so it
    is never chosen silently.
    ``wire_type``: type name in the header where a type has several.
    ``metadata_encodings``: MIBenum of metadata values that a peer sent in another encoding than we would.
    """

    TYPE: ClassVar[str] = ""

    device: str = ""
    timestamp: int = 0
    version: int = 1
    message_id: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    metadata_encodings: Mapping[str, int] = field(default_factory=dict)
    wire_type: str = ""

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise WireError(f"header version must be 1 or 2, {self.type_name} '{self.device}' has {self.version}")
        if self.version == 1 and (self.metadata or self.message_id):
            raise WireError(f"metadata and message ids need header version 2, {self.type_name} '{self.device}' has 1")
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    @property
    def type_name(self) -> str:
        """Type as it stands in the header."""
        return self.wire_type or self.TYPE

    @property
    def sent_utc_s(self) -> float | None:
        """When the sender says that the data was made (POSIX seconds), None when it does not say."""
        return utc_of(self.timestamp)

    @property
    def parts(self) -> int:
        """How many things had to be made or looked at one by one to read it: what its caps bound."""
        return 1

    @abstractmethod
    def content(self) -> list[Buffer]:
        """Content as on the wire, in parts that need not be joined."""


def array_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Bytes of an array in its own byte order, without a copy when it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, read-only: contents of messages are shared."""
    array.setflags(write=False)
    return array


def view(
    content: Buffer, dtype: npt.DTypeLike, shape: tuple[int, ...], offset: int = 0, what: str = "content"
) -> npt.NDArray[Any]:
    """Read-only array that looks at the received bytes; they must end where the array ends."""
    kind = np.dtype(dtype)
    count = 1
    for length in shape:
        count *= length
    if len(content) - offset != count * kind.itemsize:
        raise RefusedMessage(
            "length", f"{what} of shape {shape} needs {count * kind.itemsize} bytes, got {len(content) - offset}"
        )
    return frozen(np.frombuffer(content, kind, count, offset).reshape(shape))


def unpack(layout: struct.Struct, content: Buffer, what: str, exact: bool = True) -> tuple[Any, ...]:
    """Unpack a fixed layout. Raises RefusedMessage when the content has another length (or is shorter)."""
    if len(content) < layout.size or (exact and len(content) != layout.size):
        raise RefusedMessage("length", f"{what} needs {layout.size} bytes, got {len(content)}")
    return layout.unpack_from(content)


def elements(layout: struct.Struct, content: Buffer, what: str, most: int = MOST_ELEMENTS) -> list[tuple[Any, ...]]:
    """Unpack a content that repeats one layout, at most ``most`` times: each piece becomes an object."""
    if len(content) % layout.size:
        raise RefusedMessage(
            "length", f"{what} comes in pieces of {layout.size} bytes, got {len(content)} bytes, not a multiple"
        )
    checked_count(len(content) // layout.size, most, what)
    return list(layout.iter_unpack(content))


def checked_count(count: int, most: int, what: str) -> None:
    """Raise RefusedMessage when a message has more parts than anybody needs, before anything is made of them."""
    if count > most:
        raise RefusedMessage("count", f"{what} has {count} parts, at most {most} are taken")


def finite(values: Sequence[float], what: str) -> npt.NDArray[np.float64]:
    """A few values as float64. Raises RefusedMessage when one is NaN or infinite."""
    if not all(map(math.isfinite, values)):
        raise RefusedMessage("not finite", f"{what} must be finite, got {list(values)}")
    return np.array(values, dtype=np.float64)


def matrix_from_floats(values: Sequence[float], what: str) -> Matrix:
    """(4, 4) matrix from the twelve floats of the protocol: three columns and the position."""
    a, b, c, d, e, f, g, h, i, x, y, z = values
    rows = (a, d, g, x, b, e, h, y, c, f, i, z, 0.0, 0.0, 0.0, 1.0)
    return frozen(finite(rows, what).reshape(4, 4))


def floats_from_matrix(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The twelve big-endian floats of the protocol from a (4, 4) matrix. Raises WireError when one is not finite."""
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(matrix[:3].T, dtype=">f4").reshape(-1)
    if not np.isfinite(floats).all():
        raise WireError(f"a matrix on the wire must be finite float32, got {np.asarray(matrix).tolist()}")
    return floats
