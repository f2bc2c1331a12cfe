"""The real suite through the contract suite, evaluation and a session."""

from dataclasses import replace
from pathlib import Path

import pytest

from vla import registry
from vla.eval.evaluate import evaluate
from vla.eval.grid import EvalConfig
from vla.eval.intervals import Rate
from vla.report.page import write_report
from vla.session import SessionConfig, run_session
from vla.testing import check_suite

CONFIG = EvalConfig(tasks=("pick",), embodiments=("panda",), num_seeds=2, workers=0)


@pytest.mark.parametrize(("task", "arm"), [("place", "panda"), ("drawer", "so101")])
def test_tabletop_keeps_the_contract(task: str, arm: str) -> None:
    check_suite(registry.suite("tabletop"), tasks=(task,), embodiments=(arm,))


def test_the_expert_passes_and_doing_nothing_fails_with_a_report(tmp_path: Path) -> None:
    both = replace(CONFIG, variants=("base", "swapped"), videos_per_cell=1)
    expert = evaluate(both, tmp_path / "expert", progress=False)
    assert [group.success for group in expert.overall.values()] == [Rate(2, 2), Rate(2, 2)]
    zero = evaluate(replace(CONFIG, policy="zero"), tmp_path / "zero", progress=False)
    assert zero.overall["base"].success == Rate(0, 2)
    assert "data:video/mp4" in write_report(tmp_path / "expert").read_text()


def test_a_spoken_instruction_is_followed_in_a_scene_that_allows_it() -> None:
    result = run_session(
        SessionConfig(robot="sim:ur5e"), "put the red cube in the blue bowl", say=lambda _: None
    )
    assert result.loop.success
    assert result.instruction == "put the red cube in the blue bowl"
