"""Actions of joint-driven arms mean what they mean in the tabletop's simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vla.errors import EmbodimentError
from vla.robots.actions import JointTargets, ToolDeltas, action_space
from vla.robots.ur5e import BASE_POSITION, TCP_HEIGHT, ur5e_embodiment, ur5e_kinematics
from vla.robots.ur_client import Stream
from vla_envs.tabletop.env import TabletopEnv


def test_tool_deltas_are_the_simulations_own_to_the_bit() -> None:
    env = TabletopEnv("pick", "ur5e", render=False)
    space = action_space(env.embodiment, env._ik.kinematics)
    assert isinstance(space, ToolDeltas)
    observation, _ = env.reset(seed=5)
    space.reset(env._q_command, -1.0)
    space._position, space._yaw = env.world.commanded.copy(), env.world.commanded_yaw
    rng = np.random.default_rng(0)
    for _ in range(15):
        action = rng.uniform(env.embodiment.action_low, env.embodiment.action_high).astype(np.float32)
        q, _ = space.target(action.astype(float))
        observation, *_ = env.step(action)
        np.testing.assert_array_equal(q, env._q_command)
        state = space.state(env.world.joint_position, env.world.gripper_opening)
        assert set(state) == set(observation["state"])
        for name, value in state.items():
            np.testing.assert_allclose(value, observation["state"][name], atol=2e-6, err_msg=name)
    env.close()


def test_from_outside_the_workspace_nothing_jumps_in() -> None:
    env, kinematics = TabletopEnv("pick", "ur5e", render=False), ur5e_kinematics()
    space = ToolDeltas(env.embodiment, kinematics)
    high = kinematics.home_q + np.array([0.5, 0, 0, 0, 0, 0])
    space.reset(high, -1.0)
    q, _ = space.target(np.zeros(5))
    assert np.abs(q - high).max() < 0.05
    env.close()


def test_joint_targets_stay_inside_the_models_limits() -> None:
    embodiment, kinematics = ur5e_embodiment(), ur5e_kinematics()
    space = action_space(embodiment, kinematics)
    assert isinstance(space, JointTargets)
    q, gripper = space.target(np.append(np.full(6, 50.0), 1.0))
    np.testing.assert_array_equal(q, kinematics.high)
    assert gripper == 1.0


def test_other_action_fields_are_refused_with_those_that_are_known() -> None:
    embodiment = ur5e_embodiment()
    with pytest.raises(EmbodimentError, match="tool deltas"):
        action_space(replace(embodiment, action=embodiment.action[:1]), ur5e_kinematics())


def test_a_stream_never_exceeds_its_speed_and_counts_where_it_would() -> None:
    rng, stream, dt = np.random.default_rng(0), Stream(np.zeros(6), 1.5, 0.0), 0.008
    last = np.zeros(6)
    for _ in range(2000):
        if rng.random() < 0.1:
            stream.go(rng.uniform(-3, 3, 6), rng.uniform(0, 0.1))
        sent = stream.next(dt)
        assert np.abs(sent - last).max() <= 1.5 * dt + 1e-9
        last = sent
    assert stream.limited > 0


def test_a_stream_arrives_evenly_and_starts_from_the_last_target() -> None:
    stream = Stream(np.ones(6), 1.5, 0.0)
    stream.go(np.full(6, 1.04), 0.04)
    np.testing.assert_allclose(
        [stream.next(0.008)[0] for _ in range(6)], [1.008, 1.016, 1.024, 1.032, 1.04, 1.04]
    )
    assert stream.limited == 0


def test_the_models_shipped_with_the_drivers_are_the_suites_own_arms() -> None:
    from vla.robots import fr3
    from vla_envs.counterparts.franka.fr3 import LIMITS
    from vla_envs.counterparts.ur.program import FLANGE_TO_TCP_M

    for kinematics, name, base in (
        (ur5e_kinematics(), "ur5e", BASE_POSITION),
        (fr3.fr3_kinematics(), "panda", fr3.BASE_POSITION),
    ):
        env = TabletopEnv("pick", name, render=False)
        assert base == env.arm.base_position
        q = env.arm.home_q + 0.1
        for ours, theirs in zip(kinematics.pose(q), env._ik.tcp_pose(q), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        env.close()
    assert pytest.approx(FLANGE_TO_TCP_M) == TCP_HEIGHT
    np.testing.assert_allclose(np.array([fr3.fr3_kinematics().low, fr3.fr3_kinematics().high]).T, LIMITS)
