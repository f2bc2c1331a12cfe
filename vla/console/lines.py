"""What is typed at the page, as the stream of lines that a :class:`~vla.conversation.Prompt` reads."""

from __future__ import annotations

import queue
from collections.abc import Iterator


class Lines:
    """A stream whose lines come from another thread; it ends when it is closed."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()

    def put(self, line: str) -> None:
        """One line, without its end."""
        self._lines.put(" ".join(line.split()))

    def end(self) -> None:
        """Nobody is there any more."""
        self._lines.put(None)

    def isatty(self) -> bool:
        return False

    def __iter__(self) -> Iterator[str]:
        while (line := self._lines.get()) is not None:
            yield f"{line}\n"
