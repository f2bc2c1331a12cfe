"""Fine-tuning follows ``config.json`` and its result is a checkpoint like the one it began with."""

import pytest
import torch

from tests.models.lerobot import reference, tiny
from vla.errors import CheckpointError, DivergenceError
from vla.models.lerobot import load_lerobot
from vla.models.lerobot.training import FineTuning, learning_names

kinds = pytest.mark.parametrize("kind", tiny.KINDS)


def load(kind, directory, **changes):
    return load_lerobot(tiny.write(kind, directory, **changes), vision_heads=tiny.VISION_HEADS[kind])


def processed(kind, checkpoint):
    batch = {"action": tiny.noise(kind, seed=5)[..., :6]}
    if kind == "smolvla":
        return {**checkpoint.prepare(tiny.batch())[1], **batch}
    raw = tiny.batch()
    words = {
        "observation.language.tokens": torch.tensor([[3, 4, 5], [6, 7, 0]]),
        "observation.language.attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool),
    }
    return {**raw, **words, **batch}


@kinds
def test_two_steps_begin_at_the_reference_loss_and_lower_it(tmp_path, kind):
    checkpoint = load(kind, tmp_path, scheduler_warmup_steps=0, optimizer_lr=1e-3)
    batch, noise, time = processed(kind, checkpoint), tiny.noise(kind), torch.tensor([0.3, 0.9])
    tuning = FineTuning(checkpoint)
    losses = [tuning.step(batch, noise, time) for _ in range(3)]
    expected = reference.loss(
        kind, tiny.weights(kind), checkpoint.inputs(batch), batch["action"], noise, time
    )
    assert losses[0] == pytest.approx(float(expected), abs=1e-5)
    assert losses[2] < losses[1] < losses[0]


@kinds
def test_what_is_frozen_stays_and_the_rest_is_saved_and_loads(tmp_path, kind):
    checkpoint = load(kind, tmp_path / "a", train_expert_only=True, scheduler_warmup_steps=0)
    before = {name: value.clone() for name, value in checkpoint.net.state_dict().items()}
    tuning = FineTuning(checkpoint)
    tuning.step(processed(kind, checkpoint))
    checkpoint.save(tmp_path / "b")
    again = load_lerobot(tmp_path / "b", vision_heads=tiny.VISION_HEADS[kind]).net.state_dict()
    learning = set(learning_names(checkpoint))
    assert learning
    assert learning < set(before)
    assert not any("vision" in name or "embed_tokens" in name for name in learning)
    for name, value in before.items():
        assert torch.equal(again[name], checkpoint.net.state_dict()[name])
        if name not in learning:
            assert torch.equal(again[name], value), name
    assert not torch.equal(again["action_in_proj.weight"], before["action_in_proj.weight"])


def test_smolvla_learns_all_but_the_last_layer_where_the_config_says_so(tmp_path):
    checkpoint = load("smolvla", tmp_path, train_expert_only=False, freeze_vision_encoder=False)
    learning = set(learning_names(checkpoint))
    text = "vlm_with_expert.vlm.model.text_model."
    frozen = {name for name, _ in checkpoint.net.named_parameters()} - learning
    assert frozen
    assert all(name.startswith((f"{text}norm", f"{text}layers.3.")) for name in frozen)


def test_the_rate_warms_up_and_decays_to_its_end(tmp_path):
    tuning = FineTuning(
        load("smolvla", tmp_path, scheduler_warmup_steps=9, scheduler_decay_steps=100, optimizer_lr=1e-3)
    )
    rates = []
    for step in (0, 8, 100, 1000):
        tuning.num_steps = step
        rates.append(tuning.rate())
    assert rates == pytest.approx([1e-4, 9e-4, 2.5e-6, 2.5e-6])


def test_a_config_without_a_recipe_and_a_loss_that_is_not_finite_are_refused(tmp_path):
    checkpoint = load("smolvla", tmp_path)
    tuning, batch = FineTuning(checkpoint), processed("smolvla", checkpoint)
    before = checkpoint.net.action_in_proj.weight.detach().clone()
    with pytest.raises(DivergenceError, match="Step 0"):
        tuning.step(batch | {"action": torch.full((2, 10, 6), float("inf"))})
    assert torch.equal(before, checkpoint.net.action_in_proj.weight)
    lacking = dict(checkpoint.config.raw)
    del lacking["optimizer_lr"]
    object.__setattr__(checkpoint.config, "raw", lacking)
    with pytest.raises(CheckpointError, match="optimizer_lr"):
        FineTuning(checkpoint)
