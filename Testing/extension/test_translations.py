"""Text for a person goes through slicer.i18n.tr: literal, with named fields filled by .format afterwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from extension.sources import Source, product_sources

SOURCES = [s for s in product_sources() if s.room == "scene" or "." not in s.name]
#: Qt properties and calls that show text to a person.
SHOWN = {"text", "toolTip", "title", "placeholderText", "windowTitle", "helpText", "acknowledgementText"}


def is_tr(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "translate")


def faults(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if is_tr(node):
            assert isinstance(node, ast.Call)
            text = node.args[-1]
            if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
                yield f"line {node.lineno}: _() needs one literal, then .format, got {ast.unparse(text)[:60]}"
            elif "{}" in text.value or "%s" in text.value:
                yield f"line {node.lineno}: fields must have names that a translator can move: {text.value[:60]}"
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                words = any(c.isalpha() for c in node.value.value)
                if isinstance(target, ast.Attribute) and target.attr in SHOWN and words:
                    yield f"line {node.lineno}: '{node.value.value[:40]}' is shown and not translated"


@pytest.mark.parametrize("source", SOURCES, ids=[s.name for s in SOURCES])
def test_shown_text_can_be_translated(source: Source) -> None:
    assert list(faults(source.tree)) == []


@pytest.mark.parametrize(
    "code", ['_(f"{x} mm")', '_("a" + b)', "_(text)", '_("{} mm").format(3)', 'label.text = "Ready"']
)
def test_the_guard_sees_faults(code: str) -> None:
    assert list(faults(ast.parse(code)))
