"""What Slicer's build system and module factory expect of an extension, file by file."""

from __future__ import annotations

import ast
import json
import re
import struct
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from extension.cmake_lists import MODULES, ROOT

UI_FILES = sorted(path for module in MODULES for path in (ROOT / module / "Resources" / "UI").glob("*.ui"))
MAX_CLONE_BYTES = 100 * 2**20


def test_top_level_cmake() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    assert re.search(r"^project\((\w+)\)", text, re.MULTILINE).group(1) == "IntraopMRI"  # type: ignore[union-attr]
    assert text.startswith("cmake_minimum_required(VERSION 3.28")
    for name in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS"):
        assert re.search(rf'set\(EXTENSION_{name} "[^"]+"\)', text), f"EXTENSION_{name} is missing"
    assert 'set(EXTENSION_DEPENDS "NA")' in text
    for name in ("LICENSE", "README"):
        file = re.search(rf'set\(EXTENSION_{name}_FILE "\$\{{CMAKE_CURRENT_SOURCE_DIR\}}/([^"]+)"\)', text)
        assert file, f"EXTENSION_{name}_FILE is missing"
    order = [
        "find_package(Slicer REQUIRED)",
        "include(${Slicer_USE_FILE})",
        "add_subdirectory(IntraopMRIReconstruction)",
        "add_subdirectory(IntraopMRI)",
        "## NEXT_MODULE",
        "include(${Slicer_EXTENSION_GENERATE_CONFIG})",
        "include(${Slicer_EXTENSION_CPACK})",
    ]
    positions = [text.index(line) for line in order]
    assert positions == sorted(positions)


def test_pictures_named_by_the_extension_exist() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    pictures = re.findall(r"IntraopMRI/main/(Resources/[^\s\"]+)", text)
    assert pictures
    missing = [picture for picture in pictures if not (ROOT / picture).is_file()]
    assert not missing, f"CMakeLists.txt names pictures that do not exist: {missing}; run 'make screenshots'"


def test_licence_is_apache_2_at_the_root() -> None:
    text = (ROOT / "LICENSE.txt").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert len(text.splitlines()) > 190


def test_catalogue_entry() -> None:
    entry = json.loads((ROOT / "IntraopMRI.json").read_text())
    assert set(entry) <= {
        "$schema", "category", "scm_url", "scm_revision", "scm_type", "build_dependencies", "build_subdirectory",
        "dicom_support_rule", "enabled", "tier",
    }  # fmt: skip
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#")
    assert entry["category"] == "IGT"
    assert entry["scm_revision"] == "main"
    assert entry["scm_url"].startswith("https://")
    assert entry["build_dependencies"] == []
    assert entry["build_subdirectory"] == "."
    assert 1 <= entry["tier"] <= 5


@pytest.mark.parametrize("module", MODULES)
def test_module_file(module: str) -> None:
    tree = ast.parse((ROOT / module / f"{module}.py").read_text())
    classes = {
        node.name: [ast.unparse(base) for base in node.bases] for node in tree.body if isinstance(node, ast.ClassDef)
    }
    assert classes[module] == ["ScriptedLoadableModule"]
    for part in ("Widget", "Logic", "Test"):
        assert classes[module + part] == [f"ScriptedLoadableModule{part}"]
    text = ast.unparse(tree)
    for field in ("title", "categories", "dependencies", "contributors", "helpText", "acknowledgementText"):
        assert f"parent.{field} = " in text, f"{module} does not set parent.{field}"
    assert "'IGT'" in text
    wanted = "['IntraopMRIReconstruction']" if module == "IntraopMRI" else "[]"
    assert f"parent.dependencies = {wanted}" in text


@pytest.mark.parametrize("module", MODULES)
def test_module_cmake(module: str) -> None:
    text = (ROOT / module / "CMakeLists.txt").read_text()
    assert f"set(MODULE_NAME {module})" in text
    for line in ("slicerMacroBuildScriptedModule(", "WITH_GENERIC_TESTS", "slicer_add_python_unittest("):
        assert line in text
    assert (ROOT / module / "Resources" / "Icons" / f"{module}.svg").is_file()
    assert (ROOT / module / "Resources" / "UI" / f"{module}.ui").is_file()


def test_catalogue_icon_is_128_pixels() -> None:
    header = (ROOT / "Resources" / "IntraopMRI.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:24]) == (128, 128)


@pytest.mark.parametrize("path", UI_FILES, ids=[path.stem for path in UI_FILES])
def test_ui_file(path: Path) -> None:
    root = ElementTree.parse(path).getroot()
    top = root.find("widget")
    assert top is not None
    assert top.get("class") == "qMRMLWidget"
    widgets = list(top.iter("widget"))
    names = [widget.get("name") for widget in widgets]
    assert len(names) == len(set(names)), "two widgets share a name"
    connected = {
        connection.findtext("receiver")
        for connection in root.iter("connection")
        if connection.findtext("sender") == top.get("name")
        and connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
    }
    mrml = {w.get("name") for w in widgets if (w.get("class") or "").startswith("qMRML") and w is not top}
    assert connected == mrml, "every MRML widget, and nothing else, follows the top widget's scene"
    custom = {w.findtext("class") for w in root.iter("customwidget")}
    assert custom == {w.get("class") for w in widgets if (w.get("class") or "").startswith(("qMRML", "ctk"))}


@pytest.mark.parametrize("path", UI_FILES, ids=[path.stem for path in UI_FILES])
def test_everything_to_touch_has_a_tooltip(path: Path) -> None:
    touched = ("QPushButton", "QLineEdit", "QSpinBox", "QDoubleSpinBox", "QComboBox", "QCheckBox", "qMRMLNodeComboBox")
    for widget in ElementTree.parse(path).getroot().iter("widget"):
        if widget.get("class") in (*touched, "ctkSliderWidget", "ctkPathLineEdit"):
            tip = widget.find("property[@name='toolTip']/string")
            assert tip is not None, f"{widget.get('name')} has no tooltip"
            assert tip.text


@pytest.mark.parametrize("module", MODULES)
def test_requirements_have_lower_bounds_only(module: str) -> None:
    path = ROOT / module / "Resources" / "Requirements" / f"{module}.txt"
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9-]+>=[0-9.]+", line), f"{path.name}: {line}"


def test_a_clone_stays_small() -> None:
    """What a clone brings: each object once, however often and however tightly this checkout keeps it."""
    size = subprocess.run(
        ["git", "rev-list", "--disk-usage", "--objects", "HEAD"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if size.returncode:
        pytest.skip(f"not a git checkout: {size.stderr.strip()}")
    assert int(size.stdout) < MAX_CLONE_BYTES
