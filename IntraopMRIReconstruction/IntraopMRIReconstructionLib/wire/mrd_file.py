"""MRD files (HDF5): the whole table of readouts in one HDF5 read, not one read a line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..data import Acquisition, AnyArray, Encoding
from ..errors import OpenChoice, WireError
from .mrd_header import MrdHeader, format_header, parse_header
from .mrd_layout import ACQUISITION_HEAD
from .mrd_lines import Lines, scan_lines
from .mrd_scan import MrdOptions, plan_scan

#: Rows of the table that lie together in the file: one HDF5 chunk of some 100 kB.
_CHUNK_ROWS = 256

#: Files up to this size are read with one HDF5 read when they are opened. Larger ones have their heads read first and
#: the samples on demand: files with one row a chunk then cost twice the time, but only the memory that is asked for.
READ_WHOLE_BELOW_BYTES = 2 << 30


#: Heads are mostly zeros, so a compressed table may be much smaller than its rows; a table that would be smaller still
#: has a damaged size, and memory for it is not taken.
MAX_DEFLATION = 50


@dataclass(frozen=True, eq=False)
class MrdScan:
    """A scan read in whole: how it is encoded, and its readouts in blocks of equal counters."""

    encoding: Encoding
    acquisitions: tuple[Acquisition, ...]


class MrdReader:
    """An open MRD file, for scans that are too large to read in whole; a context manager.

    ``encoding`` is known at once, :meth:`blocks` reads on demand. Raises WireError when the file is not MRD, is cut or
    damaged, or when its geometry cannot be trusted, and OpenChoice where a person may say what the file does not (see
    :class:`.mrd_scan.MrdOptions`). ``group``: of the file; "" for the only one with readouts.
    """

    def __init__(self, path: str | os.PathLike[str], options: MrdOptions | None = None, group: str = "") -> None:
        import h5py

        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise WireError(f"cannot open '{self.path}' as MRD (HDF5): {error}") from error
        try:
            self.header, self._table, self._heads = self._opened(group)
            self._plan = plan_scan(self.header, self._heads, options or MrdOptions(), self.path.stem)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Number of readouts in the file, of every kind."""
        return len(self._heads)

    @property
    def encoding(self) -> Encoding:
        """How the scan is encoded and where it lies."""
        return self._plan.encoding

    def blocks(self, lines_at_once: int = 0) -> Iterator[Acquisition]:
        """Readouts in blocks of equal counters. ``lines_at_once``: rows to take at a time, 0 for all.

        The last block carries ``last``. Raises WireError when the data is damaged.
        """
        step = lines_at_once or len(self._heads)
        held: Acquisition | None = None
        unused: Counter[str] = Counter()
        for start in range(0, len(self._heads), step):
            lines = self._lines(start, start + step)
            unused += self._plan.left_out(lines.heads)
            for block in self._plan.blocks(lines):
                if held is not None:
                    yield replace(held, last=False)
                held, unused = replace(block, left_out=unused), Counter()
        if held is not None:
            yield replace(held, last=True, left_out=unused + Counter(held.left_out))

    def close(self) -> None:
        """Close the file; harmless when done twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _opened(self, group: str) -> tuple[MrdHeader, Any, AnyArray]:
        with _naming(self.path):
            groups = [str(name) for name, node in self._file.items() if hasattr(node, "keys")]
            found = [name for name in groups if {"xml", "data"} <= set(self._file[name])]
        if group not in found:
            if group or not found:
                where = f" under '{group}'" if group else ""
                raise WireError(f"'{self.path}' holds no MRD raw data{where} (groups: {', '.join(groups) or 'none'})")
            if len(found) > 1:
                raise OpenChoice(f"'{self.path.name}' holds {len(found)} scans", "group", tuple(found))
            group = found[0]
        with _naming(self.path):
            xml = np.asarray(self._file[group]["xml"][()]).reshape(-1)[0]
            table = self._file[group]["data"]
            if table.size * ACQUISITION_HEAD.itemsize > MAX_DEFLATION * self.path.stat().st_size:
                raise ValueError(f"its {table.size} readouts cannot lie in {self.path.stat().st_size} bytes")
            if table.dtype.names is None or self.path.stat().st_size <= READ_WHOLE_BELOW_BYTES:
                table = table[:]
                heads = table["head"]
            else:
                heads = table.fields("head")[:]
        if heads.ndim != 1 or heads.dtype.names != ACQUISITION_HEAD.names or not len(heads):
            raise WireError(f"'{self.path}' has no table of MRD readouts of version 1: {heads.shape} of {heads.dtype}")
        return parse_header(xml), table, heads.astype(ACQUISITION_HEAD, copy=False)

    def _lines(self, start: int, stop: int) -> Lines:
        with _naming(self.path):
            rows = self._table[start:stop]
            return Lines(self._heads[start:stop], list(rows["data"]), list(rows["traj"]))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn what h5py raises for damaged, cut or foreign files, by where the damage lies, into one error."""
    try:
        yield
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise WireError(f"'{path}' is damaged, cut or no MRD: {error}") from error


def read_mrd(path: str | os.PathLike[str], options: MrdOptions | None = None, group: str = "") -> MrdScan:
    """Read an MRD file in whole. Raises WireError as :class:`MrdReader` does."""
    with MrdReader(path, options, group) as reader:
        return MrdScan(reader.encoding, tuple(reader.blocks()))


def write_mrd(
    path: str | os.PathLike[str], encoding: Encoding, acquisitions: Iterable[Acquisition], group: str = "dataset"
) -> None:
    """Write a new MRD file. It appears under its name only when it is whole.

    Raises WireError when the file exists already or cannot be written, DataError when a block belongs to another scan.
    """
    import h5py

    floats = h5py.vlen_dtype(np.dtype("<f4"))
    row = np.dtype([("head", ACQUISITION_HEAD), ("traj", floats), ("data", floats)])
    target = Path(path)
    if target.exists():
        raise WireError(f"'{target}' exists already and is not overwritten; name a new file")
    part = target.with_name(target.name + ".part")
    try:
        with h5py.File(part, "w") as file:
            node = file.create_group(group)
            node.create_dataset("xml", (1,), h5py.string_dtype("ascii"), data=[format_header(encoding).decode()])
            table = node.create_dataset("data", (0,), row, maxshape=(None,), chunks=(_CHUNK_ROWS,))
            for lines in scan_lines(encoding, acquisitions):
                start, count = len(table), len(lines.heads)
                table.resize((start + count,))
                table[start:] = _rows(lines, row)
        part.replace(target)
    except OSError as error:
        raise WireError(f"cannot write '{target}': {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _rows(lines: Lines, row: np.dtype[Any]) -> AnyArray:
    rows = np.empty(len(lines.heads), row)
    rows["head"] = lines.heads
    nothing = np.zeros(0, np.float32)
    for number, samples in enumerate(lines.samples):
        rows["data"][number] = samples
        rows["traj"][number] = nothing if lines.trajectory is None else lines.trajectory[number]
    return rows
