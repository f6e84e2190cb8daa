"""Runs the command line."""

import io
import sys

from .commands import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end a session.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())
