"""Each processor step does what lerobot's does, and what is missing is said."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.models.lerobot import tiny
from vla.errors import CheckpointError, ObservationError, UnknownNameError
from vla.models.lerobot import load_lerobot
from vla.models.lerobot.images import resize_padded
from vla.models.lerobot.processors import Pipeline, Step

FEATURES = {
    "observation.state": {"type": "STATE", "shape": [3]},
    "action": {"type": "ACTION", "shape": [3]},
}


def normaliser(mode, **tensors):
    config = {"eps": 1e-8, "features": FEATURES, "norm_map": {"STATE": mode, "ACTION": mode}}
    named = {f"{key}.{name}": torch.tensor(value) for key in FEATURES for name, value in tensors.items()}
    return Step("normalizer_processor", config, named)


def words():
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(tiny.WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


@pytest.mark.parametrize(
    ("mode", "names", "expected"),
    [
        ("MEAN_STD", ("mean", "std"), [-0.25, 0.0, 1.0]),
        ("MIN_MAX", ("min", "max"), [-1.5, -1.0, 1.0]),
        ("QUANTILES", ("q01", "q99"), [-1.5, -1.0, 1.0]),
        ("QUANTILE10", ("q10", "q90"), [-1.5, -1.0, 1.0]),
    ],
)
def test_each_mode_scales_by_its_statistics_and_back(mode, names, expected):
    low, high = [1.0, 1.0, 1.0], [4.0, 4.0, 2.0] if mode == "MEAN_STD" else [5.0, 5.0, 2.0]
    if mode == "MEAN_STD":
        expected = [-0.25, 0.0, 0.5]
    step = normaliser(mode, **{names[0]: low, names[1]: high})
    value = torch.tensor([[0.0, 1.0, 2.0]])
    scaled = step.scale("action", "ACTION", value, inverse=False)
    torch.testing.assert_close(scaled, torch.tensor([expected]))
    torch.testing.assert_close(step.scale("action", "ACTION", scaled, inverse=True), value)


def test_a_span_of_nothing_does_not_divide_by_zero():
    step = normaliser("MIN_MAX", min=[1.0, 1.0, 1.0], max=[1.0, 1.0, 1.0])
    scaled = step.scale("action", "ACTION", torch.ones(1, 3), inverse=False)
    torch.testing.assert_close(scaled, -torch.ones(1, 3))


def test_unknown_steps_keys_and_modes_are_refused():
    with pytest.raises(UnknownNameError, match="tokenizer_processor"):
        Step("tokeniser_processor", {})
    with pytest.raises(UnknownNameError, match="rename_map"):
        Step("rename_observations_processor", {"rename_map": {}, "rename": {}})
    with pytest.raises(CheckpointError, match="rename_map"):
        Step("rename_observations_processor", {})
    with pytest.raises(UnknownNameError, match="MIN_MAX"):
        normaliser("MIN_MAXX", min=[0.0] * 3, max=[1.0] * 3)


def test_pi05_writes_the_state_into_the_prompt():
    pipeline = Pipeline("pre", (Step("pi05_prepare_state_tokenizer_processor_step", {}),))
    state = torch.tensor([[-1.0, 0.0, 0.999, 1.7, -1.2]])
    done = pipeline({"observation.state": state, "task": [" pick_up the cube\n"]})
    bins = np.digitize(state.numpy(), bins=np.linspace(-1, 1, 257)[:-1]) - 1  # lerobot's own line
    assert bins.tolist() == [[0, 128, 255, 255, -1]]
    assert done["task"] == ["Task: pick up the cube, State: 0 128 255 255 -1;\nAction: "]


def test_relative_actions_and_back():
    config = {"enabled": True, "exclude_joints": ["gripper"], "action_names": ["a", "b", "left_Gripper"]}
    before = Pipeline("pre", (Step("relative_actions_processor", config),))
    after = Pipeline("post", (Step("absolute_actions_processor", {"enabled": True}),))
    batch = {"observation.state": torch.tensor([[1.0, 2.0, 3.0]]), "action": torch.ones(1, 4, 3)}
    done = before(batch)
    assert done["action"][0, 0].tolist() == [0.0, -1.0, 1.0]
    assert torch.equal(after(done)["action"], batch["action"])


def test_renaming_and_the_newline():
    steps = (
        Step("rename_observations_processor", {"rename_map": {"front": "observation.images.cam0"}}),
        Step("smolvla_new_line_processor", {}),
    )
    done = Pipeline("pre", steps)({"front": 1, "task": ["go", "stop\n"]})
    assert done == {"observation.images.cam0": 1, "task": ["go\n", "stop\n"]}


def test_prompts_are_padded_to_one_length_when_asked_and_cut_ones_are_reported():
    config = {
        "max_length": 4,
        "task_key": "task",
        "padding_side": "right",
        "padding": "longest",
        "truncation": True,
    }
    pipeline = Pipeline("pre", (Step("tokenizer_processor", config),))
    batch = {"task": ["pick up", "push"]}
    assert pipeline(batch, words())["observation.language.tokens"].tolist() == [[2, 3], [4, 0]]
    done = pipeline(batch, words(), static=True)
    assert done["observation.language.tokens"].shape == (2, 4)
    assert done["observation.language.attention_mask"].sum(1).tolist() == [2, 1]
    cut = pipeline({"task": ["pick up", "pick up the red cube"]}, words())
    assert cut["task_truncated"] == [False, True]


def test_a_missing_tokenizer_says_what_to_give():
    steps = tiny.pipelines("pi0")["policy_preprocessor"]
    (config,) = [step["config"] for step in steps if step["registry_name"] == "tokenizer_processor"]
    with pytest.raises(ObservationError, match=r"paligemma.*tokenizer="):
        Pipeline("pre", (Step("tokenizer_processor", config),))({"task": ["go"]})


def test_smolvla_pads_left_and_top_and_pi_on_both_sides():
    image = torch.ones(1, 3, 20, 40)
    left = resize_padded(image, 32, 32, centred=False)
    both = resize_padded(image, 32, 32, centred=True)
    assert left.shape == both.shape == (1, 3, 32, 32)
    assert (left[0, 0, :16] == -1).all()  # 16 rows are missing
    assert (left[0, 0, 16:] == 1).all()
    assert (both[0, 0, :8] == -1).all()
    assert (both[0, 0, 8:24] == 1).all()
    assert (both[0, 0, 24:] == -1).all()


def test_a_camera_may_only_be_absent_where_the_policy_says_so(tmp_path):
    batch = tiny.batch()
    del batch["observation.images.cam1"]
    strict = load_lerobot(tiny.write("smolvla", tmp_path / "a"))
    with pytest.raises(ObservationError, match="cam1"):
        strict.prepare(batch)
    lenient = load_lerobot(tiny.write("smolvla", tmp_path / "b", empty_cameras=1))
    inputs, _ = lenient.prepare(batch)
    assert inputs.image_mask.tolist() == [[True, False]] * 2
    assert (inputs.images[:, 1] == -1).all()


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_raw_observations_become_actions_in_the_robots_units(tmp_path, kind):
    vlm = tiny.write_vlm(tmp_path / "words")
    heads = tiny.VISION_HEADS[kind]
    checkpoint = load_lerobot(tiny.write(kind, tmp_path / "a"), tokenizer=vlm, vision_heads=heads)
    actions, _ = checkpoint.chunk(tiny.batch(), tiny.noise(kind))
    inputs, _ = checkpoint.prepare(tiny.batch())
    normal = checkpoint.net.sample(inputs, tiny.noise(kind))[..., :6]
    low, high = (tiny.statistics(kind)[f"action.{n}"] for n in tiny.STATISTICS[_mode(kind)])
    expected = normal * high + low if kind != "pi05" else (normal + 1) / 2 * (high - low) + low
    torch.testing.assert_close(actions, expected)


def _mode(kind):
    return tiny.config(kind)["normalization_mapping"]["ACTION"]
