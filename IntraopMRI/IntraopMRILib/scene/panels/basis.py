"""What the decision on page 6 rests on, as rich text: the result large, below it image, registration, plan, checks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from IntraopMRIReconstructionLib.data import Level, Measurement
from slicer.i18n import tr as _

from ..display import age, interval, number, shownOfImplant, spread
from .style import CHECK, DANGER, LEVEL_COLORS, colored, graded, sentence, sized, whole

#: Measures by a person's drawing, and the margin, that stand beside the result; the table has all of them.
MOST_BESIDE = 4
#: More implants than these have one line each.
MOST_IMPLANTS = 2
#: Numbers of the scan before, so that it is seen what has been gained since.
MOST_OF_LOOK = 3
#: The measurement whose sign says on which side of the cavity's wall the tumour's border is.
CLOSEST_MARGIN = "Closest margin"
#: A percentage whose interval is wider than this says too little to stand large: the table has it.
TOO_WIDE_PERCENT = 50.0


def result(running: Any, drawn: Sequence[Measurement]) -> str:
    """The numbers that are decided on; a dash with its reason where there is none.

    ``drawn``: what rests on a person's drawing on the scan, and the margin of the cavity.
    """
    if running.bones:
        return "<br>".join(_onBones(running))
    if why := running.untrustedBecause:
        refused = running.registered is not None and running.unplacedBecause
        return colored(sentence(why), DANGER, 18) if refused else f"{sized('–', 18)}&nbsp;&nbsp;{escape(why)}"
    lines = []
    if running.residual is not None:
        volume, extent = running.residual.measurements[:2]
        if volume.value is None:
            lines.append(f"{sized(_('Residual –'), 18)}&nbsp;&nbsp;{escape(volume.missing_because)}")
        else:
            lines.append(colored(_("Residual {value}").format(value=number(volume.value, volume.unit)), DANGER, 20))
            lines[-1] += _between(volume)
            if extent.value is None:
                lines.append(f"{sized(_('Resected –'), 15)}&nbsp;&nbsp;{escape(extent.missing_because)}")
            else:
                rano = _("RANO class {name}").format(name=running.residual.rano.value)
                words = _("Resected {value}").format(value=number(extent.value, extent.unit))
                lines.append(f"{sized(words, 15)}{_between(extent)}&nbsp;&nbsp;{escape(rano)}")
    elif running.session.plan.tumour is not None:
        why = _("needs a scan with contrast agent and one without")
        lines.append(f"{sized(_('Residual –'), 18)}&nbsp;&nbsp;{escape(why)}")
    lines += _sinceEarlier(running.session)
    for name, found in running.implants.items():
        lines += _implant(name, found, len(running.implants))
    for measurement in [m for m in drawn if not _says_little(m)][:MOST_BESIDE]:
        if measurement.value is None:
            lines.append(f"{sized('–', 15)}&nbsp;&nbsp;{escape(f'{measurement.name}: {measurement.missing_because}')}")
        else:
            lines.append(f"{sized(spread(measurement), 15)}&nbsp;&nbsp;{escape(_named(measurement))}")
    for look in [look for look in running.session.journal.record.looks if look.confirmed][-1:]:
        then = ", ".join(f"{m.name} {spread(m)}" for m in look.measurements[:MOST_OF_LOOK])
        lines.append(escape(_("Before, in {name}: {numbers}").format(name=look.image_name, numbers=then)))
    return "<br>".join(lines)


def _sinceEarlier(session: Any) -> Iterator[str]:
    """What is there now less what was left at an earlier operation, and how much that was."""
    if session.plan.baseline is None:
        return
    then, change = session.follow_up()
    day = session.plan.baseline.taken_utc[:10]
    since = _("since {day}: {volume} then").format(day=day, volume=spread(then))
    if change.value is None:
        yield f"{sized('–', 15)}&nbsp;&nbsp;{escape(f'{since}; {change.missing_because}')}"
        return
    value = ("+" if change.value > 0 else "") + number(change.value, change.unit)
    if change.interval is not None and change.interval[0] <= 0.0 <= change.interval[1]:
        since += _(", perhaps no change")
    yield f"{sized(_('Change {value}').format(value=value), 15)}{_between(change)}&nbsp;&nbsp;{escape(since)}"


def _onBones(running: Any) -> Iterator[str]:
    """What rests on vertebrae that were accepted each on its own; a dash with its reason for the rest."""
    yield colored(_("Whole spine not registered"), CHECK, 18)
    for name, found in running.shownImplants().items():
        if isinstance(found, str):
            yield f"{sized('–', 16)}&nbsp;&nbsp;{escape(f'{name}: {found}')}"
        else:
            yield from _implant(name, found, len(running.shownImplants()))
    changes = [m for m in running.session.journal.record.measurements if m.value is not None]
    for measurement in changes[:MOST_BESIDE]:
        yield f"{sized(spread(measurement), 15)}&nbsp;&nbsp;{escape(measurement.name)}"


def _implant(name: str, found: Any, count: int) -> Iterator[str]:
    """Grade of an implant, and the deviations that it is judged by; of many, where the tip went: the table has all."""
    judged = [m for m in shownOfImplant(found.measurements) if m.value is not None]
    if count > MOST_IMPLANTS:
        tip = "".join(f"&nbsp;&nbsp;{escape(spread(m))}" for m in judged if m.name.endswith(": tip deviation"))
        yield graded(name, found, 13) + tip
        return
    yield graded(name, found, 16)
    yield escape(", ".join(f"{m.name.rpartition(': ')[2].removesuffix(' deviation')} {spread(m)}" for m in judged))


def _named(measurement: Measurement) -> str:
    """Name of a measurement; what the sign of the margin means stands beside it."""
    if measurement.name == CLOSEST_MARGIN and measurement.value is not None and measurement.value < 0:
        return str(_("{name}, outside the cavity").format(name=measurement.name))
    return measurement.name


def _says_little(measurement: Measurement) -> bool:
    if measurement.unit != "%" or measurement.interval is None:
        return False
    low, high = measurement.interval
    return high - low > TOO_WIDE_PERCENT


def rests_on(running: Any, carried: Any, crossCheck: Any, oldAfterMin: float) -> str:
    """Image, registration, plan and cross-check; in amber what a person should look at before deciding."""
    if running.bones:
        implants = [found for found in running.shownImplants().values() if not isinstance(found, str)]
        return "<br>".join([_image(running, oldAfterMin), *_decisions(running.bones.values()), *_placements(implants)])
    if not running.trusted:
        return ""
    return "<br>".join([_image(running, oldAfterMin), *_rests(running, carried, crossCheck)])


def _image(running: Any, oldAfterMin: float) -> str:
    image = running.image.image
    if image.acquired_utc_s is None:
        return colored(_("Image {name}: time unknown").format(name=image.name), CHECK, 13)
    old_s = max(0.0, time.time() - image.acquired_utc_s)
    words = _("Image {name}: {age} old").format(name=image.name or running.image.role, age=age(old_s))
    return colored(words, CHECK, 13) if old_s > 60.0 * oldAfterMin else escape(words)


def _decisions(bones: Iterable[Any]) -> Iterator[str]:
    """Which vertebrae count and which do not."""
    bones = list(bones)
    for words, chosen, color in (
        (_("Accepted on its own: {names}"), [b for b in bones if b.accepted], ""),
        (_("Rejected: {names}"), [b for b in bones if b.accepted is False], CHECK),
        (_("Not decided: {names}"), [b for b in bones if b.undecided], CHECK),
        (_("Not found: {names}"), [b for b in bones if not b.offered], CHECK),
    ):
        line = words.format(names=", ".join(bone.name for bone in chosen))
        if chosen:
            yield colored(line, color, 13) if color else escape(line)


def _placements(implants: Iterable[Any]) -> Iterator[str]:
    """Which implants stay, which are to be revised, and on which nobody has decided."""
    implants = list(implants)
    for words, chosen, color in (
        (_("To be revised: {names}"), [i for i in implants if i.stays is False], CHECK),
        (_("Placement not decided: {names}"), [i for i in implants if i.stays is None], CHECK),
        (_("Stay where they lie: {names}"), [i for i in implants if i.stays], ""),
    ):
        line = words.format(names=", ".join(found.planned.name for found in chosen))
        if chosen:
            yield colored(line, color, 13) if color else escape(line)


def _rests(running: Any, carried: Any, crossCheck: Any) -> Iterator[str]:
    verdict = (running.shift or running.registered.registration).verdict
    words = {Level.GOOD: _("good"), Level.CHECK: _("check")}[verdict.level]
    against = [reason.name for reason in verdict.reasons if reason.level is not Level.GOOD]
    line = _("Registration {verdict}, confirmed").format(verdict=words) + (f": {', '.join(against)}" if against else "")
    yield escape(line) if verdict.level is Level.GOOD else colored(line, LEVEL_COLORS[verdict.level], 13)
    if running.session.plan.tumour is not None and running.shift is None:
        yield colored(_("Brain shift not followed: outlines are at the rigid pose"), CHECK, 13)
    items = running.view.items.values()
    if any(item.offered for item in items):
        accepted, rejected = (sum(item.accepted is way for item in items) for way in (True, False))
        yield escape(_("Plan: {yes} carried over, {no} rejected").format(yes=accepted, no=rejected))
    if carried.hidden():
        yield colored(_("{count}: not shown").format(count=carried.hidden()), CHECK, 13)
    yield from _placements(running.implants.values())
    for measurement in crossCheck.found[:1]:
        value = number(measurement.value, measurement.unit)
        yield escape(_("{name}: {value} (p95)").format(name=measurement.name, value=value))
    for note in running.residualNotes:
        yield colored(note, CHECK, 13)


def _between(measurement: Any) -> str:
    if measurement.interval is None:
        return ""
    return "&nbsp; " + whole(interval(measurement.interval, measurement.unit, measurement.value))
