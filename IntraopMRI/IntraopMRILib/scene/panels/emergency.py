"""The emergency stop beside the patient's name on every page, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from IntraopMRIReconstructionLib.errors import WireError
from IntraopMRIReconstructionLib.wire.scanner_dialect import EmergencyStop, ScannerState
from slicer.i18n import tr as _

from .style import CHECK, DANGER, colored, pixels, readable


class Emergency:
    """One click while a session commands a scanner or a robot, whatever page is open."""

    def __init__(self, panel: Any) -> None:
        self._panel, self._ui = panel, panel.ui
        self._style = ""
        self._ui.emergencyButton.connect("clicked()", self.stop)

    @property
    def _controls(self) -> dict[str, Any]:
        session = self._panel.running.session
        return {} if session is None else session.controls

    def stop(self) -> None:
        """Tell every peer at once; that one could not be told is said as loudly as that it does not answer."""
        problems = []
        for control in self._controls.values():
            try:
                control.panic(_("emergency stop pressed at the panel"))
            except WireError as error:
                problems.append(str(error))
        if problems:
            self._panel.running.problem = " ".join(problems)
        self.tick()
        self._panel.refresh()

    def tick(self) -> None:
        """Time passes for an answer that is awaited, also while its link waits for the work on a scan."""
        controls = self._controls
        there = bool(controls)
        if self._ui.emergencyButton.isHidden() is there:
            self._ui.emergencyButton.visible = there
        if there and self._style != (now := _button()):
            self._style = now
            self._ui.emergencyButton.setStyleSheet(now)
        said = (_state(control, part, len(controls) > 1) for part, control in controls.items())
        text = "<br>".join(filter(None, said))
        if self._ui.emergencyLabel.text != text:
            self._ui.emergencyLabel.text = text
            self._ui.emergencyLabel.visible = bool(text)


def _button() -> str:
    """Red, since it is about danger; an outline, since there is none before it is pressed."""
    red = readable(DANGER)
    return (
        f"QPushButton {{ border: 2px solid {red}; color: {red}; background: palette(base); font-weight: bold; "
        f"font-size: {pixels(14)}px; border-radius: 6px; padding: 4px 10px; }} "
        f"QPushButton:focus {{ border-width: 4px; }} QPushButton:pressed {{ background: {red}; color: white; }}"
    )


def _state(control: Any, part: str, named: bool) -> str:
    """What a person must know of one device, empty when nothing."""
    stop = control.emergency_stop
    if stop is not None and stop.confirmed_utc_s is None:
        control.poll()
        stop = control.emergency_stop
    if stop is not None:
        return _words(stop, f"{_peer(part, control)}: " if named else "")
    if control.state is not ScannerState.EMERGENCY:
        return ""
    said = _("{peer} reports an emergency. {reset}").format(peer=_peer(part, control), reset=_reset())
    return colored(said, DANGER, 15)


def _words(stop: EmergencyStop, who: str) -> str:
    """What became of it: only what the peer says itself is a confirmation."""
    began = who + _("Emergency stop {time}").format(time=_time(stop.sent_utc_s))
    if stop.confirmed_utc_s is not None:
        confirmed = _("confirmed by the device {time}").format(time=_time(stop.confirmed_utc_s))
        return colored(f"{began}: {confirmed}. {_reset()}", CHECK, 15)
    if stop.trouble:
        text = _("NOT CONFIRMED. {why}. Stop it at the device itself.").format(why=stop.trouble)
    elif stop.sign:
        text = _("NOT CONFIRMED: a device of its kind does not answer; {sign}. Look at it.").format(sign=stop.sign)
    elif stop.acknowledged_utc_s is not None:
        text = _("heard by the device {time}, not yet confirmed.").format(time=_time(stop.acknowledged_utc_s))
    else:
        text = _("sent, no answer yet.")
    return colored(f"{began}: {text}", DANGER, 15)


def _peer(part: str, control: Any) -> str:
    return _("The robot") if part == "robot" or control.dialect.start is None else _("The scanner")


def _reset() -> str:
    return _("When it is over: page 4, Reset scanner control.")


def _time(utc_s: float) -> str:
    return f"{datetime.fromtimestamp(utc_s):%H:%M:%S}"
