"""What a person chose in the panel, in the words of the library, and what the present scan allows to be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from ..data import Encoding, Image
from ..errors import ReconstructionError
from ..reconstruct import metal
from ..reconstruct.corrections import Corrections, distortion_refused, gradients_refused
from ..reconstruct.methods import METHODS, Options, methods_for
from ..reconstruct.products import Wanted
from ..reconstruct.quantities import Heating, missing_for
from .parameters import Brightness, Make, Method


def wantedFrom(p: Any) -> Wanted:
    """Read the parameter node. Raises DataError for a volume that cannot be used."""
    iterations = p.iterations if METHODS.get(p.method.value) and METHODS[p.method.value].iterative else None
    place = None
    if p.heatedPlace is not None and p.heatedPlace.GetNumberOfControlPoints():
        place = tuple(float(value) for value in slicer.util.arrayFromMarkupsControlPoints(p.heatedPlace, world=True)[0])
    image = p.make is Make.IMAGE
    return Wanted(
        quantity=p.make.value,
        method=p.method.value,
        options=Options(iterations=iterations, delays=p.delays, ghost=p.ghost.value, deblur_view=p.deblurView),
        contrast=None if p.echo < 0 else p.echo,
        repetition=None if p.frame < 0 else p.frame,
        heating=Heating(
            reference=p.referenceFrame,
            frame=None if p.frame < 0 else p.frame,
            spot_ras_mm=None if place is None else (place[0], place[1], place[2]),
            radius_mm=p.heatedRadius,
            baseline_c=p.heatBaseline,
            drift=p.drift,
            referenceless=p.referenceless,
        ),
        corrections=Corrections(
            opposed=_imageOf(p.opposedVolume) if image and p.opposedVolume is not None else None,
            gradients=p.gradientTable if image and isTable(p.gradientTable) else None,
            bias=p.brightness.value if image else Brightness.NONE.value,
        ),
    )


def _imageOf(node: Any) -> Image:
    # Loads the wire, whose packages were asked for when the source was opened.
    from .devices import imageFromNode

    return imageFromNode(node)


def viewAngle(scan: Encoding) -> float:
    """Tilt of a scan's view in degrees; 0 when there is none, or one that the reconstruction will refuse."""
    try:
        return metal.view_angle_deg(scan)
    except ReconstructionError:
        return 0.0


def isTable(path: Path) -> bool:
    """Whether a gradient table was chosen; an empty choice is the present folder."""
    return path not in (Path(), Path("."))


def offer(ui: Any, p: Any, scan: Encoding | None) -> None:
    """Show and enable what the scan allows; everything that might be needed while there is none."""
    image = p.make is Make.IMAGE
    method = METHODS.get(p.method.value)
    for name, shown in (
        ("iterations", method is not None and method.iterative),
        ("outputVolume", image),
        ("frame", scan is not None and scan.repetitions > 1),
        ("echo", scan is not None and scan.contrasts > 1 and image),
        ("ghost", scan is not None and scan.trajectory == "epi"),
        ("opposedVolume", image and scan is not None and not distortion_refused(scan)),
    ):
        getattr(ui, name).visible = getattr(ui, f"{name}Label").visible = shown
    ui.delays.visible = scan is not None and scan.trajectory == "radial"
    ui.deblurView.visible = scan is not None and viewAngle(scan) > 0
    ui.temperatureSection.visible = p.make is Make.TEMPERATURE
    ui.correctionsSection.visible = image
    ui.heatedRadius.enabled = ui.drift.enabled = ui.referenceless.enabled = p.heatedPlace is not None
    refused = "" if scan is None else gradients_refused(scan)
    # A table that was chosen for another scan can be taken away again.
    ui.gradientTable.enabled = not refused or isTable(p.gradientTable)
    ui.gradientTable.toolTip = (
        _("Not possible: {why}").format(why=refused) if refused else ui.gradientTableLabel.toolTip
    )
    if scan is None:
        return
    _allow(ui.make, [not missing_for(make.value, scan) for make in Make])
    _allow(ui.method, [choice is Method.AUTO or choice.value in methods_for(scan.trajectory) for choice in Method])


def _allow(box: Any, allowed: list[bool]) -> None:
    """Grey out the entries of a combo box that are not allowed."""
    for index, yes in enumerate(allowed):
        # Flags of an entry: enabled and selectable, or nothing.
        box.setItemData(index, None if yes else 0, FLAGS_ROLE)


#: Qt's role for the flags of an entry of a standard model, one before the first user role.
FLAGS_ROLE = 0x0100 - 1
