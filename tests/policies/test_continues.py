"""A learned policy continues the chunk under way, in the arm's own units, or says why it cannot."""

from dataclasses import replace

import numpy as np
import pytest

from tests.data.worlds import make_arm
from tests.policies.test_learned_memory import SIZE, see
from tests.train.runs import fill_store, make_trainer, tiny_config
from vla.control.chunks import ChunkExecutor, holding
from vla.control.latency import Replayed
from vla.control.safety import SafetyEnvelope
from vla.errors import IncompatibleError
from vla.train.setup import draft_contract, open_data
from vla.types import Promise
from vla_policies.learned import LearnedPolicy

ARM = make_arm("alpha", image_size=SIZE)


def build(tmp_path, *heads: str) -> LearnedPolicy:
    config = tiny_config(fill_store(tmp_path / "s.zarr"))
    config = replace(config, model=replace(config.model, heads=heads, things_weight=0.0))
    net = make_trainer(config).net.eval()
    generator = np.random.default_rng(0)
    for parameter in net.parameters():  # gates start at nothing
        parameter.data += parameter.data.new_tensor(generator.normal(0, 0.05, tuple(parameter.shape)))
    return LearnedPolicy(net, draft_contract(config, open_data(config.data), {}))


@pytest.mark.parametrize("head", ["flow", "diffusion"])
def test_frozen_actions_come_back_to_the_last_bit_and_the_rest_is_its_own(tmp_path, head):
    policy = build(tmp_path, head)
    old = np.random.default_rng(1).uniform(ARM.action_low, ARM.action_high, (3, 5)).astype(np.float32)
    plain, asked = see(0.0), replace(see(0.0), promise=Promise(actions=old, frozen=2))
    together = policy.act([asked, replace(plain, episode=1)])
    np.testing.assert_array_equal(together[0].actions[:2], old[:2])
    assert not np.array_equal(together[0].actions[2], old[2])
    (alone,) = policy.act([plain])
    np.testing.assert_allclose(together[1].actions, alone.actions, atol=1e-5)
    gap = [np.abs(chunk.actions[2] - old[2]).mean() for chunk in (together[0], alone)]
    assert gap[0] < gap[1]  # drawn towards what was planned


def test_each_chunk_continues_what_is_executed_while_it_is_computed(tmp_path):
    policy = build(tmp_path, "flow")
    told = []

    class Spy(LearnedPolicy):
        def act(self, observations):
            chunks = super().act(observations)
            told.append((observations[0].promise, chunks[0].actions))
            return chunks

    spy = Spy(policy.net, policy.contract)
    executor = ChunkExecutor(
        spy, 1, execution="rtc", thinking=Replayed([0.1]), hold=holding(SafetyEnvelope(ARM))
    )
    executed = [executor.act([see(k / 10, seed=k)])[0].actions[0] for k in range(8)]
    assert len(told) > 3
    for promise, actions in told[1:]:
        assert promise.frozen == 1
        np.testing.assert_array_equal(actions[0], promise.actions[0])
        assert any(np.array_equal(actions[0], action) for action in executed)


def test_a_head_that_makes_its_chunk_at_once_refuses_and_names_one_that_does_not(tmp_path):
    policy = build(tmp_path, "regression", "flow")
    with pytest.raises(IncompatibleError, match=r"(?s)'regression'.*--head flow"):
        ChunkExecutor(policy, 2, execution="rtc")
    promise = Promise(actions=np.zeros((2, 5), np.float32), frozen=1)
    with pytest.raises(IncompatibleError, match="flow, diffusion"):
        policy.act([replace(see(0.0), promise=promise)])


def test_an_export_has_no_gradient_and_says_which_engine_has(tmp_path):
    policy = build(tmp_path, "flow")
    policy.exported = object()
    with pytest.raises(IncompatibleError, match="engine=torch"):
        policy.check_continues()
