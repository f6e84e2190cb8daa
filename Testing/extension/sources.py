"""Reads the product's source files for the guards: what is imported where, and what happens at file scope."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from extension.cmake_lists import MODULES, ROOT


@dataclass(frozen=True)
class Import:
    """One imported module: absolute dotted name, line, and whether it is imported when the file is loaded."""

    name: str
    line: int
    at_file_scope: bool


@dataclass(frozen=True)
class Source:
    """A product file: dotted module name, path, syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def library(self) -> str:
        """IntraopMRILib, IntraopMRIReconstructionLib, or the name of a module shell."""
        return self.name.partition(".")[0]

    @property
    def room(self) -> str:
        """The folder inside the library, '' for files directly in it."""
        parts = self.path.relative_to(ROOT).parts
        return parts[2] if len(parts) > 3 else ""

    @property
    def is_package(self) -> bool:
        """Whether the file is a package's __init__.py."""
        return self.path.name == "__init__.py"

    def imports(self) -> Iterator[Import]:
        """All imports, those for type checkers left out; `from x import y` gives both x and x.y."""
        yield from self._imports(self.tree.body, True)

    def _imports(self, body: list[ast.stmt], at_file_scope: bool) -> Iterator[Import]:
        for node in body:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, node.lineno, at_file_scope)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                yield Import(base, node.lineno, at_file_scope)
                for alias in node.names:
                    yield Import(f"{base}.{alias.name}", node.lineno, at_file_scope)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from self._imports(node.orelse, at_file_scope)
            else:
                inside = at_file_scope and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                for field in ("body", "orelse", "finalbody"):
                    yield from self._imports(getattr(node, field, []), inside)
                for handler in getattr(node, "handlers", []):
                    yield from self._imports(handler.body, inside)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        anchor = parts[: len(parts) - node.level + self.is_package]
        return ".".join([*anchor, *([node.module] if node.module else [])])


def product_sources() -> list[Source]:
    """Every Python file of the two modules."""
    found = []
    for module in MODULES:
        for path in sorted((ROOT / module).rglob("*.py")):
            parts = path.relative_to(ROOT / module).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Source(name, path, ast.parse(path.read_text(), str(path))))
    return found
