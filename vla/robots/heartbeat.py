"""A deadman kept by the host: something is done when the word does not come in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Heartbeat:
    """Calls ``fallen_silent`` once, from a thread of its own, when :meth:`beat` was not called for
    ``limit_s``.

    It begins with the first beat and ends with :meth:`rest`.

    Args:
        limit_s: None never calls.
        fallen_silent: must not wait for the thread that beats.
    """

    def __init__(self, limit_s: float | None, fallen_silent: Callable[[], None]) -> None:
        self._limit_s, self._fallen_silent = limit_s, fallen_silent
        self._changed = threading.Condition()
        self._deadline_s: float | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def beating(self) -> bool:
        """It has begun and has not rested or fallen silent."""
        return self._limit_s is None or self._deadline_s is not None

    def beat(self) -> None:
        """All is well for another ``limit_s``."""
        if self._limit_s is None:
            return
        with self._changed:
            self._deadline_s = time.monotonic() + self._limit_s
            if self._thread is None:
                self._closed = False
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()
            self._changed.notify()

    def rest(self) -> None:
        """Nobody is expected to beat."""
        with self._changed:
            self._deadline_s = None
            self._changed.notify()

    def close(self) -> None:
        """End the thread; the next beat begins anew."""
        with self._changed:
            self._deadline_s, self._closed = None, True
            thread, self._thread = self._thread, None
            self._changed.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                left_s = None if self._deadline_s is None else self._deadline_s - time.monotonic()
                if left_s is None or left_s > 0:
                    self._changed.wait(left_s)
                    continue
                self._deadline_s = None
            self._fallen_silent()
