"""The rooms and their walls: who may import whom, and what may happen when a file is loaded."""

from __future__ import annotations

import ast
import sys

import pytest

from extension.sources import Import, Source, product_sources

SOURCES = product_sources()
BY_NAME = {source.name: source for source in SOURCES}
RECONSTRUCTION, SESSION = "IntraopMRIReconstructionLib", "IntraopMRILib"
SHELLS = {"IntraopMRI", "IntraopMRIReconstruction"}
APPLICATION = {"slicer", "vtk", "vtkmodules", "qt", "ctk", "slicer_core", "PySide6", "SampleData"}
#: What Slicer bundles and every stage may rely on.
BUNDLED = {"numpy", "scipy", "SimpleITK", "pydicom"}
#: Not bundled, yet at file scope where a file is nothing without it. The panels load such files only after the
#: person's action has asked for the packages; test_a_panel_opens_with_what_slicer_bundles holds that.
NEEDED_BY_THE_WIRE = {"fastcrc"}
#: Rooms that may use another room at all.
MAY_USE = {("reconstruct", "operators"), ("simulate", "wire")}
#: Rooms that wire the stages together, and therefore see all of them.
SEES_ALL_ROOMS = {"session", "cli"}
ids = [source.name for source in SOURCES]


def local(imported: Import) -> Source | None:
    """The product file that an import leads to, if any."""
    return BY_NAME.get(imported.name)


def top(imported: Import) -> str:
    return imported.name.partition(".")[0]


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_only_scene_rooms_and_shells_know_the_application(source: Source) -> None:
    if source.room == "scene" or source.name in SHELLS:
        return
    if source.room == "cli":
        # The command line starts the scene room for `make demo`, inside a function.
        wrong = [i for i in source.imports() if top(i) in APPLICATION]
    else:
        wrong = [i for i in source.imports() if top(i) in APPLICATION or ".scene" in i.name]
    assert not wrong, f"{source.path} imports {[(i.name, i.line) for i in wrong]}"


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_rooms_do_not_import_one_another(source: Source) -> None:
    if source.room in ("", "scene", *SEES_ALL_ROOMS):
        return
    for imported in source.imports():
        target = local(imported)
        if target is None or target.room in ("", source.room):
            continue
        allowed = target.library == source.library and (source.room, target.room) in MAY_USE
        assert allowed, f"{source.path}:{imported.line} room '{source.room}' imports room '{target.room}'"


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_rooms_import_no_file_that_wires_the_stages(source: Source) -> None:
    if source.room in ("", "scene", *SEES_ALL_ROOMS):
        return
    for imported in source.imports():
        target = local(imported)
        assert target is None or target.room not in SEES_ALL_ROOMS, (
            f"{source.path}:{imported.line} imports {imported.name}"
        )


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_reconstruction_never_imports_the_session(source: Source) -> None:
    if source.library not in (RECONSTRUCTION, "IntraopMRIReconstruction"):
        return
    wrong = [i for i in source.imports() if top(i) in (SESSION, "IntraopMRI")]
    assert not wrong, f"{source.path} imports {[(i.name, i.line) for i in wrong]}"


def test_data_and_geometry_import_nothing_local_above_them() -> None:
    order = [f"{RECONSTRUCTION}.errors", f"{RECONSTRUCTION}.data", f"{RECONSTRUCTION}.geometry"]
    for position, name in enumerate(order):
        for imported in BY_NAME[name].imports():
            target = local(imported)
            assert target is None or target.is_package or target.name in order[:position], f"{name}: {imported.name}"


def test_no_import_cycles_when_files_are_loaded() -> None:
    graph = {
        source.name: {
            target.name
            for imported in source.imports()
            if imported.at_file_scope and (target := local(imported)) is not None and target is not source
        }
        for source in SOURCES
    }
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "import cycle: " + " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for target in sorted(graph[name]):
            # A package that gathers its own files is loaded before them; that is no cycle.
            if BY_NAME[target].is_package and name.startswith(target + "."):
                continue
            walk(target, (*path, name))
        done.add(name)

    for name in graph:
        walk(name, ())


def not_bundled(source: Source) -> dict[str, int]:
    """Packages that a file loads at file scope and Slicer does not bring, with their lines."""
    application = APPLICATION if source.room == "scene" or source.name in SHELLS else set()
    allowed = set(sys.stdlib_module_names) | BUNDLED | {RECONSTRUCTION, SESSION} | application
    return {top(i): i.line for i in source.imports() if i.at_file_scope and top(i) not in allowed}


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_file_scope_imports_only_what_slicer_bundles(source: Source) -> None:
    wrong = not_bundled(source)
    if source.room == "wire":
        wrong = {name: line for name, line in wrong.items() if name not in NEEDED_BY_THE_WIRE}
    assert not wrong, f"{source.path} imports at file scope what Slicer does not bundle: {wrong}; import inside"


@pytest.mark.parametrize("panel", [f"{RECONSTRUCTION}.scene.widget", f"{SESSION}.scene.widget"])
def test_a_panel_opens_with_what_slicer_bundles(panel: str) -> None:
    seen, todo = set(), [panel]
    while todo:
        name = todo.pop()
        if name in seen or name not in BY_NAME:
            continue
        seen.add(name)
        assert not not_bundled(BY_NAME[name]), f"opening {panel} loads {name}, which needs {not_bundled(BY_NAME[name])}"
        todo += [imported.name for imported in BY_NAME[name].imports() if imported.at_file_scope]


def only_imports(node: ast.Try) -> bool:
    """Whether a try block imports, or defines a name for where that fails."""
    handled = [statement for handler in node.handlers for statement in handler.body]
    simple = (ast.Import, ast.ImportFrom, ast.Assign, ast.Pass)
    return all(isinstance(part, ast.Import | ast.ImportFrom) for part in node.body) and all(
        isinstance(part, simple) for part in handled
    )


def work_at_file_scope(tree: ast.Module) -> list[str]:
    """Statements of a file that do something other than define."""
    wrong = []
    for node in tree.body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef() | ast.AnnAssign() | ast.Assign():
                pass
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test) or "__name__" in ast.unparse(node.test):
                pass
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Try() if only_imports(node):
                pass  # a module that one operating system lacks
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr="setflags"))):
                pass  # a constant array is made read-only
            case _:
                wrong.append(f"line {node.lineno}: {ast.unparse(node)[:60]}")
    for node in tree.body:
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and value is not None:
            called = [ast.unparse(call.func) for call in ast.walk(value) if isinstance(call, ast.Call)]
            wrong += [
                f"line {node.lineno}: {name}()"
                for name in called
                if name.startswith(("slicer.", "qt.", "open", "subprocess", "socket", "importlib", "os."))
            ]
    return wrong


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_loading_a_file_does_no_work(source: Source) -> None:
    wrong = work_at_file_scope(source.tree)
    assert not wrong, f"{source.path}: {wrong}"


@pytest.mark.parametrize(
    ("code", "count"),
    [("import os\nX = 3\n", 0), ("print('hello')\n", 1), ("for i in range(3): pass\n", 1), ("A = open('x')\n", 1)],
)
def test_the_guard_sees_work(code: str, count: int) -> None:
    assert len(work_at_file_scope(ast.parse(code))) == count


@pytest.mark.parametrize("source", SOURCES, ids=ids)
def test_no_file_installs_packages_by_itself(source: Source) -> None:
    text = source.path.read_text()
    assert "pip_install(" not in text
    if "pip_ensure(" in text:
        assert source.room == "scene"
