"""How long a policy thinks: where its answer comes from, and in which control step it is there.

Three sources, one executor (``vla.control.chunks``): in place (the loop waits for the policy, as it is), a
trace replayed on a simulator's clock, and a thread of its own beside a robot.

On the replayed clock an answer to what was asked in step t is there in step t + d, d = floor(latency *
control rate): the whole control periods that pass (Black et al. 2025, arXiv:2506.07339, section 2). Less than
a period passes within the step that asked, as it does in the closed loop, which commands when it knows what.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from pathlib import Path
from typing import Protocol

import numpy as np

from vla.errors import ConfigError
from vla.types import ActionChunk

#: Longest wait for a thread that still thinks when its episode is over, s.
SETTLE_S = 30.0

Think = Callable[[], list[ActionChunk]]


class Answer(Protocol):
    """Chunks that were asked for."""

    def there(self, step: int) -> bool:
        """Whether they can be used in this control step."""
        ...

    def chunks(self) -> list[ActionChunk]:
        """They; only once they are there. Raises what thinking raised."""
        ...


class Thinking(Protocol):
    """Who asks the policy, and when its answer arrives."""

    def ask(self, think: Think, step: int) -> Answer: ...

    def reset(self) -> None:
        """A new episode begins; nobody is thinking afterwards."""
        ...


class Replayed:
    """Asks at once, and hands the answer out when the trace says that it would have been there.

    Args:
        latency_s: seconds for one question after the other, again and again; empty: no time at all.
        seed: says where in the trace an episode begins, so that episodes differ and each is the same every
            time, whoever runs it.
    """

    def __init__(self, latency_s: Sequence[float] = (), seed: Sequence[int] = (0,)) -> None:
        self.latency_s = checked_trace(latency_s)
        self._first = int(np.random.default_rng(seed).integers(len(latency_s))) if len(latency_s) > 1 else 0
        self._asked = 0

    def reset(self) -> None:
        self._asked = 0

    def ask(self, think: Think, step: int) -> Answer:
        chunks = think()
        return _Dated(chunks, step + self.next_steps(chunks[0].control_hz))

    def next_steps(self, control_hz: float) -> int:
        """Control steps until the answer to the next question is there."""
        if not self.latency_s:
            return 0
        latency_s = self.latency_s[(self._first + self._asked) % len(self.latency_s)]
        self._asked += 1
        return delay_steps(latency_s, control_hz)


class Background:
    """Asks in a thread of its own: the robot is commanded on while the policy thinks."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "policy")  # one: a policy answers one question at a time
        self._last: Future[list[ActionChunk]] | None = None

    def ask(self, think: Think, step: int) -> Answer:
        self._last = self._pool.submit(think)
        return _Promised(self._last)

    def reset(self) -> None:
        if self._last is not None and not self._last.cancel():
            try:
                self._last.exception(timeout=SETTLE_S)  # what nobody waits for any more harms nobody
            except LateError:
                raise ConfigError(
                    f"The policy still thinks {SETTLE_S:g} s after its episode ended: restart it."
                ) from None
        self._last = None

    def close(self) -> None:
        """Wait until nobody thinks, and end the thread."""
        try:
            self.reset()
        finally:
            self._pool.shutdown(wait=False)


class _Dated:
    def __init__(self, chunks: list[ActionChunk], due: int) -> None:
        self._chunks, self._due = chunks, due

    def there(self, step: int) -> bool:
        return step >= self._due

    def chunks(self) -> list[ActionChunk]:
        return self._chunks


class _Promised:
    def __init__(self, future: Future[list[ActionChunk]]) -> None:
        self._future = future

    def there(self, step: int) -> bool:
        return self._future.done()

    def chunks(self) -> list[ActionChunk]:
        return self._future.result(timeout=0)


def delay_steps(latency_s: float, control_hz: float) -> int:
    """Whole control periods in a latency."""
    return math.floor(latency_s * control_hz + 1e-9)  # 0.3 s at 10 Hz are three


def checked_trace(latency_s: Sequence[float]) -> tuple[float, ...]:
    """The same, as a tuple; a number that is not a latency raises :class:`ConfigError`."""
    for number in latency_s:
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < math.inf:
            raise ConfigError(f"Latencies are seconds, finite and from 0: got {number!r}.")
    return tuple(float(number) for number in latency_s)


def load_trace(path: str | Path) -> tuple[float, ...]:
    """Measured latencies, s, in the order of the questions.

    Args:
        path: JSON, a list of seconds or an object that has one under ``latency_s``; or what ``vla eval``
            wrote (its directory or ``records.jsonl``): the mean of each episode that did not crash.

    Raises:
        ConfigError: no such file, or nothing of that in it.
    """
    path = Path(path)
    file = path / "records.jsonl" if path.is_dir() else path
    remedy = 'Expected a JSON list of seconds, {"latency_s": [...]}, or the records.jsonl of an evaluation.'
    try:
        text = file.read_text()
        if file.suffix == ".jsonl":
            records = [json.loads(line) for line in text.splitlines()]
            found = [record["latency_mean_s"] for record in records if not record.get("error")]
        else:
            content = json.loads(text)
            found = content["latency_s"] if isinstance(content, dict) else content
        if not isinstance(found, list):
            raise TypeError(f"{type(found).__name__} instead of a list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} holds no latencies: {error!r}. {remedy}") from error
    if not found:
        raise ConfigError(f"{file} holds no latencies: it is empty. {remedy}")
    try:
        return checked_trace(found)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
