"""The command line: a whole session without Slicer's application.

``demo`` makes a simulated theatre, runs the session against it and compares with the truth. ``session`` runs against
any OpenIGTLink scanner and tracker, ``replay`` against what such a session recorded; ``measure`` adds what a person
has drawn on its scan since. ``send`` brings its DICOM objects to an archive. ``assess`` takes finished volumes from
files; ``reconstruct`` makes them of raw data. ``lab`` only makes a case and keeps the theatre open for others.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from IntraopMRIReconstructionLib.errors import IntraopError

from .results import INCOMPLETE
from .signals import ended_by_signals

#: For a script that runs many cases.
EXITS = (
    "Exit status: 0 done; 1 failed, nothing was written; 2 wrong arguments; "
    f"{INCOMPLETE} results were written, and something that was asked for is missing in them, named at the end; "
    "128 and more: ended by a signal. Earlier results in the folder of --out are replaced, nothing else is."
)
#: What each command does, and the room that knows how: it is loaded when it is asked for.
COMMANDS = {
    "demo": ("live", "a simulated session, end to end, compared with the truth"),
    "lab": ("live", "make a case and keep its scanner and tracker running"),
    "session": ("live", "a session against a scanner and a tracker"),
    "replay": ("live", "a recorded session again"),
    "assess": ("finished", "a session from files, no scanner needed: residual, implants, measures"),
    "reconstruct": ("finished", "volumes of raw data from a file (MRD), by one method or several"),
    "measure": ("finished", "numbers from what was drawn on a session's scan since"),
    "send": ("finished", "the DICOM objects of a finished session to an archive (PACS)"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 with one sentence on stderr, 128 and the signal's number when
    it was ended by one.

    INCOMPLETE when results were written without something that was asked for; then each has its sentence on stderr.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser(given[0] if given else "").parse_args(given)
    try:
        with ended_by_signals():
            return int(options.run(options) or 0)
    except IntraopError as error:
        print(f"intraopmri: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        # Of this computer: a disk that is full, a file that may not be read.
        print(f"intraopmri: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as ended:
        print("intraopmri: stopped; no results were written", file=sys.stderr)
        return 128 + (ended.args[0] if ended.args else signal.SIGINT)


def _parser(command: str) -> argparse.ArgumentParser:
    """All commands by name, with the arguments of this one."""
    text = "Intraoperative MRI without Slicer. Research only."
    parser = argparse.ArgumentParser(prog="intraopmri", description=text, epilog=EXITS)
    commands = parser.add_subparsers(required=True)
    for name, (room, what) in COMMANDS.items():
        each = commands.add_parser(name, help=what)
        if name == command:
            knows = importlib.import_module(f"..{room}", __name__)
            getattr(knows, f"add_{name}")(each)
            each.set_defaults(run=getattr(knows, name))
    return parser
