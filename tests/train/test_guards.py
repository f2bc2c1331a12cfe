"""What a run refuses: divergence, half an optimizer, a foreign start, other data, a second process."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.data.worlds import make_arm, make_episode
from tests.train.runs import SIZE, fill_store, make_trainer, tiny_config
from vla.data.store import EpisodeStore
from vla.errors import CheckpointError, DivergenceError, IncompatibleError, VlaError
from vla.files import exclusive
from vla.models.saving import save_policy
from vla.train.loop import train
from vla.train.setup import draft_contract, open_data
from vla.train.start import load_start
from vla.train.trainer import Trainer


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [value.clone() for value in (*trainer.net.state_dict().values(), *trainer.average.values)]


def start_at(trainer: Trainer, directory: Path) -> str:
    config = trainer.config
    save_policy(directory, trainer.averaged_weights(), draft_contract(config, open_data(config.data), {}))
    return str(directory)


def add_episode(store: Path, instruction: str = "reach the red square") -> None:
    arm = make_arm("alpha", image_size=SIZE)
    with EpisodeStore.open(store) as opened:
        opened.append(make_episode(np.random.default_rng(9), arm, instruction=instruction))


@pytest.mark.parametrize("part", ["regression", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_says_what_broke(store, monkeypatch, part):
    trainer = make_trainer(tiny_config(store))
    trainer.step(share=0.0)
    before, loss = weights(trainer), trainer.net.loss

    def broken(*given):
        total, parts = loss(*given)
        if part == "gradient":
            total.register_hook(lambda gradient: gradient * torch.inf)
        else:
            total = total * torch.nan
            parts["regression"] = total.detach()
        return total, parts

    monkeypatch.setattr(trainer.net, "loss", broken)
    with pytest.raises(DivergenceError, match=f"at step 1: .*{part}"):
        trainer.step(share=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trainer), strict=True))
    assert trainer.step_index == 1


def test_weights_that_are_not_finite_are_not_saved(store, tmp_path):
    trainer = make_trainer(tiny_config(store))
    trainer.step(share=0.0)
    start_at(trainer, tmp_path / "policy")
    good = (tmp_path / "policy/model.safetensors").read_bytes()
    trainer.average.values[0].view(-1)[0] = torch.nan
    with pytest.raises(DivergenceError, match="not finite"):
        trainer.save(tmp_path / "checkpoints")
    with pytest.raises(DivergenceError, match="Refusing to save 1 weights"):
        start_at(trainer, tmp_path / "policy")
    assert not (tmp_path / "checkpoints").exists()
    assert (tmp_path / "policy/model.safetensors").read_bytes() == good


@pytest.mark.parametrize("key", ["step", "exp_avg", "exp_avg_sq"])
def test_an_optimizer_state_with_a_gap_is_refused(store, tmp_path, key):
    trainer = make_trainer(tiny_config(store))
    trainer.step(share=0.0)
    file = trainer.save(tmp_path) / "optimizer.safetensors"
    tensors = load_file(file)
    gap = next(name for name in tensors if name.endswith(f"/{key}"))
    save_file({name: value for name, value in tensors.items() if name != gap}, file)
    with pytest.raises(CheckpointError, match=f"lacks .*{gap}"):
        make_trainer(tiny_config(store)).load(file.parent)


def test_a_start_that_means_something_else_is_refused_with_every_reason(store, tmp_path):
    start = start_at(make_trainer(tiny_config(store)), tmp_path / "policy")
    other = tmp_path / "other.zarr"
    arm = replace(make_arm("alpha", image_size=SIZE), control_hz=20.0)
    with EpisodeStore.create(other, embodiments=[arm]) as made:
        made.append(make_episode(np.random.default_rng(0), arm, instruction="lift the mauve square"))
    config = tiny_config(other)
    config = replace(config, model=replace(config.model, state_slots=("arm0.tcp_position",), width=64))
    with EpisodeStore.open(other) as opened:
        contract = draft_contract(config, [opened], {})
    with pytest.raises(IncompatibleError) as caught:
        load_start(start, contract)
    for reason in (
        "20 Hz",
        "never say: blue, reach",
        "state_slots",
        "width 32",
    ):
        assert reason in str(caught.value)


def test_a_start_of_the_same_kind_is_accepted_though_its_losses_were_weighted_otherwise(store, tmp_path):
    config = tiny_config(store)
    start = start_at(make_trainer(config), tmp_path / "policy")
    config = replace(config, model=replace(config.model, keypoint_weight=0.0, state_dropout=0.0))
    with EpisodeStore.open(store) as opened:
        assert load_start(start, draft_contract(config, [opened], {}))


def test_a_run_does_not_resume_on_other_data(tmp_path):
    store = fill_store(tmp_path / "demos.zarr")
    train(tiny_config(store, steps=1), tmp_path / "run")
    add_episode(store)
    with pytest.raises(IncompatibleError, match=r"num_episodes 6 then, 7 now[\s\S]*index_crc32c"):
        train(tiny_config(store, steps=2), tmp_path / "run", resume=True)


def test_a_run_begun_before_data_were_pinned_resumes_if_its_episodes_are_as_many(tmp_path):
    store = fill_store(tmp_path / "demos.zarr")
    train(tiny_config(store, steps=1), tmp_path / "run")
    path = tmp_path / "run/contract.json"
    contract = json.loads(path.read_text())
    for key in ("num_episodes", "index_crc32c"):
        del contract["provenance"]["data"][0][key]
    path.write_text(json.dumps(contract))
    train(tiny_config(store, steps=2), tmp_path / "run", resume=True)
    add_episode(store)
    with pytest.raises(IncompatibleError, match="episodes"):
        train(tiny_config(store, steps=3), tmp_path / "run", resume=True)


@pytest.mark.parametrize("file", ["run.json", "contract.json"])
def test_a_damaged_file_of_a_run_is_named_with_the_remedy(store, tmp_path, file):
    train(tiny_config(store, steps=1), tmp_path / "run")
    (tmp_path / "run" / file).write_text('{"cut')
    with pytest.raises(CheckpointError, match=f"{file} is damaged.*Start a new run directory"):
        train(tiny_config(store, steps=2), tmp_path / "run", resume=True)


def test_a_second_process_may_not_train_in_the_same_directory(store, tmp_path):
    with (
        exclusive(tmp_path / "run", "training"),
        pytest.raises(VlaError, match=r"Not training in .*run: another process"),
    ):
        train(tiny_config(store, steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
