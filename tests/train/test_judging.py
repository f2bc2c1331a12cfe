"""A run that is judged while it trains says how well it does and whether it listens, where it stands."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.data.worlds import make_episode
from tests.eval.fake_suite import point_embodiment
from tests.eval.plugin import point_suite
from tests.train.runs import SIZE, tiny_config
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, UnknownNameError
from vla.train.config import TrainConfig
from vla.train.judging import Judge, JudgeConfig
from vla.train.loop import train

__all__ = ["point_suite"]
JUDGE = JudgeConfig(suite="point_suite", tasks=("reach",), embodiments=("point",), episodes=3, workers=0)


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    arm, rng = point_embodiment(image_size=SIZE), np.random.default_rng(0)
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        for seed in range(3):
            facts = {"task": "reach", "seed": 1_000_000 + seed}
            store.append(make_episode(rng, arm, instruction="reach the red dot", provenance=facts))
    tiny = tiny_config(tmp_path / "s.zarr", steps=3)
    return replace(tiny, data=replace(tiny.data, camera_roles=("front",)), judge=JUDGE)


def test_the_last_checkpoint_is_judged_and_the_metrics_say_how(point_suite, config, tmp_path, capsys):
    train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["judged/episodes"] == 3
    assert 0 <= rows[-1]["judged/success"] <= 1
    assert "grounding" in capsys.readouterr().out
    judged = tmp_path / "run" / "judged" / "000003"
    conditions = json.loads((judged / "summary.json").read_text())["overall"]
    assert {"base", "swapped", "base blank", "base no_words", "base heldout"} == set(conditions)
    assert (judged / "report.html").is_file()


def test_it_waits_between_two_evaluations_but_not_before_the_last(point_suite, tmp_path):
    judge = Judge(JUDGE, tmp_path)
    assert judge(tmp_path / "nothing", 5, False) is None
    assert not (tmp_path / "judged").exists()


def test_an_evaluation_that_fails_is_told_and_the_run_goes_on(point_suite, tmp_path, capsys):
    assert Judge(JUDGE, tmp_path)(tmp_path / "nothing", 7, True) is None
    assert "step 7: not judged" in capsys.readouterr().out


def test_what_cannot_be_judged_is_refused_before_the_run_begins(point_suite, config, tmp_path):
    wrong = replace(config, judge=replace(JUDGE, tasks=("fly",)))
    with pytest.raises(UnknownNameError, match="reach"):
        train(wrong, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
    with pytest.raises(ConfigError, match="Minutes between"):
        replace(JUDGE, every_minutes=-1.0)
    assert TrainConfig.from_json(config.to_json()) == config
