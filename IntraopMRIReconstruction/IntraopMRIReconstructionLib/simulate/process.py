"""What the processes of the theatre share: announce the port, run until told to stop, say errors in one sentence."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..errors import IntraopError

#: Exit status after an error that a person can mend.
EXIT_REFUSED = 2


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments that every process takes."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--case", type=Path, required=True, help="folder that write_case has made")
    result.add_argument("--port", type=int, default=0, help="port on this computer; 0 takes a free one")
    result.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    return result


def announce(name: str, port: int) -> None:
    """Tell the parent, in one line of JSON, that the server listens."""
    print(json.dumps({"name": name, "port": port}), flush=True)


def stop_signal(with_parent: bool) -> threading.Event:
    """An event that SIGTERM, SIGINT and (``with_parent``) the end of standard input set. Call in the main thread."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: Any) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    if with_parent:

        def wait_for_end() -> None:
            # The pipe closes when the parent ends, whatever ended it.
            # os.read takes no lock that would be in the way of the interpreter's own end.
            while os.read(sys.stdin.fileno(), 4096):
                pass
            stop.set()

        threading.Thread(target=wait_for_end, name="parent", daemon=True).start()
    return stop


def run(main: Callable[[], None]) -> int:
    """Exit status of ``main``: 0, or 2 after an error whose sentence went to standard error."""
    try:
        main()
    except (IntraopError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_REFUSED
    return 0


def leave(status: int) -> NoReturn:
    """End the process now, though a thread may still prepare a scan: the interpreter's own end would crash in it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
