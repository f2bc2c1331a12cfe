"""A policy directory is one and the same thing for vla and for transformers."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

import vla.models.auto
from vla.errors import ConfigError, ContractError, ObservationError, UnknownNameError
from vla.models.auto import VlaConfig, VlaModel, VlaProcessor
from vla.models.saving import load_policy, transformers_files
from vla.types import Observation
from vla_policies.learned import SHIPPED, LearnedPolicy

TASK = vla.models.auto.TASK
WORDS = "put the red cube on the blue plate"


@pytest.fixture(scope="module")
def learned():
    return LearnedPolicy.load()


@pytest.fixture(scope="module")
def observation(learned):
    arm = learned.contract.embodiments["panda"]
    rng = np.random.default_rng(0)
    size = learned.contract.image_size
    return Observation(
        images={c.name: rng.integers(0, 256, (size, size, 3), np.uint8) for c in arm.cameras},
        state={
            f.name: np.array([0.3 * a + 0.7 * b for a, b in zip(f.low, f.high, strict=True)], np.float32)
            for f in arm.state
        },
        instruction=WORDS,
        embodiment="panda",
    )


@pytest.fixture(scope="module")
def pipe():
    return pipeline(TASK, model=str(SHIPPED), device="cpu")


def test_three_lines_give_the_chunk_of_the_learned_policy(pipe, learned, observation):
    chunk = pipe(observation.images, WORDS, state=observation.state, embodiment="panda")
    expected = learned.act([observation])[0]
    np.testing.assert_array_equal(chunk.actions, expected.actions)
    assert chunk.control_hz == expected.control_hz
    assert chunk.info["unknown_words"] == expected.info["unknown_words"]


def test_observations_come_alone_or_in_a_list_and_heads_can_be_chosen(pipe, learned, observation):
    one, two = pipe([observation, observation])
    np.testing.assert_array_equal(one.actions, two.actions)
    np.testing.assert_array_equal(pipe(observation).actions, one.actions)
    head = learned.contract.heads[-1]
    expected = LearnedPolicy(learned.net, learned.contract, head=head).act([observation])[0]
    np.testing.assert_array_equal(pipe(observation, head=head).actions, expected.actions)


def test_without_a_state_the_network_is_told_that_there_is_none(pipe, learned, observation):
    chunk = pipe(observation.images, WORDS, embodiment="panda")
    inputs = pipe.vla_processor(
        [Observation(images=observation.images, state={}, instruction=WORDS, embodiment="panda")]
    )
    assert not inputs["state_mask"].any()
    assert np.isfinite(chunk.actions).all()
    with_state = pipe(observation)
    assert not np.array_equal(chunk.actions, with_state.actions)


def test_what_is_not_said_or_not_known_raises(pipe, observation):
    with pytest.raises(ObservationError, match="embodiment="):
        pipe(observation.images, WORDS)
    with pytest.raises(UnknownNameError, match="panda"):
        pipe(observation.images, WORDS, embodiment="pandas")
    with pytest.raises(ObservationError, match="instruction"):
        pipe(observation.images, embodiment="panda")
    with pytest.raises(ObservationError, match="camera"):
        pipe({}, WORDS, state=observation.state, embodiment="panda")
    with pytest.raises(ObservationError, match="already"):
        pipe(observation, WORDS)


def test_auto_classes_find_ours_and_save_what_vla_loads(tmp_path, learned):
    model, processor = AutoModel.from_pretrained(SHIPPED), AutoProcessor.from_pretrained(SHIPPED)
    assert isinstance(model, VlaModel)
    assert isinstance(processor, VlaProcessor)
    assert isinstance(AutoConfig.from_pretrained(SHIPPED), VlaConfig)
    model.save_pretrained(tmp_path / "copy")
    processor.save_pretrained(tmp_path / "copy")
    net, contract = load_policy(tmp_path / "copy")
    assert contract == learned.contract
    again = AutoModel.from_pretrained(tmp_path / "copy").net.state_dict()
    for state in (net.state_dict(), again):
        assert all(torch.equal(value, state[name]) for name, value in learned.net.state_dict().items())


def test_the_shipped_policy_has_the_files_that_transformers_reads(learned):
    for name, text in transformers_files(learned.contract).items():
        assert json.loads((SHIPPED / name).read_text()) == json.loads(text)


def test_weights_without_their_contract_do_not_load(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "copy")
    (tmp_path / "copy" / "policy.json").unlink()
    with pytest.raises(ContractError, match=r"policy\.json is missing"):
        AutoModel.from_pretrained(tmp_path / "copy")


def test_a_config_of_another_network_is_refused(tmp_path):
    shutil.copytree(SHIPPED, tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    data = json.loads(path.read_text())
    data["network"]["width"] *= 2
    path.write_text(json.dumps(data))
    with pytest.raises(ContractError, match="another network"):
        AutoModel.from_pretrained(tmp_path / "copy")


def test_arguments_without_a_meaning_here_are_refused(learned):
    with pytest.raises(ConfigError, match="quantization_config"):
        AutoModel.from_pretrained(SHIPPED, quantization_config={"bits": 4})
    fresh = VlaModel(VlaConfig(network=learned.contract.network))
    with pytest.raises(ContractError, match="no contract"):
        fresh.save_pretrained("never")


def test_importing_vla_does_not_import_transformers():
    code = "import sys, vla; assert 'transformers' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
