"""Writes the file lists of the two modules' CMakeLists.txt between their markers: `make cmake-lists`.

Slicer copies exactly the listed files into a package, so a file that is not listed works from source only.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("IntraopMRIReconstruction", "IntraopMRI")
BEGIN, END = "# BEGIN FILES\n", "# END FILES\n"


def scripts(module: Path) -> list[str]:
    """Every Python file of a module folder, relative to it, the module file first."""
    found = sorted(path.relative_to(module).as_posix() for path in module.rglob("*.py"))
    return sorted(found, key=lambda name: (name.count("/") > 0, name))


def resources(module: Path) -> list[str]:
    """Every file under Resources, relative to the module folder."""
    return sorted(path.relative_to(module).as_posix() for path in (module / "Resources").rglob("*") if path.is_file())


def block(module: Path) -> str:
    """The text that belongs between the markers."""

    def variable(name: str, files: list[str]) -> str:
        return f"set({name}\n" + "".join(f"  {file}\n" for file in files) + "  )\n"

    return (
        variable("MODULE_PYTHON_SCRIPTS", scripts(module))
        + "\n"
        + variable("MODULE_PYTHON_RESOURCES", resources(module))
    )


def listed(module: Path) -> tuple[str, str, str]:
    """CMakeLists.txt split into before, between and after the markers."""
    before, begin, rest = (module / "CMakeLists.txt").read_text().partition(BEGIN)
    between, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{module / 'CMakeLists.txt'} lacks the markers '{BEGIN.strip()}' and '{END.strip()}'")
    return before + begin, between, end + after


def main() -> int:
    """Rewrite both lists; say what changed."""
    for name in MODULES:
        before, between, after = listed(ROOT / name)
        wanted = block(ROOT / name)
        if between != wanted:
            (ROOT / name / "CMakeLists.txt").write_text(before + wanted + after)
            print(f"{name}/CMakeLists.txt: lists rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main())
