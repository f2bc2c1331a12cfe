"""A leader arm on its bus, and a pad at the boundary of its library: what the follower is told."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.control.bench_arm import bench
from vla.embodiment import Embodiment
from vla.errors import ConfigError, RobotError, UnknownNameError
from vla.robots.feetech import FeetechBus
from vla.robots.so101 import so101_embodiment, so101_kinematics
from vla.teleop.gamepad import Gamepad
from vla.teleop.leader import REST_STEPS, Leader
from vla.teleop.named import make_teleoperator
from vla_envs.counterparts.instruments import true_calibration
from vla_envs.counterparts.process import ServoCounterpart
from vla_envs.tabletop.arms import load_arm
from vla_envs.tabletop.embodiments import tabletop_embodiment

MIDDLE = np.array([0.0, -0.3, 0.3, 0.6, 0.0])


@pytest.fixture
def leader(feetech: ServoCounterpart) -> Iterator[Leader]:
    feetech.clear()
    feetech.power_cycle()
    made = Leader(FeetechBus(feetech.port), true_calibration(feetech), so101_kinematics())
    yield made
    made.close()


def moved(scene: ServoCounterpart, angles: np.ndarray) -> None:
    """By hand: the arm is limp."""
    scene.push([*angles])
    scene.advance(0.5)


def test_a_follower_of_joints_goes_where_the_leader_is_moved(leader: Leader, feetech) -> None:
    leader.connect(so101_embodiment())
    assert leader.read({}) is None, "nobody has moved it"
    moved(feetech, MIDDLE)
    wanted = leader.read({})
    assert wanted is not None
    assert np.allclose(wanted[:5], MIDDLE, atol=0.03)
    moved(feetech, MIDDLE + [0.2, 0, 0, 0, 0])
    assert leader.read({})[0] == pytest.approx(0.2, abs=0.03)  # type: ignore[index]
    for _ in range(REST_STEPS):
        wanted = leader.read({})
    assert wanted is None, "at rest, it is handed back"


def test_a_follower_of_tool_steps_makes_the_leaders_motion_from_where_it_is(leader: Leader, feetech) -> None:
    arm = tabletop_embodiment(load_arm("so101"), 64)
    leader.connect(arm)
    moved(feetech, MIDDLE)
    state = {"tcp_position": np.array([0.05, 0.0, 0.1]), "tcp_error": np.zeros(3)}
    leader.read(state)
    moved(feetech, MIDDLE + [0.1, 0, 0, 0, 0])
    first = leader.read(state)
    assert first is not None
    assert np.allclose(first[:3], 0, atol=1e-6), "it begins where the follower is"
    kinematics = so101_kinematics()
    moved(feetech, MIDDLE + [0.2, 0, 0, 0, 0])
    step = leader.read(state)
    assert step is not None
    way = kinematics.pose(MIDDLE + [0.2, 0, 0, 0, 0])[0] - kinematics.pose(MIDDLE + [0.1, 0, 0, 0, 0])[0]
    assert np.allclose(step[:3], np.clip(way, arm.action_low[:3], arm.action_high[:3]), atol=0.006)


def test_a_leader_that_is_lost_says_so(leader: Leader, feetech: ServoCounterpart) -> None:
    leader.connect(so101_embodiment())
    feetech.unplug()
    try:
        with pytest.raises(RobotError, match="leader arm was lost"):
            leader.read({})
    finally:
        feetech.plug()


def test_a_follower_of_another_make_is_refused(leader: Leader) -> None:
    with pytest.raises(ConfigError, match="3 joints, the leader 5"):
        leader.connect(bench())


class FakePad:
    """At the boundary of pygame: six axes and buttons."""

    def __init__(self) -> None:
        self.axes, self.buttons, self.there = [0.0] * 6, [False] * 4, True

    def get_axis(self, number: int) -> float:
        return self.axes[number]

    def get_button(self, number: int) -> bool:
        return self.buttons[number]

    def get_init(self) -> bool:
        return self.there


@pytest.fixture
def arm() -> Embodiment:
    return tabletop_embodiment(load_arm("panda"), 64)


def test_sticks_move_the_tool_and_buttons_grip_and_hand_back(arm: Embodiment) -> None:
    pad = FakePad()
    device = Gamepad(pad)
    device.connect(arm)
    pad.axes[1] = 0.1
    assert device.read({}) is None, "inside the dead zone"
    pad.axes[1] = -1.0
    wanted = device.read({})
    assert wanted is not None
    assert wanted[0] == pytest.approx(arm.action_high[0] / 2)
    assert wanted[-1] == -1, "open"
    pad.axes[1], pad.buttons[0] = 0.0, True
    assert [device.read({})[-1] for _ in range(2)] == [1, 1]  # type: ignore[index]  # once a press
    pad.buttons[0], pad.buttons[1] = False, True
    assert device.read({}) is None
    pad.there = False
    with pytest.raises(RobotError, match="unplugged"):
        device.read({})


def test_without_a_pad_it_says_so(arm: Embodiment) -> None:
    pytest.importorskip("pygame")
    device = Gamepad()
    with pytest.raises(RobotError, match="No gamepad is plugged in"):
        device.connect(arm)


def test_a_device_is_named_as_it_is() -> None:
    with pytest.raises(UnknownNameError, match="keyboard"):
        make_teleoperator("keybord")
    with pytest.raises(ConfigError, match="leader:PORT"):
        make_teleoperator("leader")
    with pytest.raises(ConfigError, match="--leader-calibration"):
        make_teleoperator("leader:/dev/ttyACM1")
    with pytest.raises(ConfigError, match="this is none"):
        make_teleoperator("keyboard")
