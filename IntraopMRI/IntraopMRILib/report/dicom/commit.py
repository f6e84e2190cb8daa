"""Asks an archive to answer for what it has stored: Storage Commitment (PS3.4, annex J).

An archive answers when it likes, on the same connection or by calling back; nothing counts as committed before it has
said so of that very object. What comes too late is not heard: the objects are stored, and nobody waits for the promise.
"""

from __future__ import annotations

import queue
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from IntraopMRIReconstructionLib.data import Progress, no_progress
from IntraopMRIReconstructionLib.errors import SessionError
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from .packages import pynetdicom
from .send import SUCCESS, VERIFICATION, Archive, Outcome, associated

#: Storage Commitment Push Model: its SOP class, its only instance, and the action that asks for it.
PUSH_MODEL, WELL_KNOWN, REQUEST = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", 1
#: What may be the matter with an object (PS3.3, C.14).
REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object there",
    0x0119: "it is there as another kind of object",
    0x0122: "the archive commits itself to no such objects",
    0x0131: "the request was there before",
    0x0213: "no room left",
}
#: How often a person who wants no more waiting is heard, s.
TICK_S = 0.1


@dataclass(frozen=True)
class Commitment:
    """What came of the request. ``asked``: SOP instances; ``committed``: those of them that the archive answers for.

    ``refused``: instance to reason; ``why``: what is the matter with all others.
    """

    archive: Archive
    asked: tuple[str, ...]
    committed: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    @property
    def complete(self) -> bool:
        """Whether the archive answers for every object."""
        return bool(self.asked) and set(self.asked) <= self.committed

    @property
    def text(self) -> str:
        """In one line for a person."""
        others = len(self.asked) - len(self.committed) - len(self.refused)
        parts = [f"{len(self.committed)} committed"] if self.committed else []
        parts += [f"{count} not committed: {why}" for why, count in Counter(self.refused.values()).items()]
        parts += [f"{others} not committed: {self.why or 'the archive does not mention them'}"] if others else []
        return f"{self.archive.text}: {'; '.join(parts)} (of {len(self.asked)} DICOM objects)"


def ask(outcome: Outcome, reply_port: int, wait_s: float, progress: Progress = no_progress) -> Commitment:
    """Ask for commitment to what was stored; wait for it ``wait_s`` at most, and until ``progress`` says False.

    ``reply_port``: where the archive calls back, as it has it in its configuration; 0 when it answers on the same
    connection. Raises SessionError when that port cannot be opened; what is the archive's is told in the result.
    """
    archive, stored = outcome.archive, outcome.stored
    asked = tuple(sent.sop_uid for sent in stored)
    if not asked:
        return Commitment(archive, ())
    answers: queue.Queue[Dataset] = queue.Queue()
    transaction = str(generate_uid(prefix=None))
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = [_named(sent.sop_class, sent.sop_uid) for sent in stored]

    def heard(event: Any) -> tuple[int, None]:
        told = event.event_information
        if told.get("TransactionUID") != transaction:
            return 0x0110, None
        answers.put(told)
        return SUCCESS, None

    handlers = [(pynetdicom().evt.EVT_N_EVENT_REPORT, heard)]
    with ExitStack() as open_:
        if reply_port:
            open_.callback(_listening(archive, reply_port, handlers).shutdown)
        try:
            association = open_.enter_context(associated(archive, [VERIFICATION, PUSH_MODEL], handlers))
            if PUSH_MODEL not in {str(context.abstract_syntax) for context in association.accepted_contexts}:
                return Commitment(archive, asked, why="the archive does not offer it")
            status, _reply = association.send_n_action(request, REQUEST, PUSH_MODEL, WELL_KNOWN)
        except SessionError:
            return Commitment(archive, asked, why="the archive could not be reached again")
        except (ValueError, RuntimeError) as error:
            return Commitment(archive, asked, why=f"the archive could not be asked ({error})")
        if "Status" not in status or int(status.Status) != SUCCESS:
            code = f"refuses with status 0x{int(status.Status):04X}" if "Status" in status else "does not answer"
            return Commitment(archive, asked, why=f"the archive {code}")
        told, why = _first(answers, association, wait_s, reply_port, progress)
    return Commitment(archive, asked, why=why) if told is None else _read(archive, asked, told)


def _read(archive: Archive, asked: Sequence[str], told: Dataset) -> Commitment:
    """Only what was asked for, and what failed is not committed, whatever else is said of it."""
    failed = {
        str(each.ReferencedSOPInstanceUID): REASONS.get(reason, f"reason 0x{reason:04X}")
        for each in told.get("FailedSOPSequence") or ()
        for reason in [int(each.get("FailureReason") or 0x0110)]
    }
    done = {str(each.ReferencedSOPInstanceUID) for each in told.get("ReferencedSOPSequence") or ()}
    refused = {uid: why for uid, why in failed.items() if uid in asked}
    return Commitment(archive, tuple(asked), frozenset((done & set(asked)) - set(refused)), refused)


def _first(
    answers: queue.Queue[Dataset], association: Any, wait_s: float, reply_port: int, progress: Progress
) -> tuple[Dataset | None, str]:
    """The answer, or why there is none."""
    end_s = time.monotonic() + wait_s
    while (left_s := end_s - time.monotonic()) > 0:
        # Looked at first: an answer may come right before the end of the connection.
        closed = not reply_port and not association.is_established
        try:
            return answers.get(not closed, min(TICK_S, left_s)), ""
        except queue.Empty:
            if closed:
                return None, "the archive closed the connection without an answer"
            if not progress(1.0 - left_s / wait_s, "waiting for the archive's commitment"):
                return None, "nobody waited for the answer"
    return None, f"no answer within {wait_s:g} s"


def _listening(archive: Archive, port: int, handlers: Sequence[tuple[Any, Any]]) -> Any:
    """A server for the archive's call, only where the way to it begins. Raises SessionError."""
    entity = pynetdicom().AE(ae_title=archive.own_title)
    entity.require_called_aet = True
    # The archive stays the provider when it calls.
    entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
    try:
        with socket.create_connection((archive.host, archive.port), archive.connect_s) as way:
            here = way.getsockname()[0]
        return entity.start_server((here, port), block=False, evt_handlers=list(handlers))
    except OSError as error:
        raise SessionError(
            f"port {port}, where the archive would call back, cannot be opened ({error.strerror or error}): take the "
            "one that the archive's administrator has for this computer"
        ) from error


def _named(sop_class: str, sop_uid: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class, sop_uid
    return made
