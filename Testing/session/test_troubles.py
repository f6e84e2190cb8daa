"""What comes again and again is counted, and nothing else is."""

from __future__ import annotations

from IntraopMRILib.session.troubles import LINES_OF_TROUBLE, MOST_TROUBLES, SAME_TROUBLE_S, Troubles
from IntraopMRILib.workflow.record import Event


class Night:
    """Troubles over a clock that is set."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.troubles = Troubles(lambda: self.now_s)
        self.events: tuple[Event, ...] = ()

    def comes(self, text: str, after_s: float = 1.0) -> int:
        self.now_s += after_s
        self.events, times = self.troubles.note(self.events, "link", text)
        return times

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events]


def test_the_first_ones_stand_alone_and_one_line_counts_the_rest() -> None:
    night = Night()
    assert [night.comes(f"lost with {number} bytes missing") for number in range(1000)] == list(range(1, 1001))
    assert night.texts[:LINES_OF_TROUBLE] == [f"lost with {number} bytes missing" for number in range(LINES_OF_TROUBLE)]
    (line,) = night.texts[LINES_OF_TROUBLE:]
    assert line.startswith(f"lost with 999 bytes missing (1000 times since {night.events[0].utc}, last ")


def test_another_cause_has_lines_of_its_own() -> None:
    night = Night()
    for _ in range(10):
        night.comes("scanner hung up")
    night.comes("scanner is not reached any more")
    night.comes("tracker hung up")
    assert night.texts[-2:] == ["scanner is not reached any more", "tracker hung up"]


def test_after_a_quiet_time_it_begins_anew() -> None:
    night = Night()
    for _ in range(10):
        night.comes("hung up")
    before = night.texts
    assert night.comes("hung up", after_s=SAME_TROUBLE_S + 1.0) == 1
    assert night.texts == [*before, "hung up"]


def test_invented_texts_fill_no_memory() -> None:
    night = Night()
    for number in range(3 * MOST_TROUBLES):
        night.comes("x" * (number + 1))
        night.comes("hung up")
    assert len(night.troubles._known) == MOST_TROUBLES
    assert night.texts.count("hung up") == LINES_OF_TROUBLE
