"""A scan that arrives readout by readout: MRD messages into the Encoding and its blocks while the scanner measures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..data import Acquisition, Encoding, Image
from ..errors import WireError
from .mrd_geometry import PLACE_TOLERANCES
from .mrd_header import MrdHeader, parse_header
from .mrd_layout import ACQUISITION_HEAD, MrdFlag
from .mrd_lines import Lines, has
from .mrd_messages import AcquisitionMessage, MessageId, MrdMessage, TextMessage, Waveform
from .mrd_scan import MrdOptions, ScanPlan, chosen_space, for_images, plan_scan
from .mrd_semac import is_open, slices_apart_mm
from .mrd_stream import MrdConnection

#: Readouts are handed on after this many even when more are waiting, so that a preview keeps moving.
LINES_AT_ONCE = 64

#: While nothing comes, whoever waits is asked so often whether to go on.
IDLE_S = 0.1

#: A scan that does not say where it lies (a slice of the stack never comes) is given up at this size.
MAX_WAITING_BYTES = 2 << 30

#: What :func:`receive_scan` yields.
ScanItem = Encoding | Acquisition | Image | Waveform | TextMessage


class LiveScan:
    """Turns readouts into an Encoding, as soon as the place of all slices is known, and blocks after it.

    A scan plane that moves in mid-scan (real-time imaging of one slice or slab) begins a new Encoding with a new scan
    id ("name#2"). The last block of a scan carries ``last``; where the sender does not flag its last readout, that
    block has no lines.

    Of several encodings, phases and sets the first is read, unless the options name another: a stream cannot be looked
    through before.
    Slices that may be slabs or SEMAC are waited for, since only their distance tells them apart. A header that does not
    say how many slices there are (its limits are optional) has them counted: until the first repetition is over. So has
    one that says too few, where slices take turns and it shows within the first phase step.
    """

    def __init__(self, options: MrdOptions | None = None, name: str = "mrd") -> None:
        options = options or MrdOptions()
        self._options = replace(options, encoding_space=options.encoding_space or 0)
        self._name = name
        self._header: MrdHeader | None = None
        self._plan: ScanPlan | None = None
        self._plans = 0
        self._waiting: list[AcquisitionMessage] = []
        self._waiting_bytes = 0
        self._slices: set[int] = set()
        self._first_repetition: int | None = None
        self._steps: set[int] = set()
        self._all_slices = False
        self._apart_mm = 0.0
        self._left_out: Counter[str] = Counter()
        self._ended = False

    def begin(self, xml: str) -> None:
        """A new scan: its XML header. Raises WireError when it cannot be read."""
        self._header = parse_header(xml)
        self._plan = None
        self._plans = 0
        self._slices = set()
        self._first_repetition, self._all_slices = None, False
        self._steps = set()
        self._apart_mm = 0.0
        self._left_out.clear()

    def add(self, message: AcquisitionMessage) -> None:
        """Take one readout. Raises WireError when none was announced, or when too many wait for their place."""
        if self._header is None:
            raise WireError("MRD readouts came before their XML header; the sender must send the header first")
        self._waiting.append(message)
        self._waiting_bytes += message.samples.nbytes
        if self._waiting_bytes > MAX_WAITING_BYTES:
            raise WireError(f"{self._waiting_bytes} bytes of readouts came and not all slices are placed; giving up")
        if self._plan is None and for_images(message.head, self._options)[0]:
            idx = message.head["idx"][0]
            repetition = int(idx["repetition"])
            if self._first_repetition is None:
                self._first_repetition = repetition
                if self._uncounted(self._header):
                    # What makes its place impossible is said at once, not when all slices are there.
                    plan_scan(self._header, message.head, self._options, self._name)
            self._all_slices |= repetition != self._first_repetition
            self._all_slices |= bool(has(message.head, MrdFlag.LAST_IN_REPETITION | MrdFlag.LAST_IN_MEASUREMENT)[0])
            self._slices.add(int(idx["slice"]))
            self._steps.add(int(idx["kspace_encode_step_1"]))

    def count_slices(self) -> None:
        """No further slice will come, though the scan may not have been whole."""
        self._all_slices = True

    @property
    def waiting(self) -> int:
        """Number of readouts that were taken and not yet given on."""
        return len(self._waiting)

    def flush(self, end: bool = False) -> Iterator[Encoding | Acquisition]:
        """What the readouts so far give; ``end``: no more will come. Raises WireError for a scan that is wrong."""
        header = self._header
        if header is not None and self._waiting and (end or self._plan is not None or self._placed(header)):
            lines = _joined(self._waiting)
            self._waiting, self._waiting_bytes = [], 0
            if self._plan is None:
                self._apart_mm = slices_apart_mm(lines.heads[for_images(lines.heads, self._options)])
            for run in _runs(lines, self._options) if self._single_place(header) else [lines]:
                plan = self._plan
                if plan is None or not self._continues(plan, run, header):
                    plan = self._plan = self._planned(header, run, end)
                    yield plan.encoding
                self._left_out += plan.left_out(run.heads)
                for block in plan.blocks(run):
                    self._ended = block.last
                    yield self._received_now(block)
        if end and self._plan is not None and not self._ended:
            self._ended = True
            yield self._received_now(_empty_last(self._plan.encoding))

    def _single_place(self, header: MrdHeader) -> bool:
        """Whether all image lines lie in one place: a 3D slab or a single slice."""
        if self._options.slice_index is not None:
            return True
        space = chosen_space(header, self._options, self._apart_mm)[0]
        slices = len(self._slices) if self._uncounted(header) else space.count("slice")
        return space.encoded_matrix[0] > 1 or slices <= 1

    def _uncounted(self, header: MrdHeader) -> bool:
        """Whether the header does not say how many slices there are, or says too few. Radial and spiral readouts are
        not waited for: real-time imaging of one slice has no repetitions."""
        space = header.spaces[self._options.encoding_space or 0]
        plane = space.encoded_matrix[0] == 1 and space.trajectory in ("cartesian", "epi")
        told = "slice" in space.limits and max(self._slices, default=0) < space.count("slice")
        return plane and not told and self._options.slice_index is None

    def _placed(self, header: MrdHeader) -> bool:
        if self._uncounted(header):
            return self._all_slices
        chosen = self._options.slice_index is not None
        space = header.spaces[self._options.encoding_space or 0]
        one = self._single_place(header) and (chosen or not is_open(header, space))
        if len(self._slices) < (1 if one else space.count("slice")):
            return False
        # Slices that take turns have all come, also those that the header does not count, once a phase step is over.
        in_turns = space.encoded_matrix[0] == 1 and space.trajectory == "cartesian" and not chosen
        return not in_turns or len(self._steps) > 1 or self._all_slices

    def _continues(self, plan: ScanPlan, lines: Lines, header: MrdHeader) -> bool:
        heads = lines.heads[for_images(lines.heads, self._options)]
        if not len(heads) or bool(plan.placement.holds(heads).all()):
            return True
        if not self._single_place(header):
            raise WireError(f"the slices of scan '{plan.encoding.scan_id}' moved in mid-scan; start the scan again")
        return False

    def _received_now(self, block: Acquisition) -> Acquisition:
        unused, self._left_out = self._left_out, Counter()
        return replace(block, received_monotonic_s=time.monotonic(), received_utc_s=time.time(), left_out=unused)

    def _planned(self, header: MrdHeader, lines: Lines, end: bool) -> ScanPlan:
        # A stream cannot be asked which of several phases or sets is meant: the first is read, the others are counted.
        options, heads = self._options, lines.heads
        images = for_images(heads, options)
        if images.any():
            first = heads[images][0]["idx"]
            phase = int(first["phase"]) if options.phase is None else options.phase
            chosen = int(first["set"]) if options.set_index is None else options.set_index
            others = for_images(heads, options, epi=True)
            options = replace(options, phase=phase, set_index=chosen)
            heads = heads[~others | for_images(heads, options, epi=True)]
        plan = replace(plan_scan(header, heads, self._options, self._name, goes_on=not end), options=options)
        self._plans += 1
        self._ended = False
        if self._plans == 1:
            return plan
        scan_id = f"{plan.encoding.scan_id}#{self._plans}"
        return replace(plan, encoding=replace(plan.encoding, scan_id=scan_id))


def receive_scan(
    connection: MrdConnection,
    options: MrdOptions | None = None,
    lines_at_once: int = LINES_AT_ONCE,
    idle: Callable[[], None] | None = None,
) -> Iterator[ScanItem]:
    """Everything that arrives until the peer closes the scan, in order, readouts in blocks as they come.

    Yields each :class:`Encoding` before its :class:`Acquisition` blocks, images, waveforms, and texts and
    configurations as :class:`TextMessage`. Whoever iterates slowly slows the sender down; nothing is dropped.
    ``idle`` is called every ``IDLE_S`` while nothing comes; what it raises ends the reception.

    Raises WireError when the link ends before the scan was closed (after all that came whole was yielded) or when the
    scan is wrong.
    """
    scan = LiveScan(options, connection.name)
    while (message := _next(connection, idle)) is not None:
        if isinstance(message, AcquisitionMessage):
            scan.add(message)
            if scan.waiting >= lines_at_once or not connection.ready():
                yield from scan.flush()
            continue
        closes = isinstance(message, TextMessage) and message.kind is MessageId.CLOSE
        begins = isinstance(message, TextMessage) and message.kind is MessageId.HEADER
        yield from scan.flush(end=closes or begins)
        if isinstance(message, TextMessage) and begins:
            scan.begin(message.text)
        elif closes:
            return
        else:
            yield message
    scan.count_slices()
    yield from scan.flush()
    raise WireError(f"{connection.name}: the link ended before the scan was closed; the scan is incomplete")


def _next(connection: MrdConnection, idle: Callable[[], None] | None) -> MrdMessage | None:
    while idle is not None and not connection.ready(IDLE_S):
        idle()
    return connection.receive()


def _joined(messages: list[AcquisitionMessage]) -> Lines:
    # numpy joins structured arrays by promoting field after field, which costs more than everything else here.
    heads = np.frombuffer(b"".join(message.head.tobytes() for message in messages), ACQUISITION_HEAD)
    return Lines(
        heads,
        [message.samples for message in messages],
        [message.trajectory for message in messages],
    )


def _runs(lines: Lines, options: MrdOptions) -> list[Lines]:
    """Cut where the place changes from one image line to the next."""
    rows = np.flatnonzero(for_images(lines.heads, options))
    moved = np.zeros(max(len(rows) - 1, 0), bool)
    for name, tolerance in PLACE_TOLERANCES.items():
        moved |= np.abs(np.diff(lines.heads[name][rows], axis=0)).max(axis=1, initial=0.0) > tolerance
    cuts = [0, *(int(row) for row in rows[1:][moved]), len(lines.heads)]
    return [
        Lines(lines.heads[a:b], lines.samples[a:b], None if lines.trajectory is None else lines.trajectory[a:b])
        for a, b in pairwise(cuts)
    ]


def _empty_last(encoding: Encoding) -> Acquisition:
    nothing = np.zeros(0, np.int32)
    samples = np.zeros((0, encoding.coils, encoding.encoded_matrix[2]), np.complex64)
    return Acquisition(encoding.scan_id, samples, nothing, nothing, nothing.astype(np.uint32), last=True)
