import numpy as np
import pytest

from tests.eval.fake_suite import PointEnv, PointExpert, Seer
from vla.errors import ConfigError
from vla.eval.ablations import DeprivedPolicy
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.eval.rollout import run_episode
from vla.interfaces import Policy
from vla.testing import sample_observation
from vla_policies.trivial import RandomPolicy, ZeroPolicy

KEY = EpisodeKey(task="reach", embodiment="point", seed=5)


def run(policy: Policy | None = None, key: EpisodeKey = KEY, execution_horizon: int = 2) -> EpisodeRecord:
    env = PointEnv("reach", "point")
    return run_episode(
        env, policy or PointExpert(env), suite="point_suite", key=key, execution_horizon=execution_horizon
    )


def test_the_expert_succeeds_and_the_time_follows_from_the_steps() -> None:
    record = run()
    assert record.success
    assert record.time_to_success_s == pytest.approx(record.steps / 10)
    assert record.error == ""


def test_doing_nothing_fails_at_the_time_limit() -> None:
    record = run(ZeroPolicy(PointEnv("reach", "point").embodiment))
    assert (record.success, record.steps, record.time_to_success_s) == (False, 25, None)


def test_the_same_key_gives_the_same_record() -> None:
    embodiment = PointEnv("reach", "point").embodiment
    first, second = (run(RandomPolicy(embodiment, seed=1)) for _ in range(2))
    assert (first.steps, first.safety, first.wrong) == (second.steps, second.safety, second.wrong)


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_a_policy_is_asked_once_per_execution_horizon(horizon: int) -> None:
    seer = Seer()
    record = run(seer, execution_horizon=horizon)
    assert record.success
    assert seer.calls == -(-record.steps // horizon)


def test_localisation_error_is_measured_at_first_sight_and_by_phase() -> None:
    record = run(Seer())
    pixel_m = 0.4 / 31
    assert record.target_error_t0_m is not None
    assert 0 < record.target_error_t0_m < pixel_m
    assert set(record.target_error_m) == {"0", "1"}
    assert record.goal_error_t0_m is None


def test_a_swapped_instruction_is_followed_in_the_same_scene() -> None:
    swapped = EpisodeKey(task="reach", embodiment="point", seed=5, variant="swapped")
    base, other = run(Seer()), run(Seer(), swapped)
    assert base.instruction != other.instruction
    assert base.success
    assert other.success


def test_blank_cameras_blind_a_policy_that_looks() -> None:
    blank = EpisodeKey(task="reach", embodiment="point", seed=5, ablation="blank")
    record = run(Seer(), blank)
    assert not record.success
    assert record.target_error_t0_m is None


def test_blank_cameras_are_grey_and_leave_the_observation_alone() -> None:
    observation = sample_observation(PointEnv("reach", "point").embodiment)
    before = observation.images["front"].copy()
    seen = []

    class Spy(ZeroPolicy):
        def act(self, observations):  # type: ignore[no-untyped-def]
            seen.extend(observations)
            return super().act(observations)

    point = PointEnv("reach", "point").embodiment
    DeprivedPolicy(Spy(point), "blank", point).act([observation])
    assert (seen[0].images["front"] == 128).all()
    np.testing.assert_array_equal(observation.images["front"], before)


def test_words_that_the_policy_does_not_know_stand_in_the_record() -> None:
    heldout = EpisodeKey(task="reach", embodiment="point", seed=5, wording="heldout")
    assert run(Seer()).unknown_words == ()
    assert run(Seer(), heldout).unknown_words == ("go", "over", "to")


def test_what_the_env_clips_itself_is_counted_where_it_reports_it() -> None:
    class Clipping(PointEnv):
        def step(self, action):  # type: ignore[no-untyped-def]
            obs, reward, done, over, info = super().step(action)
            return obs, reward, done, over, {**info, "clipped": 2 * (self.steps in (3, 4))}

    env = Clipping("reach", "point")
    record = run_episode(env, PointExpert(env), suite="point_suite", key=KEY)
    assert record.safety["env_clipped"] == 2
    assert "env_clipped" not in run().safety


def test_a_policy_that_refuses_the_arm_touches_nothing() -> None:
    env = PointEnv("reach", "point")
    with pytest.raises(ConfigError, match="not made for point"):
        run_episode(env, Seer(refuses="point"), suite="point_suite", key=KEY)
    assert env.dots == {}


def test_the_safety_envelope_is_on_by_default_and_counted() -> None:
    class Wild(ZeroPolicy):
        def act(self, observations):  # type: ignore[no-untyped-def]
            chunks = super().act(observations)
            chunks[0].actions[:] = [np.nan, 5, 0, 0]
            return chunks

    record = run(Wild(PointEnv("reach", "point").embodiment))
    assert record.safety["non_finite"] == record.steps == 25
