from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.eval.fake_suite import point_embodiment
from vla.control.chunks import ChunkExecutor
from vla.errors import ActionError, ConfigError
from vla.testing import check_policy, sample_observation
from vla.types import ActionChunk, Observation

SEEN = sample_observation(point_embodiment())


class Counting:
    """Chunk number ``c`` holds the actions c.0, c.1, c.2, ..."""

    def __init__(self, horizon: int = 4) -> None:
        self.horizon, self.asked = horizon, []

    def reset(self) -> None:
        self.asked = []

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.asked.append([o.instruction for o in observations])
        number = len(self.asked)
        actions = (number + np.arange(self.horizon, dtype=np.float32)[:, None] / 10) * np.ones(4, np.float32)
        return [ActionChunk(actions=actions, control_hz=10.0) for _ in observations]


def firsts(executor: ChunkExecutor, observations: list[Observation]) -> list[float]:
    return [round(float(executor.act([o])[0].actions[0, 0]), 1) for o in observations]


@pytest.mark.parametrize(
    ("execution_horizon", "expected"),
    [(1, [1.0, 2.0, 3.0, 4.0, 5.0]), (2, [1.0, 1.1, 2.0, 2.1, 3.0]), (4, [1.0, 1.1, 1.2, 1.3, 2.0])],
)
def test_actions_come_in_order_and_replanning_on_time(execution_horizon: int, expected: list[float]) -> None:
    assert firsts(ChunkExecutor(Counting(), execution_horizon), [SEEN] * 5) == expected


def test_a_short_chunk_is_replanned_when_used_up() -> None:
    assert firsts(ChunkExecutor(Counting(horizon=1), 8), [SEEN] * 3) == [1.0, 2.0, 3.0]


def test_a_new_instruction_discards_the_rest_of_the_chunk_at_once() -> None:
    other = replace(SEEN, instruction="stop that")
    assert firsts(ChunkExecutor(Counting(), 4), [SEEN, SEEN, other, other, SEEN]) == [1.0, 1.1, 2.0, 2.1, 3.0]


def test_only_envs_that_need_a_chunk_are_passed_on_in_one_batch() -> None:
    inner = Counting()
    executor = ChunkExecutor(inner, 2)
    a, b, c = (replace(SEEN, instruction=text) for text in "abc")
    executor.act([a, b])
    executor.act([a, c])
    executor.act([a, c])
    assert inner.asked == [["a", "b"], ["c"], ["a"]]


def test_reset_forgets_the_plan_and_reaches_the_inner_policy() -> None:
    executor = ChunkExecutor(Counting(), 4)
    firsts(executor, [SEEN, SEEN])
    executor.reset()
    assert firsts(executor, [SEEN]) == [1.0]


def test_latency_is_reported_when_replanned_only() -> None:
    executor = ChunkExecutor(Counting(), 2)
    first, second = executor.act([SEEN])[0].info, executor.act([SEEN])[0].info
    assert first["replanned"] is True
    assert first["latency_s"] >= 0
    assert second == {"replanned": False}


def test_it_is_a_policy() -> None:
    check_policy(ChunkExecutor(Counting(), 2), point_embodiment())


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        ChunkExecutor(Counting(), 0)
    with pytest.raises(ActionError, match="empty chunk"):
        ChunkExecutor(Counting(horizon=0), 1).act([SEEN])
