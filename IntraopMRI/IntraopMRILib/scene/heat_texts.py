"""What the views and the panel say of an ablation: peak, dose, structures at risk, and why a number is gone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from IntraopMRIReconstructionLib.data import Measurement
from IntraopMRIReconstructionLib.reconstruct.ablation import RISK_ALARM_C

from ..session.updates import HeatMeasured
from . import colors
from .display import HUGE, LARGE, READ, Banner, Line, Tone, age, block, number, riskLines, wrapped

#: A dose beyond this, min, says nothing more: tissue is dead several times over, and each degree doubles it.
MOST_DOSE_MIN = 1000.0


@dataclass(frozen=True)
class HeatTexts:
    """Texts for the view with the numbers, and alarms for all."""

    peak: tuple[Line, ...] = ()
    volume: tuple[Line, ...] = ()
    risks: tuple[Line, ...] = ()
    banners: tuple[Banner, ...] = ()


def gone(found: HeatMeasured, now_s: float) -> str:
    """Why temperatures may not be shown now; "" when they may. ``now_s``: monotonic."""
    if found.numbers.missing_because:
        return found.numbers.missing_because
    if found.ended:
        return "the scan has ended"
    old_s = now_s - found.received_s
    return f"stale, last frame {age(old_s)} ago" if old_s > found.stale_s else ""


def dose_gone(found: HeatMeasured, now_s: float) -> str:
    """Why doses may not be shown: at the end of a scan they are what was delivered, and stay."""
    return found.numbers.missing_because or ("" if found.ended else gone(found, now_s))


def shown(measurement: Measurement, why: str) -> Measurement:
    """The measurement, without its value when there is a reason."""
    return replace(measurement, value=None, interval=None, missing_because=why) if why else measurement


def heat_texts(found: HeatMeasured, now_s: float) -> HeatTexts:
    """All texts at one moment."""
    why, no_dose = gone(found, now_s), dose_gone(found, now_s)
    # A reason stands once, below the peak, and in the band across the views.
    volume = block("LETHAL DOSE", found.numbers.volume, no_dose, colors.LETHAL, LARGE)
    return HeatTexts(
        block("PEAK TEMPERATURE", found.numbers.peak, why, colors.TEXT, HUGE),
        volume[:2] if no_dose else (*volume, *_dose(found, now_s)),
        tuple(line for risk in found.risks for line in _risk(risk.name, risk.temperature, bool(why))),
        tuple(_banners(found, now_s, why)),
    )


def dose_words(dose: Measurement) -> str:
    """The highest dose, as far as it says something."""
    value = dose.value
    if value is None:
        return ""
    return f"> {MOST_DOSE_MIN:g} min" if value > MOST_DOSE_MIN else number(value, "min")


def _dose(found: HeatMeasured, now_s: float) -> tuple[Line, ...]:
    words = dose_words(shown(found.numbers.dose, dose_gone(found, now_s)))
    return (Line(f"highest dose {words}"),) if words else ()


def _risk(name: str, temperature: Measurement, hidden: bool) -> tuple[Line, ...]:
    if hidden:
        return (Line(f"{name.upper()} —", READ, colors.AT_RISK, bold=True),)
    if temperature.value is None:
        return Line(f"{name.upper()} —", READ, colors.AT_RISK, bold=True), *wrapped(temperature.missing_because)
    return riskLines(name, number(temperature.value, "°C"), LARGE, temperature.value >= RISK_ALARM_C)


def _banners(found: HeatMeasured, now_s: float, why: str) -> list[Banner]:
    result = []
    limit = f"limit {RISK_ALARM_C:g} °C"
    for risk in found.risks if not why else ():
        temperature = risk.temperature
        if risk.alarm and temperature.value is not None:
            words = number(temperature.value, "°C")
            result.append(Banner(f"{risk.name.upper()} AT {words}", f"{limit}: stop heating", Tone.DANGER))
        elif temperature.interval is not None and temperature.interval[1] >= RISK_ALARM_C:
            words = f"up to {number(temperature.interval[1], '°C')}, {limit}"
            result.append(Banner(f"{risk.name.upper()} NEAR LIMIT", words, Tone.CAUTION))
    if found.numbers.missing_because.startswith("drift"):
        result.append(Banner("DRIFT NOT CORRECTED", "mark the heated spot (page 4)", Tone.CAUTION))
    elif found.numbers.missing_because:
        result.append(Banner("NO TEMPERATURE", found.numbers.missing_because, Tone.CAUTION))
    elif why and not found.ended:
        result.append(Banner(f"TEMPERATURE STALE {age(now_s - found.received_s)}", "", Tone.CAUTION))
    return result
