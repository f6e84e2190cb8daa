"""Sends DICOM objects to an archive: C-ECHO first, then C-STORE of each, with what came of every one.

'Stored' means that the archive has acknowledged this object; how long it keeps it is its own affair.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pydicom
from IntraopMRIReconstructionLib.data import Progress, no_progress
from IntraopMRIReconstructionLib.errors import SessionError
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from .packages import pynetdicom

#: Verification SOP class (C-ECHO).
VERIFICATION = "1.2.840.10008.1.1"
#: Stored, and stored with a warning such as 'elements coerced' (PS3.4, B.2.3).
SUCCESS, WARNINGS = 0x0000, (0xB000, 0xB006, 0xB007)
#: An application entity title (VR AE) has at most this many characters.
LONGEST_TITLE = 16


@dataclass(frozen=True)
class Archive:
    """Where to send to. ``title``: of the archive; ``own_title``: by which it knows this computer. Times in s.

    Raises SessionError for what cannot be an address.
    """

    host: str
    port: int
    title: str
    own_title: str = "INTRAOPMRI"
    connect_s: float = 10.0
    answer_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.host.strip() or not 0 < self.port < 65536:
            raise SessionError(f"'{self.host}:{self.port}' is no address: give host and port, as pacs.hospital:104")
        for title in (self.title, self.own_title):
            if not title.strip() or len(title) > LONGEST_TITLE or "\\" in title or not title.isascii():
                raise SessionError(
                    f"'{title}' is no application entity title: 1 to {LONGEST_TITLE} ASCII characters; the archive's "
                    "administrator knows it"
                )

    @property
    def text(self) -> str:
        """For a person."""
        return f"{self.title} at {self.host}:{self.port}"


class Fate(Enum):
    """What came of one object."""

    STORED = "stored"
    WARNED = "stored, with a warning"
    REFUSED = "refused"
    UNKNOWN = "sent, not acknowledged"
    NOT_SENT = "not sent"


@dataclass(frozen=True)
class Sent:
    """What came of one object, and why in words when it is not stored."""

    path: Path
    sop_class: str
    sop_uid: str
    fate: Fate
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """What came of all objects, in the order in which they were to be sent."""

    archive: Archive
    objects: tuple[Sent, ...]
    cancelled: bool = False

    @property
    def stored(self) -> tuple[Sent, ...]:
        """Those that the archive has acknowledged."""
        return tuple(sent for sent in self.objects if sent.fate in (Fate.STORED, Fate.WARNED))

    @property
    def complete(self) -> bool:
        """Whether the archive has acknowledged every object."""
        return bool(self.objects) and len(self.stored) == len(self.objects)

    @property
    def text(self) -> str:
        """In one line for a person; nothing is called stored that was not acknowledged."""
        counts = Counter(sent.fate for sent in self.objects)
        parts = ", ".join(f"{counts[fate]} {fate.value}" for fate in Fate if counts[fate])
        why = next((sent.why for sent in self.objects if sent.why), "")
        said = " (cancelled)" if self.cancelled else f": {why}" if why and not self.complete else ""
        return f"{self.archive.text}: {parts} of {len(self.objects)} DICOM objects{said}"


def send(files: Sequence[Path], archive: Archive, progress: Progress = no_progress) -> Outcome:
    """Send the objects in ``files`` one after the other; False from ``progress`` stops before the next one.

    Raises SessionError, with nothing sent, when a file is no DICOM object, or when the archive cannot be reached, does
    not answer to C-ECHO or takes no object at all. What happens later is told for each object.
    """
    if not files:
        raise SessionError("there are no DICOM objects to send: write them first")
    known = [_known(path) for path in files]
    progress(0.0, f"connecting {archive.text}")
    sent: list[Sent] = []
    why, cancelled = "", False
    classes = sorted({sop_class for sop_class, _uid in known})
    with associated(archive, [VERIFICATION, *classes]) as association:
        _echo(archive, association)
        taken = {str(context.abstract_syntax) for context in association.accepted_contexts}
        if not taken & set(classes):
            raise SessionError(f"{archive.text} takes none of these objects: ask its administrator to allow them")
        for number, (path, (sop_class, uid)) in enumerate(zip(files, known, strict=True)):
            cancelled = cancelled or not progress(number / len(files), f"sending to {archive.title}")
            if cancelled or why:
                sent.append(Sent(path, sop_class, uid, Fate.NOT_SENT, why or "cancelled"))
            elif sop_class not in taken:
                kind = pydicom.uid.UID(sop_class).name
                sent.append(Sent(path, sop_class, uid, Fate.REFUSED, f"the archive takes no {kind}"))
            else:
                sent.append(_store(association, path, sop_class, uid))
                if not association.is_established:
                    why = "the connection was lost"
    progress(1.0, "sent")
    return Outcome(archive, tuple(sent), cancelled)


@contextmanager
def associated(archive: Archive, classes: Sequence[str], handlers: Sequence[tuple[Any, Any]] = ()) -> Iterator[Any]:
    """An association for these SOP classes, released at the end. Raises SessionError when there comes none.

    ``handlers``: of events on it, by the library's names.
    """
    library = pynetdicom()
    try:
        # First plainly: the library does not say why there is no connection, and leaves its socket open then.
        socket.create_connection((archive.host, archive.port), archive.connect_s).close()
    except OSError as error:
        why = error.strerror or str(error) or "no answer"
        raise SessionError(
            f"{archive.text} cannot be reached ({why}): check address and network; nothing was sent"
        ) from error
    entity = library.AE(ae_title=archive.own_title)
    entity.connection_timeout = entity.acse_timeout = archive.connect_s
    entity.dimse_timeout = entity.network_timeout = archive.answer_s
    for sop_class in classes:
        entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    association = entity.associate(archive.host, archive.port, ae_title=archive.title, evt_handlers=list(handlers))
    if not association.is_established:
        why = "something listens there that does not answer as an archive"
        if association.is_rejected:
            why = f"it rejects '{archive.own_title}' or is not called '{archive.title}'"
        raise SessionError(f"{archive.text} cannot be used: {why}. Check address and titles; nothing was sent")
    connection = getattr(association.dul.socket, "socket", None)
    if connection is not None:
        # Else each object waits some 40 ms for an acknowledgement that the other side holds back.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        else:
            association.abort()


def _store(association: Any, path: Path, sop_class: str, uid: str) -> Sent:
    try:
        # By name: the library may read the file in its own syntax, and converts it where the archive wants another.
        status = association.send_c_store(pydicom.dcmread(path))
    except (ValueError, RuntimeError, OSError, InvalidDicomError) as error:
        return Sent(path, sop_class, uid, Fate.NOT_SENT, str(error))
    if "Status" not in status:
        return Sent(path, sop_class, uid, Fate.UNKNOWN, "the archive did not acknowledge it in time")
    code, comment = int(status.Status), str(status.get("ErrorComment", ""))
    if code == SUCCESS:
        return Sent(path, sop_class, uid, Fate.STORED)
    words = f"status 0x{code:04X}{f', {comment}' if comment else ''}"
    return Sent(path, sop_class, uid, Fate.WARNED if code in WARNINGS else Fate.REFUSED, words)


def _known(path: Path) -> tuple[str, str]:
    """SOP class and instance of a file. Raises SessionError when it is no DICOM object."""
    try:
        meta = pydicom.filereader.read_file_meta_info(path)
        return str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
    except (InvalidDicomError, OSError, AttributeError, ValueError, EOFError) as error:
        raise SessionError(f"'{path}' is no DICOM object ({error}): write the objects again") from error


def _echo(archive: Archive, association: Any) -> None:
    try:
        status = association.send_c_echo()
    except (ValueError, RuntimeError) as error:
        raise SessionError(f"{archive.text} does not answer to C-ECHO ({error}): nothing was sent") from error
    if "Status" not in status or int(status.Status) != SUCCESS:
        raise SessionError(f"{archive.text} does not answer to C-ECHO: nothing was sent")
