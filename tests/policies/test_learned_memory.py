"""A policy run from its files remembers each episode, and only that one."""

from dataclasses import replace

import numpy as np
import pytest

from tests.data.worlds import make_arm
from tests.train.runs import SIZE, fill_store, make_trainer, tiny_config
from vla.errors import ObservationError
from vla.train.setup import draft_contract, open_data
from vla.types import Observation
from vla_policies.learned import LearnedPolicy
from vla_policies.memory import EpisodeMemory, Moment


def build(tmp_path, **model) -> LearnedPolicy:
    config = tiny_config(fill_store(tmp_path / "s.zarr"))
    config = replace(config, model=replace(config.model, heads=("regression",), things_weight=0.0, **model))
    net = make_trainer(config).net.eval()
    generator = np.random.default_rng(0)
    for parameter in net.parameters():  # gates start at nothing
        noise = generator.normal(0, 0.05, tuple(parameter.shape))
        parameter.data += parameter.data.new_tensor(noise)
    sources = open_data(config.data)
    contract = draft_contract(config, sources, {})
    return LearnedPolicy(net, contract)


def see(time_s: float, seed: int = 0, episode: int = 0) -> Observation:
    arm, rng = make_arm("alpha", image_size=SIZE), np.random.default_rng(seed)
    return Observation(
        images={c.name: rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8) for c in arm.cameras},
        state={m.name: rng.uniform(m.low, m.high).astype(np.float32) for m in arm.state},
        instruction="reach the red square",
        embodiment="alpha",
        time_s=time_s,
        episode=episode,
    )


def actions(policy, *observations):
    return [chunk.actions for chunk in policy.act(observations)]


def test_the_past_decides_and_reset_clears_it(tmp_path):
    policy = build(tmp_path, history=2)
    gap = policy.contract.execution_horizon / make_arm("alpha", image_size=SIZE).control_hz
    (fresh,) = actions(policy, see(0.0))
    (later,) = actions(policy, see(gap))
    assert not np.allclose(fresh, later, atol=1e-6)  # the same sight
    with pytest.raises(ObservationError, match="reset"):
        policy.act([see(0.0)])
    policy.reset()
    assert np.array_equal(actions(policy, see(0.0))[0], fresh)
    with pytest.raises(ObservationError, match="execution_horizon"):
        policy.act([see(9 * gap)])


def test_episodes_served_at_once_are_kept_apart(tmp_path):
    policy = build(tmp_path, history=1)
    gap = policy.contract.execution_horizon / make_arm("alpha", image_size=SIZE).control_hz
    alone = []
    for seed in (1, 2):
        policy.reset()
        policy.act([see(0.0, seed)])
        alone += actions(policy, see(gap, seed))
    policy.reset()
    policy.act([see(0.0, 1, 0), see(0.0, 2, 1)])
    together = actions(policy, see(gap, 2, 1), see(gap, 1, 0))
    np.testing.assert_allclose(together, alone[::-1], atol=1e-5)
    with pytest.raises(ObservationError, match=r"Observation\.episode"):
        policy.act([see(2 * gap), see(2 * gap)])


def test_an_episode_that_ends_alone_is_forgotten_and_the_others_go_on(tmp_path):
    policy = build(tmp_path, history=1)
    assert policy.remembers
    gap = policy.contract.execution_horizon / make_arm("alpha", image_size=SIZE).control_hz
    policy.act([see(0.0, 1, 0), see(0.0, 2, 1)])
    (went_on,) = actions(policy, see(gap, 2, 1))
    policy.reset()
    policy.act([see(0.0, 1, 0), see(0.0, 2, 1)])
    policy.forget([0])
    np.testing.assert_allclose(actions(policy, see(gap, 2, 1))[0], went_on, atol=1e-5)
    policy.act([see(0.0, 1, 0)])  # begins again, where it would have been refused


@pytest.mark.parametrize("backbone", ["patches", "tiny"])
def test_what_an_ended_episode_saw_is_looked_at_again(tmp_path, backbone):
    policy = build(tmp_path, backbone=backbone, locate_by_sight=False, reuse=True)
    policy.act([see(0.0, episode=7)])
    assert policy.act([see(0.1, episode=7)])[0].info["reused"] == 1.0
    policy.forget([7])
    assert policy.act([see(0.2, episode=7)])[0].info["reused"] == 0.0


@pytest.mark.parametrize("backbone", ["patches", "tiny"])
def test_what_one_episode_saw_is_not_reused_in_another(tmp_path, backbone):
    policy = build(tmp_path, backbone=backbone, locate_by_sight=False, reuse=True)
    policy.act([see(0.0, episode=1)])
    assert policy.act([see(0.1, episode=2)])[0].info["reused"] == 0.0


@pytest.mark.parametrize("backbone", ["patches", "tiny"])
def test_what_stood_still_is_counted_and_forgotten_on_reset(tmp_path, backbone):
    policy = build(tmp_path, backbone=backbone, locate_by_sight=False, reuse=True)
    first, again = policy.act([see(0.0)])[0], policy.act([see(0.1)])[0]
    assert (first.info["reused"], again.info["reused"]) == (0.0, 1.0)
    np.testing.assert_allclose(first.actions, again.actions, atol=1e-5)
    policy.reset()
    assert policy.act([see(0.0)])[0].info["reused"] == 0.0


def test_moments_are_found_by_time():
    memory = EpisodeMemory(2, 2)
    assert memory.before(0, 0.0, 10.0) == [None, None]
    moments = [Moment(time_s, np.zeros(1), np.zeros(1)) for time_s in (0.0, 0.2, 0.4)]
    for moment in moments:
        memory.add(0, moment)
    assert memory.before(0, 0.6, 10.0) == [moments[2], moments[1]]
    assert memory.before(3, 0.6, 10.0) == [None, None]
