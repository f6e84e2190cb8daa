"""Archives to send to: Orthanc as a process, and one that misbehaves as told."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from IntraopMRILib.report.dicom.commit import PUSH_MODEL, WELL_KNOWN
from IntraopMRILib.report.dicom.send import Archive
from peers.waiting import until
from pydicom.dataset import Dataset

TITLE = "ARCHIVE"


def missing() -> str:
    """Why Orthanc cannot be started here; empty when it can."""
    return "" if shutil.which("Orthanc") else "Orthanc is missing: apt-get install orthanc"


class Orthanc:
    """A running Orthanc: :attr:`archive` to send to, which calls back at ``reply_port``; :meth:`get` asks over HTTP."""

    def __init__(self, dicom_port: int, http_port: int, reply_port: int) -> None:
        self.archive = Archive("127.0.0.1", dicom_port, TITLE)
        self.reply_port = reply_port
        self._url = f"http://127.0.0.1:{http_port}"

    def get(self, path: str) -> Any:
        """JSON of a resource."""
        return json.loads(self.bytes(path))

    def bytes(self, path: str) -> bytes:
        """Content of a resource."""
        with urllib.request.urlopen(self._url + path, timeout=10) as answer:
            return bytes(answer.read())

    def remove(self, name: str) -> None:
        """One of its own names of objects: behind its back, as it were."""
        with urllib.request.urlopen(
            urllib.request.Request(f"{self._url}/instances/{name}", method="DELETE"), timeout=10
        ):
            pass

    def answers(self) -> bool:
        """Whether it has started."""
        try:
            return "Version" in self.get("/system")
        except (urllib.error.URLError, OSError):
            return False

    def instances(self) -> dict[str, str]:
        """SOP instance UID to Orthanc's own name of every object."""
        return {each["MainDicomTags"]["SOPInstanceUID"]: each["ID"] for each in self.get("/instances?expand")}


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Orthanc on free ports, which takes objects of INTRAOPMRI from this computer and of nobody else."""
    dicom_port, http_port, reply_port = free_ports(3)
    folder.mkdir()
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                "Name": "test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
                "DicomAet": TITLE, "DicomPort": dicom_port, "DicomCheckCalledAet": True,
                "DicomAlwaysAllowStore": False, "DicomCheckModalityHost": True,
                "DicomModalities": {"me": ["INTRAOPMRI", "127.0.0.1", reply_port]},
                "HttpPort": http_port, "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [],
            }
        )
    )  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            found = Orthanc(dicom_port, http_port, reply_port)
            until(lambda: found.answers() or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            yield found
        finally:
            process.terminate()
            process.wait(20)


@contextmanager
def answering(
    store: Callable[[int], int],
    classes: list[str] | None = None,
    echo: Callable[[], int] = lambda: 0,
    commit: Callable[[Any], tuple[int, None]] | None = None,
) -> Iterator[Archive]:
    """An archive that answers to the n-th object (from 0) with the status ``store(n)``; ``classes``: that it takes.

    ``commit``: what it does when it is asked for storage commitment, which it offers then.
    """
    from pynetdicom import AE, AllStoragePresentationContexts, evt
    from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

    count = iter(range(10_000))
    entity = AE(ae_title=TITLE)
    entity.require_called_aet = True
    entity.add_supported_context(Verification)
    for name in classes if classes is not None else [str(c.abstract_syntax) for c in AllStoragePresentationContexts]:
        entity.add_supported_context(name)
    if commit is not None:
        entity.add_supported_context(PUSH_MODEL)
    handlers: list[Any] = [
        (evt.EVT_N_ACTION, commit or (lambda _event: (0x0110, None))),
        (evt.EVT_C_STORE, lambda _event: store(next(count))),
        (evt.EVT_C_ECHO, lambda _event: echo()),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield Archive("127.0.0.1", server.server_address[1], TITLE, connect_s=5.0, answer_s=5.0)
    finally:
        server.shutdown()


def committing(event: Any) -> tuple[int, None]:
    """For :func:`answering`: answers for everything, on the same connection and after its acknowledgement."""
    asked, told = event.action_information, Dataset()
    told.TransactionUID, told.ReferencedSOPSequence = asked.TransactionUID, asked.ReferencedSOPSequence
    report = told, 1, PUSH_MODEL, WELL_KNOWN
    threading.Thread(target=event.assoc.send_n_event_report, args=report, daemon=True).start()
    return 0, None


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()
