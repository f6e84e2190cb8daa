"""What a person chose in the panel, in the words of the library, and what the present scan allows to be chosen."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from ..data import Encoding, Image
from ..errors import ReconstructionError
from ..reconstruct import metal
from ..reconstruct.corrections import Corrections, distortion_refused, gradients_refused
from ..reconstruct.methods import Options, Seen, methods_for, used
from ..reconstruct.products import Wanted, quantity_of
from ..reconstruct.quantities import Heating, missing_for
from .parameters import Brightness, Make, Method


def wantedFrom(p: Any) -> Wanted:
    """Read the parameter node. Raises DataError for a volume that cannot be used."""
    place = None
    if p.heatedPlace is not None and p.heatedPlace.GetNumberOfControlPoints():
        place = tuple(float(value) for value in slicer.util.arrayFromMarkupsControlPoints(p.heatedPlace, world=True)[0])
    image = p.make is Make.IMAGE
    return Wanted(
        quantity=p.make.value,
        method=p.method.value,
        options=Options(
            combination=p.coils.value,
            iterations=p.iterations or None,
            weight=None if p.weight < 0 else round(p.weight, 6),
            partial_fourier=p.completion.value,
            snr_units=p.snrUnits and image,
            delays=p.delays,
            ghost=p.ghost.value,
            deblur_view=p.deblurView,
        ),
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


#: Settings of the method in the panel, and what they are called in the library.
SETTINGS = {
    "iterations": "iterations",
    "weight": "weight",
    "coils": "combination",
    "completion": "partial_fourier",
    "snrUnits": "snr_units",
}
#: What is made of complex images: their coils are combined by maps, and nothing is completed.
COMPLEX = ("field map", "temperature", "SEMAC")


def _usedSettings(p: Any, scan: Encoding | None, seen: Seen | None) -> frozenset[str]:
    """Names in the library of the settings that what is chosen depends on, or may while lines are missing."""
    options = Options(combination=p.coils.value, partial_fourier=p.completion.value)
    found = used(p.method.value, scan.trajectory if scan is not None else None, options, seen)
    quantity = p.make.value
    if scan is not None:
        with suppress(ReconstructionError):  # said when the scan is reconstructed
            quantity = quantity_of(Wanted(quantity, contrast=None if p.echo < 0 else p.echo), scan)
        if viewAngle(scan) > 0:
            found -= {"snr_units"}
    if quantity in COMPLEX:
        found -= {"combination", "partial_fourier", "weight"}
    return found if quantity == "image" else found - {"snr_units"}


def offer(ui: Any, p: Any, scan: Encoding | None, seen: Seen | None) -> None:
    """Show and enable what the scan allows; everything that might be needed while there is none."""
    image = p.make is Make.IMAGE
    live = _usedSettings(p, scan, seen)
    for name, option in SETTINGS.items():
        # SNR units that were chosen for another scan are refused, and can be taken away again.
        enabled = option in live or (option == "snr_units" and image and p.snrUnits)
        getattr(ui, name).enabled = enabled
        if hasattr(ui, f"{name}Label"):
            getattr(ui, f"{name}Label").enabled = enabled
    ui.snrUnits.text = _("Brightness in units of noise (SNR)") + (
        "" if "snr_units" in live or not p.snrUnits else ": " + _("not possible here")
    )
    for name, shown in (
        ("outputVolume", image),
        ("frame", scan is not None and scan.repetitions > 1),
        ("echo", scan is not None and scan.contrasts > 1 and image),
        ("ghost", scan is not None and scan.trajectory == "epi"),
        ("opposedVolume", image and scan is not None and not distortion_refused(scan)),
    ):
        getattr(ui, name).visible = getattr(ui, f"{name}Label").visible = shown
    ui.delays.visible = scan is not None and scan.trajectory == "radial" and "delays" in live
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
