"""The simulated theatre: scanner, tracker and live slices as child processes that end with their parent."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ..errors import WireError

#: A process has this long to read its case and listen (s), and this long to end before it is killed.
START_S, STOP_S = 60.0, 5.0
SERVERS = ("scanner", "tracker", "live")


class Theatre:
    """Context manager: on entry every server listens on a free port of this computer, on exit all have ended.

    ``servers``: which of SERVERS to start. ``options``: further arguments of a server, e.g.
    ``{"scanner": ["--scan-seconds", "5"]}``. ``python``: the interpreter to run them with.
    ``ports``: port of each server by its name. Entering raises WireError with a server's own words when it does not
    start. The children also end when this process dies: their standard input closes.
    """

    def __init__(
        self,
        case: Path,
        *,
        servers: tuple[str, ...] = SERVERS,
        options: dict[str, list[str]] | None = None,
        python: str = sys.executable,
    ) -> None:
        unknown = set(servers) - set(SERVERS)
        if unknown:
            raise WireError(f"there is no server named {', '.join(sorted(unknown))}; choose from {', '.join(SERVERS)}")
        self.case, self.servers, self.python = Path(case), servers, python
        self.options = options or {}
        self.ports: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for name in self.servers:
                self._start(name)
            for name in self.servers:
                self.ports[name] = self._wait_until_listening(name)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def said(self, name: str) -> str:
        """What a server wrote to its standard error so far."""
        log = self._logs.get(name)
        if log is None:
            return ""
        log.flush()
        log.seek(0)
        return log.read().decode(errors="replace").strip()

    def alive(self, name: str) -> bool:
        """Whether a server is running."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def stop(self) -> None:
        """End all servers; those that do not listen to reason are killed. Safe to call twice."""
        for process in self._processes.values():
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self._processes.clear()
        for log in self._logs.values():
            log.close()
        self._logs.clear()

    def _start(self, name: str) -> None:
        package = __package__.rpartition(".")[0]
        library = Path(__file__).resolve().parents[2]
        environment = dict(os.environ)
        paths = [str(library), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        command = [self.python, "-m", f"{package}.simulate.{name}", "--case", str(self.case), "--with-parent"]
        self._logs[name] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._processes[name] = subprocess.Popen(
            [*command, *self.options.get(name, [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._logs[name],
            env=environment,
            # From Slicer, which has no console on Windows, each server would open one.
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def _wait_until_listening(self, name: str) -> int:
        process = self._processes[name]
        stdout = process.stdout
        assert stdout is not None
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=lambda: lines.put(stdout.readline()), name=f"start {name}", daemon=True).start()
        try:
            line = lines.get(timeout=START_S)
        except queue.Empty:
            raise WireError(
                f"the simulated {name} did not listen within {START_S:g} s: is the computer busy?"
            ) from None
        try:
            return int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError):
            process.wait(STOP_S)
            words = self.said(name).splitlines()
            raise WireError(
                f"the simulated {name} did not start: {words[-1] if words else 'it said nothing'}"
            ) from None
