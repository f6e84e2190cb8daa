"""A folder of results that is there whole or not at all, and what runs that were killed have left beside it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from IntraopMRIReconstructionLib.errors import SessionError

try:
    import fcntl
except ImportError:  # Windows, where what is left cannot be told from what another run writes now
    fcntl = None  # type: ignore[assignment]

#: How the lock of a folder that is written to ends, and the folder that it takes the place of.
LOCK, OLD = ".lock", ".old"
#: What the lock of a folder holds that a run still writes to: it lies beside the folder, for as long as that run lives.
MARK = "intraopmri: a run writes to the folder of this name\n"


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder to write to that takes the place of ``folder``, with all in it, when the block ends well.

    Otherwise nothing of it stays. What was there goes only when the new one stands in its place. What earlier calls
    left that were killed goes too. Raises SessionError when that cannot be written.
    """
    part, lock = None, None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        swept(folder)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        lock = _locked(part)
        yield part
        part.chmod(0o755)  # mkdtemp keeps others out; results may be read like any file
        _put(part, folder)
    except OSError as error:
        raise SessionError(f"'{folder}' cannot be written: {error}. Nothing was changed there") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)
            _lock_of(part).unlink(missing_ok=True)
        if lock is not None:
            lock.close()


def swept(folder: Path, keep: Callable[[Path], object] = lambda _part: None) -> int:
    """Remove what calls of :func:`replaced` for ``folder`` left that were killed; returns of how many.

    What such a call had moved away from ``folder`` is put back when nothing is there. ``keep`` is given each folder
    before it goes. Nothing is removed that does not lie beside a lock of ours that nobody holds any more.
    """
    dead = [part for part in _like(folder, re.escape(LOCK)) if _is_dead(part)]
    for lock in dead:
        part = lock.with_name(lock.name.removesuffix(LOCK))
        old = _old(part)
        if part.is_dir():
            keep(part)
            shutil.rmtree(part, ignore_errors=True)
            # It was killed before the new one stood there: this is what was there before.
            if old.is_dir() and not folder.exists():
                old.replace(folder)
        else:
            shutil.rmtree(old, ignore_errors=True)
        lock.unlink(missing_ok=True)
    return len(dead)


def unknown(folder: Path) -> list[Path]:
    """What lies beside ``folder`` and is called like what a killed run leaves, but without a lock that says so."""
    found = _like(folder, f"({re.escape(OLD)})?")
    return [path for path in found if not _lock_of(path.with_name(path.name.removesuffix(OLD))).exists()]


def _like(folder: Path, ending: str) -> list[Path]:
    name = re.compile(re.escape(f".{folder.name}.") + "[a-z0-9_]{8}" + ending)
    return sorted(path for path in folder.parent.iterdir() if name.fullmatch(path.name))


def _lock_of(part: Path) -> Path:
    return part.with_name(part.name + LOCK)


def _old(part: Path) -> Path:
    return part.with_name(part.name + OLD)


def _locked(part: Path) -> IO[str] | None:
    """A lock of a folder that is written to; None where files cannot be locked, and then there is none."""
    if fcntl is None:
        return None
    # Locked before it bears its name: nobody finds it otherwise.
    draft = part / "lock"
    lock = draft.open("w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.write(MARK)
        lock.flush()
        draft.replace(_lock_of(part))
    except OSError:
        lock.close()
        draft.unlink(missing_ok=True)
        return None
    return lock


def _is_dead(lock: Path) -> bool:
    """Whether it is a lock of ours, and the run that made it is over."""
    if fcntl is None or not lock.is_file():
        return False
    try:
        with lock.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file.read(len(MARK) + 1) == MARK
    except (OSError, UnicodeDecodeError):
        return False


def _put(part: Path, folder: Path) -> None:
    old = _old(part)
    if folder.exists():
        folder.replace(old)
    try:
        part.replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
