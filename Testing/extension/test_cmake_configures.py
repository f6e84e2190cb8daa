"""The CMake files run: a stand-in for Slicer's macros takes what they take, refuses what they refuse, and packages.

It does what SlicerMacroBuildScriptedModule.cmake and SlicerMacroPythonTesting.cmake (Slicer CMake) and
ctkMacroCompilePythonScript.cmake (CTK) do with the lists: each file keeps its folder below qt-scripted-modules.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from extension import cmake_lists

ROOT = cmake_lists.ROOT
SLICER = """
set(Slicer_USE_FILE ${CMAKE_CURRENT_LIST_DIR}/Use.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake)
set(Slicer_EXTENSION_CPACK ${CMAKE_CURRENT_LIST_DIR}/Nothing.cmake)
"""
USE = """
option(BUILD_TESTING "" ON)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT DEFINED MY_NAME)
    message(FATAL_ERROR "unknown or missing keywords: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "given nonexistent file or directory '${file}'")
    endif()
    get_filename_component(folder ${file} DIRECTORY)
    file(COPY ${CMAKE_CURRENT_SOURCE_DIR}/${file} DESTINATION ${CMAKE_BINARY_DIR}/qt-scripted-modules/${folder})
  endforeach()
endmacro()
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "TESTNAME_PREFIX;SCRIPT" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT})
    message(FATAL_ERROR "no test '${MY_SCRIPT}'")
  endif()
  message(STATUS "py_${MY_SCRIPT}")
endmacro()
"""


@pytest.fixture
def configured(tmp_path: Path) -> tuple[str, Path]:
    """What CMake says, and the folder that it filled."""
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which("c++") is None:
        pytest.skip("no CMake or no compiler: Testing/system-packages.sh test")
    version = re.findall(r"\d+\.\d+", subprocess.run([cmake, "--version"], capture_output=True, text=True).stdout)[0]
    source, slicer, build = (tmp_path / name for name in ("source", "slicer", "build"))
    for folder in (source, slicer):
        folder.mkdir()
    # Slicer asks for a newer CMake than a system may have; our lines run in older ones as well.
    top = re.sub(r"VERSION 3\.28\.0\.\.\.3\.28\.0", f"VERSION {version}", (ROOT / "CMakeLists.txt").read_text())
    (source / "CMakeLists.txt").write_text(top)
    for name in (*cmake_lists.MODULES, "Testing"):
        (source / name).symlink_to(ROOT / name)
    for name, text in {"SlicerConfig.cmake": SLICER, "Use.cmake": USE, "Nothing.cmake": ""}.items():
        (slicer / name).write_text(text)
    command = [cmake, "-S", str(source), "-B", str(build), f"-DSlicer_DIR={slicer}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, build / "qt-scripted-modules"


def test_the_extension_configures_and_its_package_is_whole(configured: tuple[str, Path]) -> None:
    said, package = configured
    for name in (*cmake_lists.MODULES, "SessionInSlicerTest"):
        assert f"-- py_{name}.py" in said
    packaged = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    expected = {
        name
        for module in cmake_lists.MODULES
        for name in (*cmake_lists.scripts(ROOT / module), *cmake_lists.resources(ROOT / module))
    }
    assert packaged == expected


def test_what_the_panels_look_for_beside_them_is_where_they_look(configured: tuple[str, Path]) -> None:
    """Both modules lie in one folder there; from source each has its own."""
    package = configured[1]
    panel = package / "IntraopMRIReconstructionLib" / "scene" / "panel.py"
    assert panel.is_file()
    assert (panel.parents[2] / "Resources" / "Requirements" / "IntraopMRIReconstruction.txt").is_file()
