"""Training runs: they resume exactly, stop cleanly, divide their work, and record what they are."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.data.worlds import make_arm, make_episode
from tests.train.runs import SIZE, fill_store, make_trainer, tiny_config
from vla.contract import PolicyContract
from vla.data.mixture import SourceConfig
from vla.data.store import EpisodeStore
from vla.errors import CheckpointError, ConfigError
from vla.models.saving import load_policy
from vla.train.checkpoint import list_checkpoints
from vla.train.config import BudgetConfig, OptimConfig
from vla.train.loop import train
from vla.train.record import load_run_config
from vla.train.start import ARMS, WORDS

FILES = ("model.safetensors", "average.safetensors", "optimizer.safetensors")


def tensors(run: Path, step: int) -> dict[str, torch.Tensor]:
    where = run / "checkpoints" / f"{step:06d}"
    return {f"{file}/{name}": value for file in FILES for name, value in load_file(where / file).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_four_steps_equal_two_steps_resumed_for_two_more(store, tmp_path):
    config = tiny_config(store, steps=4)
    train(config, tmp_path / "whole")
    stop_after_two = tiny_config(store, steps=4, checkpoint_minutes=0.0)

    def interrupt(_policy, step, _last):
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    # the third step is in progress or done when the run stops; it resumes from whatever was saved last
    train(replace(stop_after_two, keep_checkpoints=9), tmp_path / "parts", on_checkpoint=interrupt)
    assert len(list_checkpoints(tmp_path / "parts" / "checkpoints")) < 4
    train(config, tmp_path / "parts", resume=True)
    assert same(tensors(tmp_path / "whole", 4), tensors(tmp_path / "parts", 4))


def test_a_checkpoint_restores_every_bit(store, tmp_path):
    first = make_trainer(tiny_config(store, steps=6))
    for _ in range(2):
        first.step(share=0.1)
    first.save(tmp_path)
    second = make_trainer(tiny_config(store, steps=6))
    second.load(list_checkpoints(tmp_path)[-1])
    for trainer in (first, second):
        for _ in range(2):
            trainer.step(share=0.5)
    assert second.step_index == 4
    assert same(first.averaged_weights(), second.averaged_weights())
    assert same(dict(first.net.state_dict()), dict(second.net.state_dict()))


def test_ctrl_c_leaves_a_whole_checkpoint_and_a_usable_policy(store, tmp_path):
    config = tiny_config(store, steps=100_000, checkpoint_minutes=0.0)
    directory = train(config, tmp_path / "run", on_checkpoint=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    contract = PolicyContract.load(directory)
    assert contract.provenance["training"]["finished"] is False
    assert 1 <= contract.provenance["training"]["steps"] <= 3
    load_policy(directory)
    assert all((list_checkpoints(tmp_path / "run/checkpoints")[-1] / file).is_file() for file in FILES)


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch
from tests.train.runs import tiny_config
from vla.train.loop import train
from vla.train.processes import run_with_helpers

def average(group):
    mine = [torch.full((2, 3), float(group.rank)), torch.tensor(4.0 * group.rank)]
    agreed = group.average_(mine, torch.tensor([1.0, float(group.rank)]))
    return [*(float(t.mean()) for t in mine), agreed.tolist()]

if __name__ == "__main__":
    assert run_with_helpers(average, 2, ()) == [0.5, 2.0, [2.0, 1.0]]
    train(tiny_config(Path(sys.argv[1]), steps=3, num_processes=2), sys.argv[2])
"""


def test_two_processes_average_their_gradients_and_finish_one_run(store, tmp_path):
    path = tmp_path / "run_two.py"
    path.write_text(TWO_PROCESSES)
    root = Path(__file__).parents[2]
    search = os.pathsep.join([str(root), str(root / "envs"), str(root / "policies")])
    subprocess.run(
        [sys.executable, str(path), str(store), str(tmp_path / "two")],
        env={**os.environ, "PYTHONPATH": search},
        check=True,
        timeout=300,
    )
    assert PolicyContract.load(tmp_path / "two/policy").provenance["training"]["num_processes"] == 2
    lines = (tmp_path / "two/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_a_run_records_its_configuration_and_reads_it_back(store, tmp_path):
    config = tiny_config(store, steps=1)
    train(config, tmp_path / "run")
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert load_run_config(tmp_path / "run") == config
    assert set(run) == {"config", "versions", "git", "machine", "started_utc", "stages"}
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert {"loss", "flow", "regression", "localisation", "keypoint", "target_approach_cm"} <= set(row)
    assert {"samples_per_s", "cpu_minutes", "lr", "gradient_norm", "minutes"} <= set(row)


def test_a_used_directory_and_changed_settings_are_refused(store, tmp_path):
    config = tiny_config(store, steps=1)
    with pytest.raises(CheckpointError, match="Nothing to resume"):
        train(config, tmp_path / "run", resume=True)
    train(config, tmp_path / "run")
    with pytest.raises(ConfigError, match="already holds a run"):
        train(config, tmp_path / "run")
    other = replace(config, optim=OptimConfig(batch_size=4, lr=3e-4))
    with pytest.raises(CheckpointError, match="other settings of optim"):
        train(other, tmp_path / "run", resume=True)


def test_a_longer_budget_may_be_given_when_resuming(store, tmp_path):
    train(tiny_config(store, steps=1), tmp_path / "run")
    train(tiny_config(store, steps=3), tmp_path / "run", resume=True)
    assert PolicyContract.load(tmp_path / "run/policy").provenance["training"]["steps"] == 3


def test_a_run_may_start_from_a_policy(store, tmp_path):
    policy = train(tiny_config(store, steps=2), tmp_path / "first")
    still = OptimConfig(batch_size=4, lr=0.0)
    config = tiny_config(store, steps=1, init_from=str(policy), optim=still)
    again = train(config, tmp_path / "second")
    assert same(dict(load_policy(policy)[0].state_dict()), dict(load_policy(again)[0].state_dict()))


def test_a_run_may_start_from_a_policy_that_lacks_one_of_its_heads(store, tmp_path, capsys):
    config = tiny_config(store, steps=1)
    one = replace(config, model=replace(config.model, heads=("regression",)))
    policy = train(one, tmp_path / "first")
    two = replace(config.model, heads=("regression", "flow"))
    still = replace(config, model=two, init_from=str(policy), optim=OptimConfig(batch_size=4, lr=0.0))
    made = dict(load_policy(train(still, tmp_path / "second"))[0].state_dict())
    old = dict(load_policy(policy)[0].state_dict())
    assert same(old, {key: made[key] for key in old})
    assert any(key.startswith("heads.flow.") for key in made)
    assert "begins untrained" in capsys.readouterr().out


def test_a_flow_head_may_learn_to_go_on_from_a_plan_in_a_later_run(store, tmp_path, capsys):
    config = tiny_config(store, steps=1)
    policy = train(config, tmp_path / "first")
    later = replace(config.model, flow_prefix_delay=2)
    again = train(replace(config, model=later, init_from=str(policy)), tmp_path / "second")
    assert "prefix_delay is 2 and was 0" in capsys.readouterr().out
    assert load_policy(again)[0].heads["flow"].config.prefix_delay == 2


def test_an_arm_is_added_to_those_that_a_policy_knew(tmp_path, capsys):
    alone = tmp_path / "alone.zarr"
    arm = make_arm("beta", image_size=SIZE, joints=5)
    with EpisodeStore.create(alone, embodiments=[arm]) as made:
        for seed in range(2):
            rng = np.random.default_rng(seed)
            made.append(
                make_episode(rng, arm, instruction="reach the red square", provenance={"task": "reach"})
            )
    both = fill_store(tmp_path / "both.zarr")
    policy = train(tiny_config(alone, steps=2), tmp_path / "first")
    still = tiny_config(both, steps=1, init_from=str(policy), optim=OptimConfig(batch_size=4, lr=0.0))
    again = train(still, tmp_path / "second")
    assert "arms that" in (said := capsys.readouterr().out)
    assert "begin untrained: alpha" in said
    old, new = (load_policy(path)[0].state_dict()[ARMS] for path in (policy, again))
    assert torch.equal(new[1:], old), "alpha comes before beta"


def test_a_run_without_data_of_an_arm_leaves_it_and_says_so(tmp_path, capsys):
    both, alone = fill_store(tmp_path / "both.zarr"), tmp_path / "alone.zarr"
    arm = make_arm("gamma", image_size=SIZE, joints=5)
    with EpisodeStore.create(alone, embodiments=[arm]) as made:
        words = {"instruction": "reach the red square", "provenance": {"task": "reach"}}
        made.append(make_episode(np.random.default_rng(0), arm, **words))
    policy = train(tiny_config(both, steps=2), tmp_path / "first")
    made = train(tiny_config(alone, steps=1, init_from=str(policy)), tmp_path / "second")
    said = capsys.readouterr().out
    assert "does not know begin untrained: gamma" in said
    assert "will not drive: alpha, beta" in said
    net, contract = load_policy(made)
    assert set(contract.embodiments) == {"gamma"}
    assert len(net.state_dict()[ARMS]) == 1


def test_words_that_a_policy_did_not_know_are_added_to_those_that_it_knew(tmp_path, capsys):
    red, mauve = (fill_store(tmp_path / f"{color}.zarr", color=color) for color in ("red", "mauve"))
    policy = train(tiny_config(red, steps=2), tmp_path / "first")
    sources = (SourceConfig(path=str(red)), SourceConfig(path=str(mauve)))
    still = tiny_config(red, steps=1, init_from=str(policy))
    still = replace(still, data=replace(still.data, sources=sources), optim=OptimConfig(batch_size=4, lr=0.0))
    again = train(still, tmp_path / "second")
    assert "does not know begin untrained: mauve" in capsys.readouterr().out
    (old, before), (new, after) = load_policy(policy), load_policy(again)
    words, grown = before.instruction["vocabulary"], after.instruction["vocabulary"]
    assert grown.index("red") != words.index("red")
    kept = new.state_dict()[WORDS][[grown.index(word) for word in words]]
    assert torch.equal(kept, old.state_dict()[WORDS])


def test_a_time_budget_ends_the_run_and_anneals(store, tmp_path):
    config = tiny_config(store, budget=BudgetConfig(steps=None, minutes=0.01))
    train(config, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["minutes"] >= 0.01
    assert rows[-1]["lr"] < 0.5 * max(row["lr"] for row in rows) or len(rows) < 5


def test_a_truncated_checkpoint_is_refused(store, tmp_path):
    trainer = make_trainer(tiny_config(store))
    trainer.step(share=0.0)
    path = trainer.save(tmp_path)
    (path / "optimizer.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="damaged"):
        trainer.load(path)
    (path / "state.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks .*state.json"):
        trainer.load(path)


def test_a_checkpoint_of_another_network_is_refused(store, tmp_path):
    trainer = make_trainer(tiny_config(store))
    trainer.step(share=0.0)
    path = trainer.save(tmp_path)
    other = tiny_config(store)
    with pytest.raises(CheckpointError, match="does not fit"):
        make_trainer(replace(other, model=replace(other.model, width=64))).load(path)
