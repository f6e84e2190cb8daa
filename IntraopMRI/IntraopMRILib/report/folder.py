"""A folder of results that is there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from IntraopMRIReconstructionLib.errors import SessionError


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A new folder to write to that takes the place of ``folder``, with all in it, when the block ends well.

    Otherwise nothing of it stays. What was there goes only when the new one stands in its place. Raises SessionError
    when that cannot be written.
    """
    part = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield part
        part.chmod(0o755)  # mkdtemp keeps others out; results may be read like any file
        _put(part, folder)
    except OSError as error:
        raise SessionError(f"'{folder}' cannot be written: {error}. Nothing was changed there") from error
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _put(part: Path, folder: Path) -> None:
    old = part.with_name(f"{part.name}.old")
    if folder.exists():
        folder.replace(old)
    try:
        part.replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
