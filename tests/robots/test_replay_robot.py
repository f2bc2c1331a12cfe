"""A recorded episode in an arm's place."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.worlds import make_arm, make_episode
from vla.data.store import EpisodeStore
from vla.embodiment import Embodiment
from vla.errors import ActionError, ConfigError, IncompatibleError, RobotError
from vla.robots.checks import check_reading
from vla.robots.named import ArmSettings
from vla.robots.replay import ReplayRobot, named


@pytest.fixture
def arm() -> Embodiment:
    return make_arm("alpha", image_size=16)


@pytest.fixture
def demos(tmp_path: Path, arm: Embodiment) -> Path:
    path = tmp_path / "demos.zarr"
    with EpisodeStore.create(path, embodiments=[arm]) as store:
        for seed in range(2):
            store.append(make_episode(np.random.default_rng(seed), arm, instruction="reach the red square"))
    return path


def test_what_was_seen_and_done_comes_back_and_agrees_with_itself(demos: Path) -> None:
    robot = ReplayRobot(demos, 1)
    with EpisodeStore.open(demos) as store:
        executed, state = store.column(1, "executed"), store.column(1, "state")
        pictures = store.frames(1, "front", range(len(executed)))
    reading = robot.connect()
    assert reading.observation.instruction == "reach the red square"
    for t, action in enumerate(executed):
        check_reading(reading, robot.embodiment)
        np.testing.assert_array_equal(robot.embodiment.pack_state(reading.observation.state), state[t])
        np.testing.assert_array_equal(reading.observation.images["front"], pictures[t])
        assert not reading.done
        reading = robot.command(action)
    assert reading.done
    assert reading.info["largest_difference"] == 0
    with pytest.raises(RobotError, match="is over"):
        robot.command(executed[0])
    assert not robot.connect().done


def test_a_difference_is_said_in_half_ranges_with_entry_and_step(demos: Path, arm: Embodiment) -> None:
    robot = ReplayRobot(demos)
    recorded = robot.connect().info["recorded"]
    robot.command(recorded)
    wanted = np.array(robot.read().info["recorded"])
    entry = arm.action[1]
    at = arm.action[0].size
    wanted[at] += 0.5 * (entry.high[0] - entry.low[0]) / 2
    info = robot.command(wanted).info
    assert info["largest_difference"] == pytest.approx(0.5, abs=1e-5)
    assert info["difference"] == pytest.approx(0.5 / arm.action_dim, abs=1e-5)
    assert info["mean_difference"] == pytest.approx(0.25 / arm.action_dim, abs=1e-5)
    assert (info["largest_entry"], info["largest_step"]) == (f"{entry.name}[0]", 1)


def test_it_refuses_what_an_arm_refuses(demos: Path, arm: Embodiment) -> None:
    robot = ReplayRobot(demos)
    still = np.zeros(arm.action_dim, np.float32)
    with pytest.raises(RobotError, match="connect"):
        robot.command(still)
    robot.connect()
    with pytest.raises(ActionError):
        robot.command(still * np.nan)
    robot.stop()
    with pytest.raises(RobotError, match="is stopped"):
        robot.command(still)
    with pytest.raises(ConfigError, match=r"episodes 0 \.\. 1, not 2"):
        ReplayRobot(demos, 2)
    with pytest.raises(IncompatibleError):
        ReplayRobot(demos, 0, make_arm("alpha", image_size=16, joints=5))


def test_by_name_it_takes_a_store_and_a_number(demos: Path, arm: Embodiment) -> None:
    robot = named(ArmSettings(arm_file=f"{demos}#1", embodiment=arm))
    assert isinstance(robot, ReplayRobot)
    assert robot.connect().observation.embodiment == "alpha"
    with pytest.raises(ConfigError, match="STORE#NUMBER"):
        named(ArmSettings(arm_file=f"{demos}#last"))
    with pytest.raises(ConfigError, match="--arm-file missing"):
        named(ArmSettings())
    with pytest.raises(ConfigError, match="leave --cameras out"):
        named(ArmSettings(arm_file=str(demos), cameras={"front": 0}))
