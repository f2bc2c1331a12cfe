"""The UR counterpart's wire and physics, without sockets: recipes, framing, tool poses, motions, modes."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_envs.counterparts.table import TabletopPlant
from vla_envs.counterparts.ur import rtde
from vla_envs.counterparts.ur.controller import Controller
from vla_envs.counterparts.ur.dashboard import Dashboard
from vla_envs.counterparts.ur.gripper import GripperServer
from vla_envs.counterparts.ur.motions import JointState, Path, Servo, Speed, Stop, move_joints
from vla_envs.counterparts.ur.program import Program
from vla_envs.tabletop.arms import ur5e

SCRIPT = "def rtde_control():\nend\n"


@pytest.fixture(scope="module")
def plant() -> TabletopPlant:
    return TabletopPlant("ur5e", "pick", 0)


@pytest.fixture
def controller(plant: TabletopPlant) -> Controller:
    plant.set_scene("pick", 0)
    return Controller(plant)


def turn(controller: Controller, seconds: float) -> None:
    for _ in range(round(seconds / controller.plant.period_s)):
        controller.cycle()


def command(controller: Controller, number: int, *doubles: float, integer: int = 0) -> int:
    """As ur-rtde does: arguments, command, wait for the answer, clear; the answer."""
    values = {f"input_double_register_{i}": value for i, value in enumerate(doubles)}
    controller.take_inputs({**values, "input_int_register_1": integer, "input_int_register_0": number})
    controller.cycle()
    answer = int(controller.outputs()["output_int_register_0"])
    controller.take_inputs({"input_int_register_0": 0})
    controller.cycle()
    return answer


@given(st.binary(max_size=200), st.integers(1, 20))
def test_packets_survive_any_cut(payload: bytes, cut: int) -> None:
    stream, buffer, found = rtde.packet(b"U", payload) * 3, bytearray(), []
    for start in range(0, len(stream), cut):
        buffer += stream[start : start + cut]
        while (taken := rtde.take_packet(buffer)) is not None:
            found.append(taken)
    assert found == [(b"U", payload)] * 3


def test_a_size_below_the_header_is_no_rtde() -> None:
    with pytest.raises(ValueError, match="size 2"):
        rtde.take_packet(bytearray(b"\x00\x02U"))


def test_recipes_pack_and_unpack_every_type() -> None:
    kinds = {kind: name for name, kind in rtde.OUTPUT_TYPES.items()}
    every = {"BOOL", "INT32", "UINT32", "UINT64", "DOUBLE", "VECTOR3D", "VECTOR6D", "VECTOR6INT32"}
    assert set(kinds) == every
    values = {
        name: (1, 2, 3) * (1 + ("6" in kind)) if "VECTOR" in kind else 1 for kind, name in kinds.items()
    }
    recipe = rtde.Recipe(7, list(values), rtde.OUTPUT_TYPES)
    kind, payload = rtde.take_packet(bytearray(recipe.pack(values))) or (b"", b"")
    assert (kind, payload[0]) == (b"U", 7)
    assert recipe.unpack(payload[1:]) == values


def test_an_unknown_variable_is_not_found_and_a_wrong_size_refused() -> None:
    recipe = rtde.Recipe(1, ["actual_q", "actual_mood"], rtde.OUTPUT_TYPES)
    assert recipe.types == ["VECTOR6D", "NOT_FOUND"]
    assert not recipe.valid
    with pytest.raises(ValueError, match="expected 48"):
        rtde.Recipe(1, ["actual_q"], rtde.OUTPUT_TYPES).unpack(b"\x00")


def dh_flange(q: np.ndarray) -> np.ndarray:
    """[4, 4] of the flange in the base frame by Universal Robots' own table for the UR5e."""
    a = (0.0, -0.425, -0.3922, 0.0, 0.0, 0.0)
    d = (0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996)
    alpha = (math.pi / 2, 0.0, 0.0, math.pi / 2, -math.pi / 2, 0.0)
    pose = np.eye(4)
    for i in range(6):
        c, s, ca, sa = math.cos(q[i]), math.sin(q[i]), math.cos(alpha[i]), math.sin(alpha[i])
        pose = pose @ np.array(
            [[c, -s * ca, s * sa, a[i] * c], [s, c * ca, -c * sa, a[i] * s], [0, sa, ca, d[i]], [0, 0, 0, 1]]
        )
    return pose


def test_tool_poses_are_those_of_the_makers_table(controller: Controller) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        q = np.array(ur5e.HOME_Q) + rng.uniform(-0.5, 0.5, 6)
        expected, turned = dh_flange(q)[:3, 3], dh_flange(q)[:3, :3]
        from vla_envs.counterparts.ur.program import pose_matrix

        position, rotation = pose_matrix(Program.tcp_pose(controller, q, offset=np.zeros(6)))
        np.testing.assert_allclose(position, expected, atol=1e-6)
        np.testing.assert_allclose(rotation, turned, atol=1e-6)


def test_servo_settles_on_its_target_and_stop_comes_to_rest() -> None:
    state, servo = JointState(np.zeros(6)), Servo(np.full(6, 0.1), 0.07, 600.0)
    for _ in range(500):
        servo.advance(state, 0.002)
    np.testing.assert_allclose(state.q, 0.1, atol=1e-4)
    state.qd, stop, cycles = np.full(6, 1.0), Stop(10.0), 0
    while not stop.advance(state, 0.002):
        cycles += 1
    assert 45 <= cycles <= 55  # 1 rad/s at 10 rad/s^2


def test_speed_ramps_and_paths_keep_their_speed() -> None:
    state = JointState(np.zeros(6))
    speed = Speed(lambda _: np.full(6, 0.5), 1.0, 1.0)
    while not speed.advance(state, 0.002):
        assert np.abs(state.qd).max() <= 0.5 + 1e-9
    path, fastest = move_joints(np.zeros(6), np.arange(6) / 5.0, 0.8, 2.0), 0.0
    state = JointState(np.zeros(6))
    while not path.advance(state, 0.002):
        fastest = max(fastest, float(np.abs(state.qd).max()))
    np.testing.assert_allclose(state.q, np.arange(6) / 5.0, atol=1e-5)
    assert 0.7 < fastest < 0.85
    assert isinstance(path, Path)


def test_the_program_moves_solves_and_answers(controller: Controller) -> None:
    controller.start_script(SCRIPT)
    q = controller.plant.q
    assert command(controller, 1, *(q + 0.1), 1.0, 1.4) == 1  # still moving
    turn(controller, 1.5)
    np.testing.assert_allclose(controller.plant.q, q + 0.1, atol=5e-3)
    pose = Program.tcp_pose(controller, controller.plant.q)
    command(controller, 46, *pose)
    found = [controller.outputs()[f"output_double_register_{i}"] for i in range(6)]
    np.testing.assert_allclose(found, controller.plant.q, atol=5e-3)
    lifted = pose + np.array([0, 0, 0.05, 0, 0, 0])
    command(controller, 3, *lifted, 0.25, 1.2)
    turn(controller, 1.0)
    np.testing.assert_allclose(Program.tcp_pose(controller, controller.plant.q), lifted, atol=5e-3)


def test_what_cannot_be_reached_stops_the_program(controller: Controller) -> None:
    controller.start_script(SCRIPT)
    command(controller, 24, 3.0, 0.0, 0.5, 0.0, 3.14, 0.0, 0.0, 0.0, 0.008, 0.1, 300.0)
    assert controller.program is None
    assert "no inverse kinematics solution" in controller.events[-1][1]


def test_an_uninterpreted_command_stops_the_program_and_says_so(controller: Controller) -> None:
    controller.start_script(SCRIPT)
    command(controller, 6)
    assert "command 6 is not interpreted" in controller.events[-1][1]


def test_a_jump_of_the_target_is_a_protective_stop(controller: Controller) -> None:
    controller.start_script(SCRIPT)
    command(controller, 11, *(controller.plant.q + 1.5), 0.0, 0.0, 0.008, 0.03, 2000.0)
    turn(controller, 0.3)
    assert controller.safety_mode == "PROTECTIVE_STOP"
    assert controller.outputs()["safety_status_bits"] & 4
    before = controller.plant.q
    turn(controller, 0.3)
    assert np.abs(controller.plant.q - before).max() < 2e-3


def test_a_protective_stop_is_unlocked_after_five_seconds_and_no_sooner(controller: Controller) -> None:
    dashboard = Dashboard(controller)
    controller.protective_stop("test")
    assert "until 5s" in dashboard.answer("unlock protective stop")
    turn(controller, 5.1)
    assert dashboard.answer("unlock protective stop") == "Protective stop releasing"
    assert dashboard.answer("safetystatus") == "Safetystatus: NORMAL"


def test_the_watchdog_stops_a_silent_program(controller: Controller) -> None:
    controller.start_script(SCRIPT)
    command(controller, 35, 10.0)
    turn(controller, 0.2)
    assert controller.program is None
    assert "watchdog" in controller.events[-1][1]


def test_after_an_emergency_stop_power_and_brakes_must_be_switched_on(controller: Controller) -> None:
    dashboard = Dashboard(controller)
    controller.emergency_stop(True)
    assert "Failed" in dashboard.answer("power on")
    controller.emergency_stop(False)
    assert dashboard.answer("robotmode") == "Robotmode: POWER_OFF"
    dashboard.answer("brake release")
    turn(controller, 1.2)
    assert dashboard.answer("robotmode") == "Robotmode: RUNNING"


def test_local_control_refuses_scripts_and_the_dashboards_commands(controller: Controller) -> None:
    controller.remote = False
    controller.start_script(SCRIPT)
    assert controller.program is None
    dashboard = Dashboard(controller)
    assert dashboard.answer("is in remote control") == "false"
    assert "not in remote control" in dashboard.answer("brake release")
    assert "could not understand" in dashboard.answer("make coffee")


def test_the_gripper_closes_and_says_where_it_is(controller: Controller) -> None:
    gripper = GripperServer(controller)
    assert gripper.answer("SET POS 255 SPE 255 FOR 80 GTO 1") == "ack"
    turn(controller, 1.0)
    assert int(gripper.answer("GET POS").split()[1]) > 245
    assert gripper.answer("GET OBJ") == "OBJ 3"
    assert gripper.answer("SET POS 300") == "?"
    assert gripper.answer("nonsense") == "?"


def test_the_frequency_of_outputs_is_bounded() -> None:
    from vla_envs.counterparts.ur.sockets import Sockets

    with pytest.raises(ValueError, match=r"expected 1\.\.500"):
        Sockets._setup_outputs(None, type("C", (), {"protocol": 2})(), struct.pack(">d", 1e9) + b"actual_q")  # type: ignore[arg-type]
