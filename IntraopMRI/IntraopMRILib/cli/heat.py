"""An ablation in the terminal: ask for the temperature scan, mark what is heated, follow it to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from IntraopMRIReconstructionLib.errors import SessionError
from IntraopMRIReconstructionLib.reconstruct.quantities import Heating

from ..session import Session
from ..session.updates import HeatMeasured, MapReady, Update

#: Name by which the scanner is asked for its temperature scan.
PROTOCOL = "Thermometry"


@dataclass(frozen=True)
class Heat:
    """``spot_ras_mm``: the middle of what is heated, in the scanner's frame; None: where the map stands out most."""

    spot_ras_mm: tuple[float, float, float] | None = None
    radius_mm: float = 20.0
    baseline_c: float = 37.0


def follow_heat(
    session: Session, heat: Heat, wait_s: float, draw: Callable[[Update], None], pause_s: float
) -> HeatMeasured:
    """Everything until the end of the scan; ``draw`` takes in what the session told.

    Of maps and their numbers it gets the last ones alone, when the scan is over: nobody watches in between, and drawing
    would keep the next frame waiting. Raises SessionError when no frame comes for ``wait_s``, and as
    :meth:`.session.Session.scan`.
    """
    if heat.spot_ras_mm is not None:
        session.heat.mark(Heating(spot_ras_mm=heat.spot_ras_mm, radius_mm=heat.radius_mm, baseline_c=heat.baseline_c))
    marked = heat.spot_ras_mm is not None
    newest: dict[type, Update] = {}
    session.scan(PROTOCOL)
    heard_s = time.monotonic()
    while True:
        for update in session.drain():
            if not isinstance(update, HeatMeasured | MapReady):
                draw(update)
                continue
            newest[type(update)], heard_s = update, time.monotonic()
            if not isinstance(update, HeatMeasured):
                continue
            if update.ended and marked == (update.heating.spot_ras_mm is not None):
                for last in newest.values():
                    draw(last)
                return update
            if not marked and update.hottest_ras_mm is not None:
                marked, (x, y, z) = True, update.hottest_ras_mm.tolist()
                session.heat.mark(Heating(spot_ras_mm=(x, y, z), radius_mm=heat.radius_mm, baseline_c=heat.baseline_c))
        if time.monotonic() - heard_s > wait_s:
            raise SessionError(f"no frame of temperature came for {wait_s:g} s{session.why_silent()}")
        time.sleep(pause_s)
