"""Reading is strict, and what is read is written back as it was."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.lerobot import tiny
from vla.errors import CheckpointError, ConfigError, DivergenceError, StatisticsError, UnknownNameError
from vla.models.lerobot import load_lerobot

EMBEDDING = "model.paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
kinds = pytest.mark.parametrize("kind", tiny.KINDS)


def load(kind, directory):
    return load_lerobot(directory, vision_heads=tiny.VISION_HEADS[kind])


def change_weights(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@kinds
def test_a_round_trip_gives_the_same_bytes_and_the_same_json(tmp_path, kind):
    source = tiny.write(kind, tmp_path / "a")
    load(kind, source).save(tmp_path / "b")
    names = {path.name for path in source.iterdir() if path.is_file()}
    assert names == {path.name for path in (tmp_path / "b").iterdir() if path.is_file()}
    for name in names:
        assert (source / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_saved_copy_loads_and_acts_the_same(tmp_path):
    first = load("smolvla", tiny.write("smolvla", tmp_path / "a"))
    first.save(tmp_path / "b")
    second = load("smolvla", tmp_path / "b")
    chunks = [c.chunk(tiny.batch(), tiny.noise("smolvla"))[0] for c in (first, second)]
    assert torch.equal(*chunks)


def test_half_precision_weights_run_in_float32_and_are_saved_as_they_were(tmp_path):
    source = tiny.write("pi0", tmp_path / "a")
    name = "model.state_proj.weight"
    change_weights(source, lambda tensors: tensors.update({name: tensors[name].bfloat16()}))
    checkpoint = load("pi0", source)
    assert checkpoint.net.state_proj.weight.dtype == torch.float32
    checkpoint.save(tmp_path / "b")
    assert (source / "model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_a_file_with_only_the_tied_head_gives_the_embedding(tmp_path):
    source = tiny.write("pi05", tmp_path / "a")
    change_weights(source, lambda tensors: tensors.pop(EMBEDDING))
    checkpoint = load("pi05", source)
    head = load_file(source / "model.safetensors")["model.paligemma_with_expert.paligemma.lm_head.weight"]
    assert torch.equal(checkpoint.net.body.language_model.embed_tokens.weight, head)
    checkpoint.save(tmp_path / "b")
    assert (source / "model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def drop(tensors):
    del tensors["model.action_in_proj.bias"]


def add(tensors):
    tensors["model.extra.weight"] = torch.zeros(2)


def add_outside(tensors):
    tensors["extra.weight"] = torch.zeros(2)


def reshape(tensors):
    tensors["model.action_out_proj.bias"] = torch.zeros(3)


@kinds
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, "1 missing"),
        (add, "1 unknown"),
        (add_outside, "Unknown weights"),
        (reshape, "1 of another shape"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, kind, change, said):
    source = tiny.write(kind, tmp_path)
    change_weights(source, change)
    with pytest.raises(CheckpointError, match=said):
        load(kind, source)


def test_a_weight_that_is_not_finite_is_refused(tmp_path):
    source = tiny.write("smolvla", tmp_path)
    change_weights(source, lambda tensors: tensors["model.state_proj.bias"].fill_(float("nan")))
    with pytest.raises(DivergenceError, match=r"state_proj\.bias"):
        load("smolvla", source)


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        load_lerobot(tmp_path)
    source = tiny.write("smolvla", tmp_path / "a")
    (source / "model.safetensors").write_bytes(b"\x10" * 40)
    with pytest.raises(CheckpointError, match="damaged"):
        load_lerobot(source)


def test_an_unknown_kind_and_an_unknown_key_are_refused_with_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="pi05, smolvla"):
        load_lerobot(tiny.write("smolvla", tmp_path / "a", type="act"))
    with pytest.raises(UnknownNameError, match="chunk_size"):
        load_lerobot(tiny.write("smolvla", tmp_path / "b", chunk_sise=4))


def test_a_missing_key_is_named(tmp_path):
    source = tiny.write("pi0", tmp_path)
    config = tiny.config("pi0")
    del config["max_period"]
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="max_period"):
        load("pi0", source)


@pytest.mark.parametrize(
    "change",
    [
        {"use_peft": True},
        {"adapt_to_pi_aloha": True},
        {"add_image_special_tokens": True},
        {"rtc_config": {"enabled": True}},
        {"num_expert_layers": 2},
        {"n_obs_steps": 2},
    ],
)
def test_options_that_are_not_reproduced_are_refused(tmp_path, change):
    with pytest.raises(ConfigError, match="not reproduced"):
        load_lerobot(tiny.write("smolvla", tmp_path, **change))


def test_an_unknown_vision_tower_asks_for_its_heads(tmp_path):
    with pytest.raises(CheckpointError, match="vision_heads="):
        load_lerobot(tiny.write("pi0", tmp_path))


def test_an_unknown_language_model_asks_for_its_folder(tmp_path):
    source = tiny.write("smolvla", tmp_path / "a", vlm_model_name="somebody/else")
    with pytest.raises(CheckpointError, match="vlm="):
        load_lerobot(source)
    assert load_lerobot(source, vlm=tiny.write_vlm(tmp_path / "vlm")).tokenizer is not None


def test_missing_statistics_raise_when_the_policy_is_read(tmp_path):
    source = tiny.write("smolvla", tmp_path)
    path = source / "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    save_file({"action.mean": torch.zeros(6)}, path)
    with pytest.raises(StatisticsError, match=r"action\.std"):
        load("smolvla", source)
    path.unlink()
    with pytest.raises(StatisticsError, match="missing"):
        load("smolvla", source)


def test_statistics_of_another_size_raise(tmp_path):
    source = tiny.write("smolvla", tmp_path)
    path = source / "policy_preprocessor_step_5_normalizer_processor.safetensors"
    save_file(tiny.statistics("smolvla") | {"action.mean": torch.zeros(7)}, path)
    with pytest.raises(StatisticsError, match=r"\(7,\)"):
        load("smolvla", source)


def test_a_pipeline_without_a_normaliser_raises(tmp_path):
    source = tiny.write("pi05", tmp_path)
    path = source / "policy_preprocessor.json"
    data = json.loads(path.read_text())
    data["steps"] = [step for step in data["steps"] if step["registry_name"] != "normalizer_processor"]
    path.write_text(json.dumps(data))
    with pytest.raises(StatisticsError, match=r"observation\.state"):
        load("pi05", source)


def test_without_processors_only_prepared_inputs_run(tmp_path):
    checkpoint = load("smolvla", tiny.write("smolvla", tmp_path, processors=False))
    with pytest.raises(StatisticsError, match="nobody knows the units"):
        checkpoint.chunk(tiny.batch(), tiny.noise("smolvla"))


def test_statistics_inside_older_weights_are_moved_into_processors(tmp_path):
    source = tiny.write("smolvla", tmp_path / "old", processors=False)
    today = load("smolvla", tiny.write("smolvla", tmp_path / "today"))

    def bury(tensors):
        for name, value in tiny.statistics("smolvla").items():
            feature, statistic = name.rsplit(".", 1)
            side = "unnormalize_outputs" if feature == "action" else "normalize_inputs"
            tensors[f"{side}.buffer_{feature.replace('.', '_')}.{statistic}"] = value

    change_weights(source, bury)
    old = load("smolvla", source)
    expected = today.chunk(tiny.batch(), tiny.noise("smolvla"))[0]
    assert torch.equal(old.chunk(tiny.batch(), tiny.noise("smolvla"))[0], expected)
    old.save(tmp_path / "new")
    assert torch.equal(
        load("smolvla", tmp_path / "new").chunk(tiny.batch(), tiny.noise("smolvla"))[0], expected
    )
