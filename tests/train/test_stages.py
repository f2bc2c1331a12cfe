"""Stages: what is frozen stays, what learns is counted, a run cut anywhere goes on to the same weights."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.models.backbones.tiny_vlms import describe
from tests.train.runs import make_trainer, tiny_config, vlm_config
from vla.errors import ConfigError, MissingExtraError, UnknownNameError
from vla.models.lora import LoraConfig
from vla.train.checkpoint import list_checkpoints
from vla.train.config import (
    AugmentConfig,
    BudgetConfig,
    ModelConfig,
    OptimConfig,
    StageConfig,
    TrainConfig,
)
from vla.train.cotrain_config import CotrainConfig
from vla.train.loop import train
from vla.train.stages.parts import part_of
from vla.train.stages.presets import align, tune

FILES = ("model.safetensors", "average.safetensors", "optimizer.safetensors")
TWO = BudgetConfig(steps=2)


def two_stages(store: Path, **changes) -> TrainConfig:
    slow = OptimConfig(batch_size=4, lr=1e-4, warmup_steps=1, backbone_lr_factor=0.5, ema_decay=0.9)
    stages = (align(TWO), tune(TWO, optim=slow, augment=AugmentConfig(shift_px=0)))
    return tiny_config(store, stages=stages, **changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = list_checkpoints(run / "checkpoints")[-1]
    return {f"{file}/{name}": value for file in FILES for name, value in load_file(newest / file).items()}


def saving_each_step(store: Path) -> TrainConfig:
    return two_stages(store, checkpoint_minutes=0.0, keep_checkpoints=9, cotrain=CotrainConfig(batch_size=4))


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def uninterrupted(named_store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    run = tmp_path_factory.mktemp("whole") / "run"
    train(saving_each_step(named_store), run)
    return weights(run)


@pytest.mark.parametrize("at", [1, 2, 3], ids=["inside the first", "between", "inside the second"])
def test_a_run_killed_in_or_between_stages_goes_on_to_the_same_bits(named_store, uninterrupted, tmp_path, at):
    def kill(_policy, step, _last):
        if step == at:
            raise Killed

    config = saving_each_step(named_store)
    with pytest.raises(Killed):
        train(config, tmp_path, on_checkpoint=kill)
    train(config, tmp_path, resume=True)
    parts = weights(tmp_path)
    assert uninterrupted.keys() == parts.keys()
    assert all(torch.equal(uninterrupted[name], parts[name]) for name in parts)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == [0, 0, 1, 1]
    assert rows[-1]["share"] == 1.0


def test_what_a_stage_freezes_stays_and_what_it_does_not_learns(store):
    trainer = make_trainer(two_stages(store))
    for stage, moves in ((0, False), (1, True)):
        before = {name: value.clone() for name, value in trainer.net.named_parameters()}
        for _ in range(2):
            trainer.step(share=0.0)
        changed = {
            part_of(n, trainer.net)
            for n, p in trainer.net.named_parameters()
            if not torch.equal(p, before[n])
        }
        assert trainer.stage_index == stage
        assert {"projector", "trunk", "heads", "embodiment"} <= changed
        assert ({"vision", "language"} <= changed) is moves
    assert trainer.finished


def test_each_stage_has_its_own_rates_and_a_fresh_optimizer(store):
    trainer = make_trainer(two_stages(store))
    for _ in range(2):
        trainer.step(share=0.0)
    assert trainer.between_stages
    assert trainer.share == 0.0
    row = trainer.step(share=0.0)
    assert row["lr"] == pytest.approx(1e-4)
    assert sorted(group["lr"] for group in trainer.optimizer.param_groups) == pytest.approx([5e-5, 1e-4])
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {1}
    assert trainer.average.decay == 0.9


def test_what_learns_is_counted_and_recorded(store, tmp_path):
    config = two_stages(store)
    train(config, tmp_path / "run")
    first, second = json.loads((tmp_path / "run/run.json").read_text())["stages"]
    assert (first["name"], second["name"]) == ("align", "tune")
    assert first["parts"]["vision"][0] == first["parts"]["language"][0] == 0
    assert first["parts"]["heads"][0] == first["parts"]["heads"][1] > 0
    total = sum(p.numel() for p in make_trainer(config).net.parameters())
    assert first["learning"] + first["frozen"] == second["learning"] == total
    assert second["frozen"] == 0


def test_a_run_of_an_older_version_resumes(store, tmp_path):
    config = tiny_config(store, steps=4, keep_checkpoints=9, checkpoint_minutes=0.0)
    train(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "old")
    run = json.loads((tmp_path / "old/run.json").read_text())
    for key in ("stages", "cotrain"):
        del run["config"][key]
    del run["stages"], run["config"]["model"]["vlm"]
    (tmp_path / "old/run.json").write_text(json.dumps(run))
    shutil.rmtree(tmp_path / "old/checkpoints/000003")
    shutil.rmtree(tmp_path / "old/checkpoints/000004")
    path = tmp_path / "old/checkpoints/000002/state.json"
    state = json.loads(path.read_text())
    for key in ("stage", "first_step", "first_minute"):
        del state[key]
    path.write_text(json.dumps(state))
    train(config, tmp_path / "old", resume=True)
    whole, old = weights(tmp_path / "whole"), weights(tmp_path / "old")
    assert all(torch.equal(whole[name], old[name]) for name in whole)


def test_contradictions_are_refused(store):
    with pytest.raises(UnknownNameError, match="Did you mean 'language'"):
        StageConfig(name="a", budget=TWO, frozen=("langage",))
    with pytest.raises(ConfigError, match="names of their own"):
        TrainConfig(stages=(align(TWO), align(TWO)))
    with pytest.raises(ConfigError, match="batch size is the run's"):
        TrainConfig(stages=(align(TWO, optim=OptimConfig(batch_size=7)),))
    parts = ("backbone", "embodiment", "projector", "trunk", "heads")
    with pytest.raises(ConfigError, match="Nothing is left to learn"):
        make_trainer(tiny_config(store, stages=(align(TWO, frozen=parts),)))


def test_a_backbone_with_adapters_is_aligned_then_tuned(store, smolvlm, tmp_path):
    vlm = {"freeze": "all", "lora": LoraConfig(rank=2)}
    config = vlm_config(store, smolvlm, vlm=vlm, stages=(align(TWO), tune(TWO)), checkpoint_minutes=0.0)
    train(config, tmp_path / "run")
    first, second = json.loads((tmp_path / "run/run.json").read_text())["stages"]
    assert (
        first["parts"]["adapters"][0] == 0 < second["parts"]["adapters"][0] == second["parts"]["adapters"][1]
    )
    assert all(
        stage["parts"][part][0] == 0
        for stage in (first, second)
        for part in ("vision", "language", "connector")
    )
    assert first["parts"]["embodiment"][0] > 0
    old, new = (load_file(path / FILES[0]) for path in list_checkpoints(tmp_path / "run/checkpoints")[-2:])
    changed = {name for name in new if not torch.equal(old[name], new[name])}
    assert all(".lora_" in name for name in changed if name.startswith("backbone.vlm."))
    assert any(".lora_" in name for name in changed)


def test_a_backbone_with_convolutions_in_time_trains(store, tmp_path):
    model = describe("qwen2_5_vl", tmp_path / "qwen")
    trainer = make_trainer(vlm_config(store, model, vlm={"pretrained": False}))
    rows = [trainer.step(share=0.1) for _ in range(2)]
    assert all(torch.tensor(row["loss"]).isfinite() for row in rows)
    parts = trainer.describe_stages()[0]["parts"]
    assert all(parts[part][0] == parts[part][1] > 0 for part in ("vision", "connector", "language"))


def test_gradient_checkpointing_gives_the_same_gradients(store, smolvlm, monkeypatch):
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", lambda *_, **__: None)
    found = []
    for recompute in (False, True):
        trainer = make_trainer(vlm_config(store, smolvlm, vlm={"gradient_checkpointing": recompute}))
        calls = count_layer_calls(trainer)
        trainer.step(share=0.0)
        found.append(({name: p.grad for name, p in trainer.net.named_parameters()}, len(calls)))
    (plain, once), (again, more) = found
    assert more > once  # layers really ran once more
    worst = max(float((plain[name] - again[name]).abs().max()) for name in plain)
    assert worst <= 1e-6


def count_layer_calls(trainer) -> list[int]:
    calls: list[int] = []
    for layer in trainer.net.backbone.vlm.text_model.layers:
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_four_bits_without_the_library_are_refused_with_the_remedy(store, smolvlm, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"vla\[quant\]"):
        make_trainer(vlm_config(store, smolvlm, vlm={"four_bit": True}))


def test_a_pretrained_backbone_says_what_it_cannot_be_trained_with(store, smolvlm):
    config = vlm_config(store, smolvlm)
    for changes, match in (
        ({"model": replace(config.model, locate_by_sight=True)}, "no keypoint tokens"),
        ({"augment": AugmentConfig(word_dropout=0.1)}, "word_dropout to 0"),
        ({"model": replace(config.model, vlm=None)}, "needs model.vlm"),
        ({"model": ModelConfig(vlm=config.model.vlm)}, "for pretrained backbones"),
    ):
        with pytest.raises(ConfigError, match=match):
            make_trainer(replace(config, **changes))
