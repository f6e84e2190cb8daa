"""The C++ example programs of Debian's openigtlink-examples: built once, run as peers."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path("/usr/share/doc/openigtlink-examples/examples")
HEADERS = Path("/usr/include/openigtlink")
BUILD = Path(__file__).resolve().parents[2] / "build" / "igtl-examples"
PROGRAMS = (
    "TrackerServer", "TrackerClient", "ImagerServer", "ImagerClient", "StatusServer", "StatusClient", "StringServer",
    "StringClient", "PointServer", "PointClient", "PolyDataServer", "PolyDataClient", "CapabilityServer",
    "CapabilityClient", "TrajectoryServer", "TrajectoryClient", "TrackingDataServer", "TrackingDataClient",
    "QuaternionTrackingDataServer", "ImageMetaServer", "ImageMetaClient", "LabelMetaServer", "BindClient",
    "ReceiveServer",
)  # fmt: skip


def missing() -> str:
    """What keeps the examples from being built, in words; "" when nothing does."""
    for path, package in ((SOURCES / "CMakeLists.txt", "openigtlink-examples"), (HEADERS, "libopenigtlink-dev")):
        if not path.exists():
            return f"Debian's {package} is missing: sudo apt-get install {package}"
    for program in ("cmake", "c++", "make"):
        if shutil.which(program) is None:
            return f"{program} is missing: sudo apt-get install cmake g++ make"
    return ""


def build() -> Path:
    """Folder of the built programs. Builds what is missing, one process at a time."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any(_find(name) is None for name in PROGRAMS):
            # The sources ask for a CMake of 2008, which new ones refuse unless told otherwise.
            configure = ["cmake", "-S", str(SOURCES), "-B", str(BUILD), "-DCMAKE_POLICY_VERSION_MINIMUM=3.5"]
            _run(configure)
            _run(["cmake", "--build", str(BUILD), "--parallel", "2", "--target", *PROGRAMS])
    return BUILD


def build_own(name: str) -> Path:
    """One of our own C++ programs, built: ``igtl_receiver`` of the benchmark, ``igtl_robot``, ``igtl_image``."""
    folder = BUILD.parent / "igtl-receiver"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run(["cmake", "-S", str(Path(__file__).parent), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"])
        _run(["cmake", "--build", str(folder)])
    return folder / name


@contextlib.contextmanager
def running(name: str | Path, *arguments: object) -> Iterator[Path]:
    """Run an example, or another program by its path; gives the file that its output goes to. Ended with the block."""
    path = name if isinstance(name, Path) else _find(name)
    assert path is not None, f"{name} is not built"
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output.txt"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [path, *map(str, arguments)], stdout=stream, stderr=stream, stdin=subprocess.DEVNULL
            )
            try:
                yield output
            finally:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def numbers_after(label: str, text: str) -> list[list[float]]:
    """All lists of numbers that follow ``label`` on a line."""
    lines = re.findall(rf"{re.escape(label)}(.*)", text)
    return [[float(number) for number in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", line)] for line in lines]


def _find(name: str) -> Path | None:
    return next((path for path in BUILD.glob(f"*/{name}") if path.is_file()), None)


def _run(command: list[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed:\n{result.stdout[-3000:]}")
