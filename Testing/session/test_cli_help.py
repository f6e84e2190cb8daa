"""Help comes at once: what a command needs is loaded when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from IntraopMRILib.cli import main

PROGRAM = """
import sys
from IntraopMRILib.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules} & {"numpy", "scipy", "SimpleITK"}))
"""


@pytest.mark.parametrize("command", ["", "demo", "lab", "send"])
def test_help_loads_nothing_that_it_does_not_need(command: str) -> None:
    arguments = [*filter(None, [command]), "--help"]
    told = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("usage: intraopmri")
    assert told.stdout.splitlines()[-1].strip() == "loaded:"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("session", "--scanner HOST:PORT"),
        ("replay", "recording"),
        ("assess", "--baseline RESULTS"),
        ("reconstruct", "RAW.H5"),
        ("measure", "--points MRK.JSON"),
    ],
)
def test_each_command_says_what_it_takes(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith(f"usage: intraopmri {command}")
    assert said in told
