"""The policy contract refuses whatever it was not written for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from tests.train.runs import SIZE, fill_store, tiny_config
from vla.contract import CONTRACT_FILE, WEIGHTS_FILE, PolicyContract
from vla.errors import ContractError, IncompatibleError, ObservationError, StatisticsError, VlaError
from vla.train.loop import train
from vla_policies.learned import LearnedPolicy


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("contract")
    return train(tiny_config(fill_store(where / "demos.zarr"), steps=2), where / "run")


@pytest.fixture
def policy_dir(trained, tmp_path) -> Path:
    """A private copy."""
    for file in (CONTRACT_FILE, WEIGHTS_FILE):
        (tmp_path / file).write_bytes((trained / file).read_bytes())
    return tmp_path


def edit(directory: Path, **changes) -> None:
    path = directory / CONTRACT_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def observe(arm, seed: int = 0, **changes):
    seen = make_episode(np.random.default_rng(seed), arm, length=1).steps[0].observation
    return replace(seen, **changes)


ALPHA = make_arm("alpha", image_size=SIZE)


def test_a_contract_survives_json(policy_dir):
    contract = PolicyContract.load(policy_dir)
    assert PolicyContract.from_json(json.loads(json.dumps(contract.to_json()))) == contract
    assert set(contract.embodiments) == {"alpha", "beta"}
    assert contract.provenance["data"][0]["episodes"] == {"reach/alpha": 3, "reach/beta": 3}


def test_missing_statistics_raise(policy_dir):
    contract = json.loads((policy_dir / CONTRACT_FILE).read_text())
    del contract["normalisation"]["statistics"]["beta"]
    edit(policy_dir, normalisation=contract["normalisation"])
    with pytest.raises(StatisticsError, match="no normalisation statistics for 'beta'"):
        PolicyContract.load(policy_dir)


def test_other_weights_are_refused(policy_dir):
    with (policy_dir / WEIGHTS_FILE).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(ContractError, match="not the file this contract was written for"):
        PolicyContract.load(policy_dir)


@pytest.mark.parametrize("file", [CONTRACT_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(policy_dir, file):
    (policy_dir / file).unlink()
    with pytest.raises(ContractError, match=file):
        PolicyContract.load(policy_dir)


def test_unknown_and_missing_keys_and_versions_are_refused(policy_dir):
    data = PolicyContract.load(policy_dir).to_json()
    with pytest.raises(ContractError, match="unknown keys"):
        PolicyContract.from_json({**data, "temperature": 1})
    with pytest.raises(ContractError, match="missing keys"):
        PolicyContract.from_json({key: data[key] for key in data if key != "heads"})
    with pytest.raises(ContractError, match="format version 99"):
        PolicyContract.from_json({**data, "format_version": 99})
    with pytest.raises(ContractError, match="slot version 99"):
        PolicyContract.from_json({**data, "slot_version": 99})


def test_damaged_json_is_refused(policy_dir):
    path = policy_dir / CONTRACT_FILE
    path.write_text(path.read_text()[:-200])
    with pytest.raises(ContractError, match=r"policy\.json is damaged.*Copy the policy again"):
        PolicyContract.load(policy_dir)


def test_values_of_the_wrong_kind_are_refused_by_name(policy_dir):
    edit(policy_dir, heads=5)
    with pytest.raises(ContractError, match=r"policy\.json is damaged: TypeError"):
        PolicyContract.load(policy_dir)


def test_a_fitting_arm_is_accepted_and_a_foreign_one_refused(policy_dir):
    contract = PolicyContract.load(policy_dir)
    assert contract.check(ALPHA).name == "alpha"
    foreign = replace(ALPHA, name="gamma")
    with pytest.raises(IncompatibleError, match="only on: alpha, beta"):
        contract.check(foreign)
    assert contract.check(foreign, trained_as="alpha").name == "alpha"


def test_another_convention_under_the_same_name_is_refused_with_every_reason(policy_dir):
    contract = PolicyContract.load(policy_dir)
    gripper = replace(ALPHA.action[2], gripper_sign="positive_opens")
    with pytest.raises(IncompatibleError) as caught:
        contract.check(replace(ALPHA, action=(*ALPHA.action[:2], gripper), control_hz=20.0))
    assert len(caught.value.reasons) == 2
    assert "gripper_sign" in str(caught.value)
    assert "20 Hz" in str(caught.value)


def test_cameras_of_another_size_or_name_are_refused_before_anything_runs(policy_dir):
    contract = PolicyContract.load(policy_dir)
    large = make_arm("alpha", image_size=2 * SIZE)
    with pytest.raises(IncompatibleError, match=f"{2 * SIZE}x{2 * SIZE} px.*image_size={SIZE}") as caught:
        contract.check(large)
    assert len(caught.value.reasons) == 2
    front, wrist = ALPHA.cameras
    with pytest.raises(IncompatibleError, match=r"the front camera 'front', here: .'face', 'hand'."):
        contract.check(replace(ALPHA, cameras=(replace(front, name="face"), wrist)))


def test_wrong_observations_are_refused(policy_dir):
    contract = PolicyContract.load(policy_dir)
    good = observe(ALPHA)
    contract.check_observation(good)
    bad_images = {
        "gave uint8 .32, 32, 3.": {**good.images, "front": np.zeros((32, 32, 3), np.uint8)},
        "gave float32": {**good.images, "front": np.zeros((SIZE, SIZE, 3), np.float32)},
        "lacks the wrist camera": {"front": good.images["front"]},
    }
    for message, images in bad_images.items():
        with pytest.raises(ObservationError, match=message):
            contract.check_observation(replace(good, images=images))
    state = {**good.state, "tcp_position": np.full(3, np.nan, np.float32)}
    with pytest.raises(ObservationError, match="not finite"):
        contract.check_observation(replace(good, state=state))


def test_the_policy_gives_chunks_in_the_units_of_each_arm(policy_dir):
    policy = LearnedPolicy.load(policy_dir)
    beta = make_arm("beta", image_size=SIZE, joints=5)
    seen = [observe(ALPHA, 0), observe(beta, 1), observe(ALPHA, 2, instruction="reach the mauve square")]
    chunks = policy.act(seen)
    assert [chunk.actions.shape for chunk in chunks] == [(4, 5)] * 3
    assert [chunk.info["unknown_words"] for chunk in chunks] == [(), (), ("mauve",)]
    assert chunks[0].info["target_position"].shape == (3,)
    assert policy.act([]) == []
    for one, chunk in zip(seen, chunks, strict=True):
        np.testing.assert_allclose(policy.act([one])[0].actions, chunk.actions, rtol=1e-3, atol=1e-5)


def test_the_policy_answers_the_same_twice_and_each_head_differently(policy_dir):
    flow, regression = LearnedPolicy.load(policy_dir), LearnedPolicy.load(policy_dir, head="regression")
    seen = [observe(ALPHA)]
    np.testing.assert_array_equal(flow.act(seen)[0].actions, flow.act(seen)[0].actions)
    assert not np.allclose(flow.act(seen)[0].actions, regression.act(seen)[0].actions)


def test_the_policy_refuses_a_foreign_arm_until_it_is_mapped(policy_dir):
    foreign = replace(ALPHA, name="gamma")
    with pytest.raises(IncompatibleError, match="only on: alpha, beta"):
        LearnedPolicy.load(policy_dir).act([observe(foreign)])
    policy = LearnedPolicy.load(policy_dir, trained_as={"gamma": "alpha"})
    assert policy.check(foreign).name == "alpha"
    assert policy.act([observe(foreign)])[0].actions.shape == (4, 5)


def test_a_run_directory_stands_for_its_policy_and_nothing_stands_for_none(trained, tmp_path):
    assert LearnedPolicy.load(trained.parent).contract == PolicyContract.load(trained)
    with pytest.raises(VlaError, match="No policy at"):
        LearnedPolicy.load(tmp_path)
    with pytest.raises(VlaError, match="Known: flow, regression"):
        LearnedPolicy.load(trained, head="diffusion")
