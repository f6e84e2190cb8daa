"""Memory of messages that is used again: only when nobody can see it any more, and never more than its share."""

from __future__ import annotations

import gc
import struct
import threading

import numpy as np
import psutil
import pytest
from IntraopMRIReconstructionLib.wire import codec
from IntraopMRIReconstructionLib.wire.adapters import image_from_message
from IntraopMRIReconstructionLib.wire.bodies import SMALLEST_KEPT, BodyPool
from IntraopMRIReconstructionLib.wire.connection import Limits
from IntraopMRIReconstructionLib.wire.transport import Client, Server
from peers.waiting import until

SIZE = 4 * SMALLEST_KEPT
#: What a consumer may keep of a body instead of the body.
KEPT = {
    "body": lambda body: body,
    "slice": lambda body: body[10:20],
    "array": lambda body: np.asarray(body),
    "view of a view": lambda body: np.frombuffer(body, np.uint16)[4:][::2].reshape(-1, 2).T,
    "exporter": lambda body: np.asarray(body.obj)[5:],
    "cast": lambda body: body.cast("H")[1:],
    "read-only": lambda body: body.toreadonly(),
}


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


@pytest.mark.parametrize("keep", KEPT.values(), ids=KEPT)
def test_memory_comes_back_only_after_the_last_view_of_it(keep: object) -> None:
    assert callable(keep)
    pool = BodyPool(lambda: 10 * SIZE)
    body = pool.take(SIZE)
    body[:] = bytes(range(256)) * (SIZE // 256)
    where = _address(body)
    kept = keep(body)
    before = bytes(kept)
    del body
    others = [pool.take(SIZE) for _ in range(3)]
    assert where not in map(_address, others)
    for other in others:
        other[:] = b"\xff" * SIZE
    assert bytes(kept) == before
    assert pool.idle_bytes == 0
    del kept
    assert pool.idle_bytes == SIZE
    assert _address(pool.take(SIZE)) == where


def test_memory_in_a_cycle_comes_back_from_the_garbage_collector() -> None:
    pool = BodyPool(lambda: SIZE)
    cycle: list[object] = [pool.take(SIZE)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert pool.idle_bytes == SIZE


def test_idle_memory_stays_within_its_room_and_goes_when_unused() -> None:
    room = 3 * SIZE
    pool = BodyPool(lambda: room)
    bodies = [pool.take(SIZE) for _ in range(5)]
    bodies.clear()
    assert pool.idle_bytes == 3 * SIZE
    room = 2 * SIZE
    body = pool.take(8 * SIZE)
    assert pool.idle_bytes == 0
    del body
    assert pool.idle_bytes == 0
    bodies = [pool.take(SIZE), pool.take(SIZE)]
    bodies.clear()
    assert pool.idle_bytes == 2 * SIZE
    pool.trim(kept_s=3600.0)
    assert pool.idle_bytes == 2 * SIZE
    pool.trim(kept_s=0.0)
    assert pool.idle_bytes == 0


def test_a_block_much_larger_than_the_body_is_not_taken() -> None:
    pool = BodyPool(lambda: 100 * SIZE)
    large, small = pool.take(8 * SIZE), pool.take(SIZE)
    where = _address(large), _address(small)
    del large, small
    assert (_address(pool.take(SIZE)), _address(pool.take(8 * SIZE - 100))) == where[::-1]
    assert len(pool.take(SIZE - 1)) == SIZE - 1


def _slice(number: int, shape: tuple[int, int, int] = (4, 128, 256)) -> codec.ImageMessage:
    return codec.ImageMessage(device="live", array=np.full(shape, number, np.uint16))


def test_images_that_a_consumer_keeps_never_change_while_others_use_their_memory_again() -> None:
    rng = np.random.default_rng(7)
    kept: dict[int, np.ndarray] = {}
    seen: set[int] = set()
    with Server() as server, Client(port=server.port) as client:
        for number in range(60):
            client.send(_slice(number))
            message = server.expect(5.0, "IMAGE").message
            assert isinstance(message, codec.ImageMessage)
            image = image_from_message(message)
            assert (image.array == number).all()
            seen.add(image.array.ctypes.data)
            if rng.random() < 0.2:
                kept[number] = image.array[1:3, ::2]
            if kept and rng.random() < 0.1:
                del kept[int(rng.choice(list(kept)))]
            del message, image
        for number, array in kept.items():
            assert (array == number).all()
        assert len(seen) < 30


def test_what_is_queued_and_what_is_idle_share_one_limit() -> None:
    raw = codec.encode(_slice(1))
    limits = Limits(queued_bytes=3 * len(raw))
    with Server(limits=limits) as server, Client(port=server.port) as client:
        for _ in range(3):
            client.send(_slice(1))
        until(lambda: server.counters.received == 3)
        while server.receive(0) is not None:
            pass
        until(lambda: 0 < server._bodies.idle_bytes <= limits.queued_bytes)
        for _ in range(3):
            client.send(codec.StringMessage(device="text", text="x" * 60_000))
            client.send(_slice(2, (5, 128, 256)))
            # What is queued first: a body that is about to be queued has made its room among the idle ones before.
            assert server._inbox.queued_bytes + server._bodies.idle_bytes <= limits.queued_bytes
        until(lambda: len(server._inbox) >= 4)
        assert server._bodies.idle_bytes + server._inbox.queued_bytes <= limits.queued_bytes


def test_idle_memory_goes_with_the_link() -> None:
    with Server() as server:
        with Client(port=server.port) as client:
            client.send(_slice(1))
            assert server.receive(5.0) is not None
            until(lambda: server._bodies.idle_bytes > 0)
            client.send(_slice(2))
            kept = server.receive(5.0)
        until(lambda: server._bodies.idle_bytes == 0)
    del kept
    assert server._bodies.idle_bytes == 0


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_the_crc_is_summed_up_across_pieces(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("IntraopMRIReconstructionLib.wire.connection._PIECE", 300_000 // pieces)
    raw = codec.encode(_slice(3))
    damaged = bytearray(raw)
    damaged[-1] ^= 1
    with Server() as server, Client(port=server.port) as client:
        with client._lock:
            (link,) = client._connections.values()
        for data in (raw, bytes(damaged), raw):
            link.send([data])
        assert [server.receive(5.0) is not None for _ in range(2)] == [True, True]
        until(lambda: server.counters.refused == {"crc": 1})
    assert struct.unpack(">Q", raw[50:58]) == (codec.parse_header(raw[:58]).crc,)


def test_what_many_threads_have_let_go_of_is_given_back() -> None:
    """Every link has a thread of its own; the allocator of C would keep the last bodies of each."""
    size, threads = 16 * 2**20, 8
    pool, together, kept = BodyPool(lambda: 0), threading.Barrier(threads), []

    def link() -> None:
        together.wait(20.0)
        for _ in range(4):
            body = pool.take(size)
            np.frombuffer(body, np.uint8)[:] = 1
            # Something small that stays, above what is let go of.
            kept.append(np.ones(5000, np.uint8))
            del body

    before = psutil.Process().memory_info().rss
    workers = [threading.Thread(target=link) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert psutil.Process().memory_info().rss - before < 2 * size
