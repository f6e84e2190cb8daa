"""One step of the fuzzer: a mutated message is decoded and judged; used by the tests, the benchmark and the soak."""

from __future__ import annotations

import struct

import numpy as np
from fastcrc import crc64
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.header import HEADER_SIZE, RefusedMessage, parse_header
from IntraopMRIReconstructionLib.wire.message import Message
from IntraopMRIReconstructionLib.wire.trust import check_message

from .igtl_samples import STAMP, extended, samples

#: Version, type, body.
Seed = tuple[int, str, bytes]

#: Numbers that overflow, wrap or lie just outside.
NASTY = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF, 0x8000, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 2**63, 2**64 - 1)


def seeds() -> list[Seed]:
    """Every sample message in both header versions."""
    result: list[Seed] = []
    for message in samples().values():
        body = codec.encode(message)[HEADER_SIZE:]
        result.append((1, message.type_name, body))
        result.append((2, message.type_name, extended(body, {"PatientID": "42", "Status": "OK"}, 7)))
    return result


def fuzz_one(rng: np.random.Generator | None, seed: Seed) -> bool:
    """Mutate (unless ``rng`` is None), decode and judge; True when the message passed.

    Raises whatever the product lets through that is not its own refusal, and AssertionError when a message that
    passed does not come back the same from its own encoding.
    """
    version, type_name, body = seed
    header = bytearray(struct.pack(">H12s20sQ", version, type_name.encode(), b"Device", STAMP))
    mutated = bytearray(body)
    if rng is not None:
        _mutate(rng, mutated)
        if rng.random() < 0.1:
            _mutate(rng, header, keep_length=True)
    crc = crc64.ecma_182(bytes(mutated))
    raw = bytes(header) + struct.pack(">QQ", len(mutated), crc)
    try:
        message = codec.decode(parse_header(raw), bytes(mutated))
        check_message(message)
    except RefusedMessage:
        return False
    _check_round_trip(message)
    return True


def _check_round_trip(message: Message) -> None:
    once = codec.encode(message)
    twice = codec.encode(codec.decode(once[:HEADER_SIZE], once[HEADER_SIZE:]))
    assert once == twice, f"{message.type_name} does not come back from its own encoding"


def _mutate(rng: np.random.Generator, data: bytearray, keep_length: bool = False) -> None:
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(0, 3 if keep_length else 6))
        at = int(rng.integers(0, len(data) + 1))
        if kind == 0 and len(data):
            data[at % len(data)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and len(data):
            data[at % len(data)] = int(rng.integers(0, 256))
        elif kind == 2:
            width = int(rng.choice([1, 2, 4, 8]))
            number = NASTY[int(rng.integers(0, len(NASTY)))] & (2 ** (8 * width) - 1)
            if at + width <= len(data):
                data[at : at + width] = number.to_bytes(width, "big")
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 5:
            del data[at : at + int(rng.integers(1, 9))]
