"""A worker forgets what it has run: a short version of scripts/study_memory.py."""

import gc
import tracemalloc
from pathlib import Path

import pytest

from tests.eval.fake_suite import PointSuite
from vla.eval.grid import EvalConfig
from vla.eval.groups import grouped
from vla.eval.records import EpisodeKey
from vla.eval.runners import GroupRunner


@pytest.mark.parametrize("batch", [1, 4])
def test_what_a_worker_holds_does_not_grow_with_the_episodes_it_has_run(
    point_suite: str, tmp_path: Path, batch: int
) -> None:
    config = EvalConfig(suite=point_suite, policy="seer", batch=batch, execution_horizon=2)
    runner = GroupRunner(config, tmp_path, PointSuite())

    def held_after(first_seed: int) -> int:
        """Bytes, once 40 more episodes over two arms are over."""
        for arm in ("point", "dot"):
            keys = [EpisodeKey(task="reach", embodiment=arm, seed=first_seed + i) for i in range(20)]
            for group in grouped(keys, keys, batch=batch, first_seed=first_seed):
                assert [record.success for record in runner.run(group)] == [True] * len(group.keys)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        held = [held_after(40 * round_) for round_ in range(6)]
    finally:
        tracemalloc.stop()
        runner.close()
    assert held[-1] - held[2] < 20_000  # 120 episodes: one picture of each would be 370 kB
