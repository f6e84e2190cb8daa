"""What has come of a scan: a hash that says whether two images rest on the same data, and what was left out of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import fields

import numpy as np

from ..data import OPEN_COUNTERS, Acquisition, Encoding, LineFlag

#: What the header hash leaves out: names that a file or a link gives the scan, and what is counted from readouts, of
#: which a stream does not know the later ones.
NOT_HASHED = frozenset({"scan_id", "contrasts", "repetitions", "averages", "calibration_lines"})
NOT_HASHED_METADATA = frozenset({"source", "slices_missing", "noise_dwell_time_s", OPEN_COUNTERS})


class ScanInput:
    """Readouts of one scan as they come.

    ``left_out``: how many belong to no image, by what they are.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.left_out: Counter[str] = Counter()
        self._header = _header_bytes(encoding)
        self._count = self._sum = 0

    def add(self, acquisition: Acquisition) -> None:
        """Take in a block of readouts."""
        self.left_out.update(acquisition.left_out)
        lines = len(acquisition.ky)
        if not lines:
            return
        labels = np.empty((lines, 6), "<i4")
        labels[:, 0], labels[:, 1] = acquisition.kz, acquisition.ky
        labels[:, 2] = 0 if acquisition.flags is None else acquisition.flags & ~np.uint32(LineFlag.LAST_IN_SCAN)
        labels[:, 3:] = acquisition.contrast, acquisition.repetition, acquisition.average
        samples = np.ascontiguousarray(acquisition.samples, "<c8")
        way = None if acquisition.trajectory is None else np.ascontiguousarray(acquisition.trajectory, "<f4")
        for line in range(lines):
            one = hashlib.sha256(labels[line])
            one.update(samples[line])
            if way is not None:
                one.update(way[line])
            self._sum += int.from_bytes(one.digest(), "little")
        self._count += lines

    def hexdigest(self) -> str:
        """SHA-256 of the header and of all readouts so far, hexadecimal: the same for any order and any grouping of
        them, so that a scan has one hash from a file and from a stream.

        It is that of the header (JSON of the encoding, keys sorted, without what ``NOT_HASHED`` names), the number of
        readouts (8 bytes) and the sum, modulo 2**256, of the SHA-256 of each: kz, ky, flags, contrast, repetition,
        average (int32), samples of all coils (complex64), trajectory (float32). All little-endian.
        """
        total = (self._sum % 2**256).to_bytes(32, "little")
        return hashlib.sha256(self._header + self._count.to_bytes(8, "little") + total).hexdigest()


def _header_bytes(encoding: Encoding) -> bytes:
    said = {each.name: getattr(encoding, each.name) for each in fields(encoding) if each.name not in NOT_HASHED}
    said["ras_from_ijk"] = encoding.ras_from_ijk.tolist()
    said["centre"] = encoding.centre_index
    said["metadata"] = {key: text for key, text in encoding.metadata.items() if key not in NOT_HASHED_METADATA}
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
