"""Runs the command line."""

import io
import sys
import warnings

from .commands import main

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal cannot show must not end a session.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Headers are seldom to the letter of the standard; what matters in them is checked where it is read.
    warnings.filterwarnings("ignore", module="pydicom")
    sys.exit(main())
