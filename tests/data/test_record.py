"""Recording: labels are what the expert wanted, executed is what was sent, noise stays in range."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from tests.data.worlds import ReachEnv, ReachExpert, make_arm
from vla.control.loop import Command, run_loop
from vla.control.safety import SafetyEnvelope
from vla.data.mixture import SourceConfig, open_sources
from vla.data.record import ActionNoise, NoiseConfig, record_episode
from vla.data.recorder import StoreRecorder
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, IncompatibleError
from vla.robots.sim import SimRobot
from vla.types import ActionChunk


def record(seed=3, noise=None, **more):
    env = ReachEnv("reach", "alpha", 64)
    rng = np.random.default_rng(0)
    return record_episode(env, ReachExpert(env), seed=seed, noise=noise, rng=rng, **more)


def test_an_episode_ends_at_success_and_holds_what_was_seen_before_acting():
    episode = record(options={"variant": "swapped"}, provenance={"task": "reach"})
    assert episode.success
    assert episode.instruction == "reach the blue square"
    assert episode.provenance == {"task": "reach", "seed": 3, "variant": "swapped", "noise": None}
    steps = episode.steps
    for before, after in pairwise(steps):
        moved = after.observation.state["tcp_position"] - before.observation.state["tcp_position"]
        np.testing.assert_allclose(moved, before.executed[:3], atol=1e-6)
        assert after.observation.time_s == pytest.approx(before.observation.time_s + 0.1)


def test_labels_are_the_experts_also_where_noise_was_executed():
    noise = NoiseConfig(burst_probability=0.3)
    episode = record(noise=noise)
    assert any(step.perturbed for step in episode.steps)
    for step in episode.steps:
        seen = step.observation
        wanted = np.clip(seen.aux["target_position"] - seen.state["tcp_position"], -0.03, 0.03)
        np.testing.assert_allclose(step.action[:3], wanted, atol=1e-6)


def test_the_same_generator_gives_the_same_episode():
    one, two = record(noise=NoiseConfig()), record(noise=NoiseConfig())
    assert len(one) == len(two)
    assert all(np.array_equal(a.executed, b.executed) for a, b in zip(one.steps, two.steps, strict=True))


def test_noise_has_the_stated_statistics_and_stays_in_range(rng):
    arm, config = make_arm(), NoiseConfig(burst_probability=0.12, gripper_flip_probability=0.5)
    noise, label = ActionNoise(config, arm, rng), np.array([0.0, 0.0, 0.0, 0.0, -1.0], np.float32)
    executed = np.stack([noise.disturb(label) for _ in range(20_000)])
    assert (executed >= arm.action_low).all()
    assert (executed <= arm.action_high).all()
    burst = executed[:, 3] != 0  # yaw moves in bursts only
    assert burst.mean() == pytest.approx(0.12 * 2 / (0.12 * 2 + 0.88), abs=0.02)
    assert (executed[~burst, :3] / 0.03).std() == pytest.approx(0.08, rel=0.03)
    assert (executed[burst, 4] == 1).mean() == pytest.approx(0.5, abs=0.05)
    assert (executed[~burst, 4] == -1).all()


def test_noise_scales_from_none_to_as_much_as_there_can_be():
    config = NoiseConfig(burst_probability=0.12, position_std=0.08)
    half = config.times(0.5)
    assert half is not None
    assert (half.burst_probability, half.position_std, half.burst_steps) == (0.06, 0.04, config.burst_steps)
    assert config.times(0) is None
    for factor in (-0.1, 9.0):
        with pytest.raises(ConfigError, match=r"factor from 0 to 8\.33"):
            config.times(factor)


def test_an_episode_that_runs_out_of_steps_failed():
    assert not record(max_steps=2).success
    assert len(record(max_steps=2)) == 2


def test_noise_without_generator_or_nonsense_is_refused():
    env = ReachEnv("reach", "alpha", 64)
    with pytest.raises(ConfigError, match="no rng"):
        record_episode(env, ReachExpert(env), seed=0, noise=NoiseConfig())
    with pytest.raises(ConfigError, match="burst_probability"):
        NoiseConfig(burst_probability=1.5)
    with pytest.raises(ConfigError, match="shortest"):
        NoiseConfig(burst_steps=(3, 1))


class Changing:
    """Policy: up, first little, then beyond the range; never a NaN."""

    contract = None

    def __init__(self):
        self.asked = 0

    def reset(self):
        self.asked = 0

    def act(self, observations):
        self.asked += 1
        action = np.array([0, 0, 0.02 if self.asked < 3 else 0.5, 0, 1], np.float32)
        return [ActionChunk(actions=action[None], control_hz=10.0) for _ in observations]


class Telling:
    """Operator: another sentence at the third turn, silence after it, then leaves."""

    def __init__(self):
        self.turns = 0

    def poll(self):
        self.turns += 1
        said = {3: ("instruct", "reach the blue square"), 6: ("stop", ""), 8: ("quit", "")}.get(self.turns)
        return said and Command(kind=said[0], text=said[1])

    def tell(self, _message):
        pass


class Obeying(ReachEnv):
    def set_instruction(self, text):
        self._target = text.split()[2]


def test_a_conversation_becomes_one_episode_a_sentence_and_what_was_held_is_left_out(tmp_path):
    env = Obeying("reach", "alpha", 64)
    robot, envelope = SimRobot(env, seed=1), SafetyEnvelope(env.embodiment)
    with (
        EpisodeStore.create(tmp_path / "run.zarr") as store,
        StoreRecorder(store, env.embodiment, {"seed": 1}) as recorder,
    ):
        run_loop(robot, Changing(), envelope, max_steps=20, hooks=[recorder], operator=Telling())
    with EpisodeStore.open(tmp_path / "run.zarr") as store:
        assert [(e.instruction, e.length) for e in store.episodes] == [
            ("reach the red square", 2),
            ("reach the blue square", 3),
        ]
        second = store.episodes[1]
        assert (second.success, second.provenance["first_step"]) == (False, 2)
        assert second.provenance["safety"]["range"] == 3
        np.testing.assert_allclose(store.column(1, "action")[:, 2], 0.03)
        assert np.isnan(store.column(1, "aux/target_position")[0]).all()  # not known before the next step


def test_an_error_in_the_loop_still_commits_what_was_done(tmp_path):
    env = ReachEnv("reach", "alpha", 64)

    class Breaking(Changing):
        def act(self, observations):
            if self.asked == 2:
                raise ZeroDivisionError
            return super().act(observations)

    with (
        EpisodeStore.create(tmp_path / "run.zarr") as store,
        pytest.raises(ZeroDivisionError),
        StoreRecorder(store, env.embodiment, {}) as recorder,
    ):
        run_loop(
            SimRobot(env, seed=1), Breaking(), SafetyEnvelope(env.embodiment), max_steps=9, hooks=[recorder]
        )
    with EpisodeStore.open(tmp_path / "run.zarr") as store:
        assert [e.length for e in store.episodes] == [2]
        assert not store.verify()


def test_an_arm_of_another_make_is_refused_before_anything_moves(tmp_path):
    with (
        EpisodeStore.create(tmp_path / "run.zarr", embodiments=[make_arm("alpha")]) as store,
        pytest.raises(IncompatibleError, match="cameras differ"),
    ):
        StoreRecorder(store, make_arm("alpha", image_size=32), {})


class Unjudged(SimRobot):
    """As a real arm is: nothing in it says whether the task is fulfilled."""

    def command(self, action):
        return replace(super().command(action), info={})


def record_unjudged(path, operator, **more):
    env = Obeying("reach", "alpha", 64)
    with (
        EpisodeStore.create(path) as store,
        StoreRecorder(store, env.embodiment, {}, **more) as recorder,
    ):
        operator.judge = recorder.judge
        robot, envelope = Unjudged(env, seed=1), SafetyEnvelope(env.embodiment)
        run_loop(robot, Changing(), envelope, max_steps=20, hooks=[recorder], operator=operator)
    return [(info.instruction, info.success) for info in EpisodeStore.open(path).episodes]


def test_without_predicate_and_verdict_success_is_unknown_and_learned_from(tmp_path):
    told = record_unjudged(tmp_path / "run.zarr", Telling())
    assert told == [("reach the red square", None), ("reach the blue square", None)]
    (source,) = open_sources([SourceConfig(path=str(tmp_path / "run.zarr"))])
    assert len(source) == 2
    source.close()


@pytest.mark.parametrize(
    ("verdict", "kept"),
    [
        ("success", [("reach the red square", None), ("reach the blue square", True)]),
        ("failure", [("reach the red square", None), ("reach the blue square", False)]),
        ("discard", [("reach the red square", None)]),
    ],
)
def test_the_operator_judges_the_last_episode_once_it_has_ended(tmp_path, verdict, kept):
    class Judging(Telling):
        def poll(self):
            command = super().poll()
            if self.turns == 7:  # the arm holds still
                assert not self.judge(verdict)
            return command

    said = []
    assert record_unjudged(tmp_path / "run.zarr", Judging(), tell=said.append) == kept
    assert said[0] == (
        'recorded "reach the blue square", 3 steps: success unknown; success or failure or discard judges it.'
    )
    assert len(said) == 2


def test_a_verdict_outweighs_the_predicate_and_says_so(tmp_path):
    env = ReachEnv("reach", "alpha", 64)
    with (
        EpisodeStore.create(tmp_path / "run.zarr") as store,
        StoreRecorder(store, env.embodiment, {}, tell=lambda _: None) as recorder,
    ):
        run_loop(
            SimRobot(env, seed=1), Changing(), SafetyEnvelope(env.embodiment), max_steps=3, hooks=[recorder]
        )
        assert recorder.judge("success")  # the episode was under way
    with EpisodeStore.open(tmp_path / "run.zarr") as store:
        (info,) = store.episodes
        assert (info.length, info.success, info.provenance["judged_by"]) == (3, True, "operator")
