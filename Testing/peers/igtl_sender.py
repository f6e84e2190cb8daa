"""A sender in a process of its own that shares no code with the product: the same bytes for every receiver.

Usage: python -m peers.igtl_sender PORT poses COUNT RATE_HZ
       python -m peers.igtl_sender PORT images COUNT SLICES
"""

from __future__ import annotations

import socket
import struct
import sys
import time

from fastcrc import crc64

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def stamp_now() -> int:
    """32.32 fixed-point seconds."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return (seconds << 32) | (nanoseconds << 32) // 1_000_000_000


def head(type_name: bytes, device: bytes, body: bytes) -> bytes:
    """58 bytes of header."""
    return struct.pack(">H12s20sQQQ", 1, type_name, device, stamp_now(), len(body), crc64.ecma_182(body))


def image_body(slices: int) -> bytes:
    """IMAGE of 256 x 256 x slices, 16 bit, with a pattern."""
    layout = struct.pack(
        ">HBBBB3H12f6H", 1, 1, 5, 2, 1, 256, 256, slices, *IDENTITY, 0, 0, 0, 0, 0, 0, 256, 256, slices
    )
    return layout + bytes(range(256)) * (512 * slices)


def send_poses(sock: socket.socket, count: int, rate_hz: float) -> None:
    """Poses at a steady rate; x is the number of the pose."""
    start = time.monotonic()
    for number in range(count):
        due = start + number / rate_hz
        while (left := due - time.monotonic()) > 0:
            time.sleep(left)
        body = struct.pack(">12f", *IDENTITY, float(number), 0.0, 0.0)
        sock.sendall(head(b"TRANSFORM", b"probe", body) + body)


def send_images(sock: socket.socket, count: int, slices: int) -> None:
    """Images as fast as they are taken, each in one call as all libraries do it; the first and the last have names of
    their own."""
    body = image_body(slices)
    first, image, last = (head(b"IMAGE", name, body) + body for name in (b"first", b"image", b"last"))
    for message in (first, *[image] * (count - 2), last):
        sock.sendall(message)


def main(arguments: list[str]) -> None:
    """Connect, send, and wait until the receiver hangs up."""
    port, mode, count, parameter = int(arguments[0]), arguments[1], int(arguments[2]), float(arguments[3])
    with socket.create_connection(("127.0.0.1", port), 10.0) as sock:
        sock.settimeout(120.0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if mode == "poses":
            send_poses(sock, count, parameter)
        else:
            send_images(sock, count, int(parameter))
        sock.recv(1)


if __name__ == "__main__":
    main(sys.argv[1:])
