"""Arrangements of the views that the session adds to Slicer's own."""

from __future__ import annotations

import slicer

#: Identifiers of user layouts start at 100; these are far from what other extensions take.
FOUR_UP, DUAL, SIDE_BY_SIDE, THREE_ABREAST = 18944, 18945, 18946, 18947

# Orientation at every change of layout: a view that was sagittal before is axial beside another axial one.
_SLICE = (
    '<item><view class="vtkMRMLSliceNode" singletontag="{name}"><property name="orientation" action="relayout">{plane}'
    '</property><property name="viewlabel" action="default">{name[0]}</property></view></item>'
)
_THREED = (
    '<item><view class="vtkMRMLViewNode" singletontag="1"><property name="viewlabel" action="default">1</property>'
    "</view></item>"
)


def _slice(name: str, plane: str) -> str:
    return _SLICE.format(name=name, plane=plane)


def _row(*views: str) -> str:
    return f'<item><layout type="horizontal">{"".join(views)}</layout></item>'


def descriptions() -> dict[int, str]:
    """Layout XML by identifier: axial and 3D above coronal and sagittal; two large planes; both volumes; all three."""
    red, green = _slice("Red", "Axial"), _slice("Green", "Coronal")
    four = _row(red, _THREED) + _row(green, _slice("Yellow", "Sagittal"))
    two = red + green
    return {
        FOUR_UP: f'<layout type="vertical">{four}</layout>',
        DUAL: f'<layout type="horizontal">{two}</layout>',
        SIDE_BY_SIDE: f'<layout type="horizontal">{red}{_slice("Yellow", "Axial")}</layout>',
        THREE_ABREAST: f'<layout type="horizontal">{red}{_slice("Green", "Axial")}{_slice("Yellow", "Axial")}</layout>',
    }


def show(layout: int) -> None:
    """Arrange the views; the layout is added to the scene's layout node when it is not there yet."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return
    node = manager.layoutLogic().GetLayoutNode()
    if not node.IsLayoutDescription(layout):
        node.AddLayoutDescription(layout, descriptions()[layout])
    manager.setLayout(layout)


def swap() -> None:
    """Two large planes, or four views again."""
    manager = slicer.app.layoutManager()
    show(FOUR_UP if manager is not None and manager.layout == DUAL else DUAL)
