"""Answers to GET_, STT_ and STP_: what an endpoint offers, once or as a stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..errors import WireError
from .codec import TYPE_NAMES, CapabilityMessage, EmptyMessage
from .message import Message
from .messages_text import Query

#: Gives the current message of a device, None when there is none. Must not raise.
Provider = Callable[[], Message | None]

#: Streams run no faster than this, whatever is asked for.
SHORTEST_INTERVAL_S = 0.005
#: Streams of one connection.
MOST_STREAMS = 64


class Offers:
    """What can be asked for, by type and device. For any number of threads."""

    def __init__(self) -> None:
        self._providers: dict[tuple[str, str], Provider] = {}

    def add(self, type_name: str, device: str, provider: Provider) -> None:
        """Answer questions for a device with what ``provider`` returns; it is called from the threads of the links.

        The device "" stands for every name: peers often ask under their own name. The answer takes the asked name.
        """
        self._providers[type_name, device] = provider

    def find(self, query: Query) -> Provider | None:
        """Provider for a query; one without a device name may take any of its type."""
        if query.of == CapabilityMessage.TYPE:
            return lambda: CapabilityMessage(device=query.device, types=TYPE_NAMES)
        found = self._providers.get((query.of, query.device))
        if found is None and query.device:
            for_all = self._providers.get((query.of, ""))
            return for_all and partial(_renamed, for_all, query.device)
        return found or next((give for (kind, _), give in self._providers.items() if kind == query.of), None)


class Responder:
    """Answers the queries of one connection.

    ``send`` returns False for what does not fit the protocol, and raises WireError when the link has ended.
    """

    def __init__(
        self, offers: Offers, send: Callable[[Message], bool], start: Callable[[Callable[[], None], str], None]
    ) -> None:
        self._offers, self._send, self._start = offers, send, start
        self._lock = threading.Lock()
        self._streams: dict[tuple[str, str], threading.Event] = {}

    def answer(self, query: Query) -> None:
        """Do what a GET_, STT_ or STP_ asks for and say so."""
        if query.verb == "GET":
            provider = self._offers.find(query)
            message = None if provider is None else provider()
            if message is None or not self._send(message):
                self._send(EmptyMessage(wire_type=query.of, device=query.device))
        elif query.verb == "STT":
            self._send(Query.reply(query, self._begin(query)))
        elif query.verb == "STP":
            self._send(Query.reply(query, self._end(query)))

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            for stop in self._streams.values():
                stop.set()
            self._streams.clear()

    def _begin(self, query: Query) -> bool:
        provider = self._offers.find(query)
        if provider is None:
            return False
        key = (query.of, query.device)
        with self._lock:
            if key in self._streams:
                self._streams[key].set()
            elif len(self._streams) >= MOST_STREAMS:
                return False
            stop = self._streams[key] = threading.Event()
        interval_s = max(query.interval_s, SHORTEST_INTERVAL_S)
        self._start(lambda: self._stream(provider, interval_s, stop), f"stream {query.of} {query.device}")
        return True

    def _end(self, query: Query) -> bool:
        with self._lock:
            stop = self._streams.pop((query.of, query.device), None)
        if stop is not None:
            stop.set()
        return stop is not None

    def _stream(self, provider: Provider, interval_s: float, stop: threading.Event) -> None:
        due_s = time.monotonic()
        while not stop.is_set():
            message = provider()
            try:
                if message is not None:
                    self._send(message)
            except WireError:
                return
            # Late messages are left out, not sent in a burst.
            now_s = time.monotonic()
            due_s = max(due_s + interval_s, now_s)
            stop.wait(due_s - now_s)


def _renamed(provider: Provider, device: str) -> Message | None:
    message = provider()
    return None if message is None else replace(message, device=device)
