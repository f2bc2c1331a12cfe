from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.eval.fake_suite import PointEnv, PointExpert, PointSuite, Seer, point_embodiment
from vla.control.chunks import ChunkExecutor
from vla.control.policies import PolicySpec, check_contract, contract_of
from vla.errors import ConfigError, ContractError, IncompatibleError, UnknownNameError
from vla.eval.ablations import DeprivedPolicy
from vla.interfaces import Policy
from vla.testing import assert_same, check_policy, check_suite, sample_observation
from vla_policies import replay
from vla_policies.scripted import ScriptedPolicy
from vla_policies.trivial import RandomPolicy, ZeroPolicy

POINT = point_embodiment()


def test_a_spec_reads_name_path_and_json_values() -> None:
    assert PolicySpec.parse("replay:some/where,episode=3").arguments == {"path": "some/where", "episode": 3}
    assert PolicySpec.parse("random,seed=4,horizon=2").arguments == {"seed": 4, "horizon": 2}
    assert PolicySpec.parse("zero").is_bound


@pytest.mark.parametrize("text", ["randm", "random,sede=1", "zero:path", "random,env=1"])
def test_unknown_policies_and_arguments_raise_with_the_known_ones(text: str) -> None:
    with pytest.raises(UnknownNameError, match="Known:"):
        PolicySpec.parse(text)


@pytest.mark.parametrize("text", ["replay", "random,seed"])
def test_an_incomplete_spec_says_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"needs path: write 'replay:PATH'|expected key=value"):
        PolicySpec.parse(text)


def test_a_policy_is_built_with_the_context_its_factory_asks_for(point_suite: str) -> None:
    env = PointEnv("reach", "point")
    expert = PolicySpec.parse("expert").build(suite=PointSuite(), env=env)
    assert isinstance(expert, ScriptedPolicy)
    assert isinstance(expert.policy, PointExpert)
    assert isinstance(PolicySpec.parse("random,seed=1").build(env=env), RandomPolicy)
    assert isinstance(PolicySpec.parse("seer").build(), Seer)
    with pytest.raises(ConfigError, match="needs env and suite"):
        PolicySpec.parse("expert").build()


def test_a_contract_is_enforced_where_there_is_one() -> None:
    check_contract(ZeroPolicy(POINT), POINT)
    assert contract_of(ZeroPolicy(POINT)) is None
    with pytest.raises(ConfigError, match="not made for"):
        check_contract(Seer(refuses="point"), POINT)


def blind(policy: Policy) -> DeprivedPolicy:
    return DeprivedPolicy(policy, "blank", POINT)


@pytest.mark.parametrize("wrap", [blind, lambda policy: ChunkExecutor(blind(policy), 2)])
def test_a_wrapper_passes_on_the_contract_inside(wrap: Callable[[Policy], Policy]) -> None:
    seer = Seer(refuses="point")
    assert contract_of(wrap(seer)) is seer.contract
    assert contract_of(wrap(ZeroPolicy(POINT))) is None
    with pytest.raises(ConfigError, match="not made for"):
        check_contract(wrap(seer), POINT)


def test_a_policy_that_does_not_say_what_it_is_for_drives_nothing() -> None:
    class Silent:
        def reset(self) -> None: ...

        def act(self, observations):  # type: ignore[no-untyped-def]
            raise AssertionError

    class Unchecked(Silent):
        contract = Seer.Contract("abc")

    for policy in (Silent(), blind(Silent()), ChunkExecutor(Silent(), 2)):
        with pytest.raises(ContractError, match=r"Silent does not say .* 'contract = None'"):
            check_contract(policy, POINT)
    with pytest.raises(ContractError, match=r"no check\(embodiment\)"):
        check_contract(Unchecked(), POINT)


def test_a_policy_that_only_holds_needs_no_bounded_entries() -> None:
    joints = replace(POINT, action=(replace(POINT.action[0], slot="arm0.joint_velocity"), POINT.action[1]))
    assert ZeroPolicy(joints).act([sample_observation(joints)])[0].horizon == 1


@pytest.mark.parametrize("policy", [ZeroPolicy(POINT, 3), RandomPolicy(POINT, 1, 3), Seer()])
def test_trivial_policies_keep_the_contract(policy: ZeroPolicy) -> None:
    observations = [sample_observation(POINT, seed, "reach the red dot") for seed in (0, 1)]
    check_policy(policy, POINT, observations=observations)


def test_random_differs_between_scenes_and_seeds() -> None:
    a, b = (sample_observation(POINT, seed) for seed in (0, 1))

    def first(policy: RandomPolicy, observation) -> np.ndarray:  # type: ignore[no-untyped-def]
        policy.reset()
        return policy.act([observation])[0].actions

    assert (first(RandomPolicy(POINT), a) != first(RandomPolicy(POINT), b)).any()
    assert (first(RandomPolicy(POINT), a) != first(RandomPolicy(POINT, seed=1), a)).any()


def test_replay_plays_in_order_then_holds_still() -> None:
    actions = np.arange(8, dtype=np.float32).reshape(2, 4) / 1000
    policy = replay.ReplayPolicy(actions, POINT)
    seen = sample_observation(POINT)
    played = [policy.act([seen])[0].actions[0] for _ in range(3)]
    np.testing.assert_array_equal(played[:2], actions)
    np.testing.assert_array_equal(played[2][:3], 0)
    policy.reset()
    np.testing.assert_array_equal(policy.act([seen])[0].actions[0], actions[0])


def test_replay_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to replay"):
        replay.ReplayPolicy(np.zeros((0, 4), np.float32), POINT)
    assert IncompatibleError("a", "b", ["c"]).reasons == ("c",)


def test_the_fake_suite_keeps_the_contract() -> None:
    check_suite(PointSuite(), tasks=("reach",))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"reset": "success"}, "begins with success"),
        ({"drift": True}, "restore_state"),
        ({"same": True}, "the same scene"),
        ({"numb": True}, "was accepted; expected ActionError"),
    ],
)
def test_the_contract_suite_catches_broken_envs(fault: dict[str, object], words: str) -> None:
    from vla.testing import check_env

    class Broken(PointEnv):
        def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
            obs, info = super().reset(seed=0 if fault.get("same") else seed, options=options)
            return obs, {**info, "success": True} if fault.get("reset") else info

        def save_state(self):  # type: ignore[no-untyped-def]
            return (
                {**super().save_state(), "tcp": self.tcp + 0.01}
                if fault.get("drift")
                else super().save_state()
            )

        def step(self, action):  # type: ignore[no-untyped-def]
            return super().step(np.nan_to_num(action) if fault.get("numb") else action)

    with pytest.raises(AssertionError, match=words):
        check_env(Broken("reach", "point"))


def test_assert_same_sees_the_smallest_difference() -> None:
    a = {"x": np.array([1.0, np.nan], np.float32), "y": {"z": 1}}
    assert_same(a, {"x": a["x"].copy(), "y": {"z": 1}}, "values")
    with pytest.raises(AssertionError):
        assert_same(a, {"x": np.nextafter(a["x"], np.float32(2)), "y": {"z": 1}}, "values")
