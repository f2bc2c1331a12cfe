"""A lerobot checkpoint drives the arm that its contract names, in that arm's units, and no other."""

import importlib
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.models.lerobot import tiny
from vla.control.policies import check_contract
from vla.embodiment import Camera, Embodiment, Field
from vla.errors import ContractError, IncompatibleError, ObservationError, StatisticsError, UnknownNameError
from vla.models.lerobot import load_lerobot
from vla.models.lerobot.contract import LerobotContract
from vla.types import Observation
from vla_policies.lerobot import LerobotPolicy, make

CAMERAS = {"observation.images.cam0": "front", "observation.images.cam1": "wrist"}


def joints(name: str, mode: str = "absolute") -> Field:
    return Field(
        name=name,
        size=6,
        unit="rad",
        frame="joint",
        mode=mode,  # type: ignore[arg-type]
        low=(-3.0,) * 6,
        high=(3.0,) * 6,
        slot="arm0.joint_position",
    )


ARM = Embodiment(
    name="so101",
    cameras=(
        Camera(name="front", role="front", height=32, width=32),
        Camera(name="wrist", role="wrist", height=32, width=32),
    ),
    state=(joints("q"),),
    action=(joints("q"),),
    control_hz=10.0,
)


def contract(**changes) -> LerobotContract:
    values = {"embodiment": ARM, "cameras": CAMERAS, "state": ("q",), "execution_horizon": 5}
    return LerobotContract(**(values | changes))


def observation(seed: int = 0, **changes) -> Observation:
    rng = np.random.default_rng(seed)
    values = {
        "images": {name: rng.integers(0, 256, (32, 32, 3), np.uint8) for name in ("front", "wrist")},
        "state": {"q": rng.uniform(-1, 1, 6).astype(np.float32)},
        "instruction": "pick up the red cube",
        "embodiment": "so101",
    }
    return Observation(**(values | changes))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tiny.write("smolvla", tmp_path_factory.mktemp("lerobot") / "policy")
    contract().save(folder, load_lerobot(folder).config)
    return folder


@pytest.fixture(scope="module")
def policy(directory):
    return make(directory)


def test_it_is_registered_and_found_by_path(directory):
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["vla.policies"]["lerobot"].partition(":")
    factory = getattr(importlib.import_module(module), name)
    assert isinstance(factory(path=str(directory)), LerobotPolicy)


def test_a_chunk_has_the_arms_shape_and_rate_whatever_else_is_in_the_batch(policy):
    check_contract(policy, ARM)
    alone = policy.act([observation(1)])[0]
    together = policy.act([observation(0), observation(1)])[1]
    assert alone.actions.shape == (10, 6)
    assert alone.actions.dtype == np.float32
    assert alone.control_hz == 10.0
    np.testing.assert_allclose(alone.actions, together.actions, atol=1e-5)


def test_a_factor_turns_the_checkpoints_units_into_the_arms(directory, policy):
    degrees = LerobotPolicy(policy.checkpoint, contract(factors={"q": 2.0}))
    half = observation(state={"q": observation().state["q"] / 2})
    vector = degrees.contract.state_vector(half)
    np.testing.assert_allclose(vector, observation().state["q"], rtol=1e-6)
    np.testing.assert_allclose(degrees.contract.actions(np.full((1, 6), 3.0)), np.full((1, 6), 1.5))


def test_the_contract_survives_its_file_and_guards_its_weights(directory, policy):
    again = LerobotContract.load(directory, policy.checkpoint.config)
    assert replace(again, weights_sha256="") == contract()
    assert again.image_size == 32
    path = directory / "model.safetensors"
    before = path.read_bytes()
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        with pytest.raises(ContractError, match="other weights"):
            LerobotContract.load(directory, policy.checkpoint.config)
    finally:
        path.write_bytes(before)


def test_without_a_contract_it_does_not_run(tmp_path):
    with pytest.raises(ContractError, match="does not say which arm"):
        make(tiny.write("smolvla", tmp_path))


def test_without_statistics_it_does_not_run(tmp_path):
    checkpoint = load_lerobot(tiny.write("smolvla", tmp_path, processors=False))
    with pytest.raises(StatisticsError, match="cannot drive"):
        LerobotPolicy(checkpoint, contract())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cameras": {"observation.images.cam0": "front"}}, "nothing is said about the cameras"),
        ({"cameras": CAMERAS | {"observation.images.top": "front"}}, "unknown cameras"),
        ({"state": ()}, "0 entries, not 6"),
        ({"execution_horizon": 11}, r"not in 1\.\.10"),
    ],
)
def test_a_contract_that_does_not_add_up_is_refused(policy, change, said):
    with pytest.raises(ContractError, match=said):
        contract(**change).check_config(policy.checkpoint.config)


def test_unknown_names_in_a_contract_are_refused():
    with pytest.raises(UnknownNameError, match="front, wrist"):
        contract(cameras={"observation.images.cam0": "top"})
    with pytest.raises(UnknownNameError, match="q"):
        contract(state=("qq",))
    with pytest.raises(UnknownNameError, match="q"):
        contract(factors={"grip": 2.0})


def test_another_arm_is_refused_with_every_reason(policy):
    other = replace(ARM, control_hz=20.0, action=(joints("q", "delta"),))
    with pytest.raises(IncompatibleError, match=r"(?s)10 Hz.*delta"):
        policy.check(other)
    with pytest.raises(IncompatibleError, match="not for 'panda'"):
        policy.check(replace(ARM, name="panda"))


def test_wrong_pictures_and_foreign_observations_are_refused(policy):
    small = {name: image[:16] for name, image in observation().images.items()}
    with pytest.raises(ObservationError, match=r"\(16, 32, 3\)"):
        policy.act([observation(images=small)])
    with pytest.raises(ObservationError, match="panda"):
        policy.act([observation(embodiment="panda")])
