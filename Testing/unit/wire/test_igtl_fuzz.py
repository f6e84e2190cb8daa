"""Mutated headers and bodies: only errors of the package's own family come out, and what passes can be re-encoded."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from peers.igtl_fuzz import fuzz_one, seeds

MESSAGES = seeds()


def test_a_bounded_number_of_mutated_messages() -> None:
    rng = np.random.default_rng(20261122)
    outcomes = {True: 0, False: 0}
    for number in range(20_000):
        outcomes[fuzz_one(rng, MESSAGES[number % len(MESSAGES)])] += 1
    # Both sides must be exercised: many are refused, some mutations are harmless.
    assert outcomes[False] > 5_000
    assert outcomes[True] > 500


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["IMAGE", "TDATA", "POLYDATA", "BIND", "NDARRAY", "STRING", "POINT"]),
       st.sampled_from([1, 2]))  # fmt: skip
def test_arbitrary_bodies(body: bytes, type_name: str, version: int) -> None:
    fuzz_one(None, (version, type_name, body))
