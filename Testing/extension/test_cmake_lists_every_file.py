"""Slicer packages exactly the listed files: the lists must match the tree, and the listed files must work alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from extension import cmake_lists

ROOT = cmake_lists.ROOT


def entries(module: str, variable: str) -> list[str]:
    text = (ROOT / module / "CMakeLists.txt").read_text()
    found = re.search(rf"set\({variable}\n(.*?)\n  \)", text, re.DOTALL)
    assert found, f"{module}/CMakeLists.txt has no list {variable}"
    return [line.strip() for line in found.group(1).splitlines()]


@pytest.mark.parametrize("module", cmake_lists.MODULES)
def test_cmake_lists_every_file(module: str) -> None:
    missing = set(cmake_lists.scripts(ROOT / module)) ^ set(entries(module, "MODULE_PYTHON_SCRIPTS"))
    missing |= set(cmake_lists.resources(ROOT / module)) ^ set(entries(module, "MODULE_PYTHON_RESOURCES"))
    assert not missing, f"{module}/CMakeLists.txt differs from the tree, run 'make cmake-lists': {sorted(missing)}"


def test_no_other_file_lies_in_a_module_folder() -> None:
    # Slicer takes every .py file beside a module for a module of its own.
    for module in cmake_lists.MODULES:
        beside = {path.name for path in (ROOT / module).iterdir() if path.name != "__pycache__"}
        assert beside == {"CMakeLists.txt", f"{module}.py", f"{module}Lib", "Resources"}


def test_the_two_modules_do_not_overwrite_each_other_in_the_package() -> None:
    # Both land in one qt-scripted-modules folder: the same relative path twice would lose one of the two files.
    files = [
        entry
        for module in cmake_lists.MODULES
        for variable in ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES")
        for entry in entries(module, variable)
    ]
    assert len(files) == len(set(files))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installed extension contains: the listed files, and nothing else."""
    folder = tmp_path_factory.mktemp("package") / "qt-scripted-modules"
    for module in cmake_lists.MODULES:
        for variable in ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"):
            for entry in entries(module, variable):
                (folder / entry).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / module / entry, folder / entry)
    return folder


def test_every_library_file_of_the_package_imports(package: Path) -> None:
    names = [
        path.relative_to(package).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for path in package.glob("IntraopMRI*Lib/**/*.py")
        if "scene" not in path.parts
    ]
    code = "import importlib\nfor name in " + repr(sorted(names)) + ": importlib.import_module(name)\n"
    code += "import sys\nassert not {'slicer', 'vtk', 'qt', 'ctk'} & set(sys.modules), 'the wall is broken'\n"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
