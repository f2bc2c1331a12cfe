"""Limits of motion and looks at the pose: what the envelope does with arms that declare them."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.control.bench_arm import ACCELERATION, GEOMETRY, HIGH, JERK, LOW, MEASURED, VELOCITY, bench
from tests.eval.fake_suite import STEP_M, point_embodiment
from vla.control.geometry import PoseChecks
from vla.control.motion import MotionLimiter
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.embodiment import Embodiment, Field
from vla.errors import (
    ActionError,
    ConfigError,
    EmbodimentError,
    MissingExtraError,
    ObservationError,
    UnknownNameError,
)

anything = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, *HIGH, *LOW])
inside = st.tuples(*(st.floats(low, high) for low, high in zip(LOW, HIGH, strict=True)))
DT = 0.01


def at(*q: float) -> dict[str, np.ndarray]:
    return {"joint_position": np.array(q, np.float32)}


@settings(max_examples=60, deadline=None)
@given(
    targets=st.lists(inside | st.tuples(anything, anything, anything), min_size=1, max_size=8), start=inside
)
def test_velocity_acceleration_jerk_and_range_are_kept_from_any_input(
    targets: list[tuple[float, float, float]], start: tuple[float, float, float]
) -> None:
    envelope = SafetyEnvelope(bench(boxed=False))
    first = np.array(start, np.float32).astype(float)
    out = [first, first, first]
    for target in targets:
        for _ in range(12):
            out.append(envelope(np.array(target), at(*start)).action.astype(float))
    moved = np.array(out)
    rounding = 4e-7  # float32 at these angles; divided by the period as often as it is differenced
    assert (moved >= np.array(LOW) - rounding).all()
    assert (moved <= np.array(HIGH) + rounding).all()
    for order, limit in enumerate((VELOCITY, ACCELERATION, JERK), start=1):
        found = np.abs(np.diff(moved, n=order, axis=0)).max(axis=0) / DT**order
        assert (found <= np.array(limit) + 2**order * rounding / DT**order).all(), order


def test_a_target_within_the_limits_is_reached_and_kept_and_the_delay_is_counted() -> None:
    envelope, goal = SafetyEnvelope(bench(boxed=False)), np.array([0.5, -0.3, 0.2])
    for _ in range(120):
        safe = envelope(goal, at(0, 0, 0))
    np.testing.assert_allclose(safe.action, goal, atol=1e-6)
    assert safe.events == ()
    assert envelope.counts["motion"] > 10
    assert envelope.counts["motion_material"] > 0


def test_hold_while_moving_is_the_quickest_stop_and_does_not_swing_back() -> None:
    envelope = SafetyEnvelope(bench(boxed=False))
    for _ in range(30):
        last = envelope(np.array([2.0, 0, 0]), at(0, 0, 0)).action[0]
    rest = envelope.hold(at(0, 0, 0))[0]
    assert rest > last
    way = [envelope(envelope.hold(at(0, 0, 0)), at(0, 0, 0)).action[0] for _ in range(60)]
    assert (np.diff(way) >= 0).all()
    assert way[-1] == pytest.approx(rest, abs=1e-6)


def test_a_lost_encoder_brakes_within_the_limits() -> None:
    envelope = SafetyEnvelope(bench(boxed=False))
    for _ in range(30):
        envelope(np.array([2.0, 0, 0]), at(0, 0, 0))
    blind = [envelope(np.array([2.0, 0, 0]), at(np.nan, 0, 0)) for _ in range(60)]
    assert all(safe.events[0] == "state" for safe in blind)
    assert blind[-1].action[0] == blind[-2].action[0]


def test_an_arm_that_does_not_know_where_it_is_at_first_is_not_commanded_anywhere() -> None:
    envelope = SafetyEnvelope(bench(boxed=False))
    with pytest.raises(ObservationError, match="before anything was commanded"):
        envelope(np.zeros(3), at(np.nan, 0, 0))


def test_without_ruckig_limits_of_motion_are_refused_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruckig", None)
    with pytest.raises(MissingExtraError, match=r"vla\[control\]"):
        SafetyEnvelope(bench(boxed=False))
    assert "motion" not in SafetyEnvelope(bench(boxed=False), SafetyConfig(disabled=("motion",))).checks


def test_a_limiter_moves_only_when_it_is_told_that_it_was_obeyed() -> None:
    limiter = MotionLimiter(np.ones(1), np.ones(1), np.array([np.inf]), 0.1)
    limiter.start(np.zeros(1))
    assert limiter.towards(np.ones(1)) == limiter.towards(np.ones(1))
    limiter.accept()
    assert limiter.position > 0
    assert limiter.rest() > limiter.position


def test_a_state_on_the_edge_between_two_profiles_can_be_stopped_from() -> None:
    """Joint 6 comes to rest just as its acceleration does: ruckig alone finds no way on."""
    limiter = MotionLimiter(np.array([2.61]), np.array([20.0]), np.array([10000.0]), 0.01)
    for velocity, acceleration in ((-0.01999999999999983, 19.99999999999991), (-0.02000000000000413, 20.0)):
        limiter._now = (np.array([0.1165652468938846]), np.array([velocity]), np.array([acceleration]))
        assert limiter.rest()[0] == pytest.approx(0.11655, abs=2e-5)
        assert limiter.braking()[0] == pytest.approx(limiter.rest()[0], abs=1e-6)


# --- the pose


@settings(max_examples=40, deadline=None)
@given(targets=st.lists(inside, min_size=1, max_size=5), limited=st.booleans())
def test_no_command_touches_table_or_arm_or_leaves_the_box(
    targets: list[tuple[float, float, float]], limited: bool
) -> None:
    arm = bench(limited=limited)
    envelope = SafetyEnvelope(arm, geometry=GEOMETRY)
    poses = PoseChecks(GEOMETRY, arm, ("joint", "workspace", "collision"))
    q = np.array([0.0, 0.4, 1.2])
    for target in targets:
        for _ in range(15):
            q = envelope(np.array(target), at(*q)).action.astype(float)
            assert max(poses.breaches(q).values()) <= 2e-6


def test_the_arm_stops_before_the_table_and_comes_back_from_it() -> None:
    arm = bench(boxed=False)
    envelope = SafetyEnvelope(arm, geometry=GEOMETRY)
    down, up = np.array([0, 1.5, 1.6]), np.array([0, 0.4, 1.2])
    for _ in range(200):
        safe = envelope(down, at(0, 0.4, 1.2))
    assert safe.events[-1] == "collision"
    assert envelope.counts["collision"] > 50
    for _ in range(200):
        safe = envelope(up, at(0, 0.4, 1.2))
    np.testing.assert_allclose(safe.action, up, atol=1e-5)
    assert safe.events == ()


def test_the_box_of_a_joint_space_arm_is_kept_by_its_pose() -> None:
    envelope = SafetyEnvelope(bench(limited=False), geometry=GEOMETRY)
    for _ in range(20):
        safe = envelope(np.array([0.0, 0.2, 0.2]), at(0, 0.4, 1.2))  # stretched out upwards, above the box
    assert safe.events[-1] == "workspace"
    assert PoseChecks(GEOMETRY, bench(), ("workspace",)).tool(safe.action)[2] <= 0.85


def test_what_is_touched_at_the_beginning_may_be_left_but_not_pressed_harder() -> None:
    envelope = SafetyEnvelope(bench(limited=False, boxed=False), geometry=GEOMETRY)
    touching = at(0, 1.5, 1.6)
    poses = PoseChecks(GEOMETRY, bench(), ("collision",))
    assert poses.breaches(np.array([0, 1.5, 1.6]))["collision"] > 0
    assert envelope(np.array([0, 1.55, 1.6]), touching).events == ("collision",)
    assert envelope(np.array([0, 1.45, 1.6]), touching).events == ()


def test_a_margin_keeps_bodies_apart() -> None:
    near = np.array([0, 1.4, 1.6])
    bare, wide = (
        PoseChecks(g, bench(), ("collision",)) for g in (GEOMETRY, replace(GEOMETRY, margin_m=0.05))
    )
    assert bare.breaches(near)["collision"] == 0
    assert wide.breaches(near)["collision"] > 0


def tool_arm() -> Embodiment:
    """The point of the fake suite, with joints behind it."""
    return replace(point_embodiment(), state=(*point_embodiment().state, MEASURED))


def test_tool_actions_are_judged_by_the_joints_that_the_robot_says_they_lead_to() -> None:
    state = {name: np.zeros(3, np.float32) + 0.05 for name in ("tcp_position", "tcp_error")} | at(0, 1.4, 1.6)

    def predict(action: np.ndarray) -> np.ndarray:
        return np.array([0, 1.4 - action[2] / STEP_M * 0.3, 1.6])

    envelope = SafetyEnvelope(tool_arm(), geometry=GEOMETRY, predict=predict)
    assert envelope.checks[-3:] == ("workspace", "joint", "collision")
    assert envelope(np.array([0, 0, 0.01, 0]), state).events == ()
    safe = envelope(np.array([0, 0, -0.02, 1]), state)
    assert safe.events == ("collision",)
    np.testing.assert_array_equal(safe.action, [0, 0, 0, 0])


def test_joint_ends_hold_for_tool_actions() -> None:
    state = {name: np.zeros(3, np.float32) + 0.05 for name in ("tcp_position", "tcp_error")} | at(2.79, 0, 0)
    envelope = SafetyEnvelope(tool_arm(), geometry=GEOMETRY, predict=lambda a: np.array([2.79 + a[0], 0, 0]))
    assert envelope(np.array([0.02, 0, 0, 0]), state).events == ("joint",)
    assert envelope(np.array([-0.02, 0, 0, 0]), state).events == ()


@pytest.mark.parametrize(("mode", "unit"), [("delta", 1.0), ("velocity", 0.1)])
def test_deltas_and_speeds_end_at_the_ends_of_the_joints(mode: Any, unit: float) -> None:
    kind = {"delta": "arm0.joint_delta", "velocity": "arm0.joint_velocity"}[mode]
    field = Field(
        name="step", size=3, unit="rad", frame="joint", mode=mode, low=(-0.3,) * 3, high=(0.3,) * 3, slot=kind
    )
    arm = replace(bench(boxed=False, control_hz=10), action=(field,))
    envelope = SafetyEnvelope(arm)
    safe = envelope(np.array([0.2, 0.2, -0.2]), at(2.79, 0, -2.39))
    assert safe.events == ("joint",)
    np.testing.assert_allclose(safe.action, [min(0.01 / unit, 0.2), 0.2, -min(0.01 / unit, 0.2)], atol=1e-5)


# --- what cannot be checked, and what is turned off


def test_a_geometry_nobody_can_follow_is_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"predict_joints.*disabled=\('joint', 'collision'\)"):
        SafetyEnvelope(tool_arm(), geometry=GEOMETRY)
    SafetyEnvelope(tool_arm(), SafetyConfig(disabled=("joint", "collision")), geometry=GEOMETRY)
    with pytest.raises(ConfigError, match="is no MJCF"):
        SafetyEnvelope(bench(), geometry=replace(GEOMETRY, mjcf="<mujoco><oops/></mujoco>"))
    with pytest.raises(UnknownNameError, match="Did you mean 'elbow'"):
        SafetyEnvelope(bench(), geometry=replace(GEOMETRY, joints=("turn", "shoulder", "elbo")))
    with pytest.raises(ConfigError, match="2 joints"):
        SafetyEnvelope(bench(), geometry=replace(GEOMETRY, joints=("turn", "shoulder")))


def test_a_typo_turns_nothing_off() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'collision'"):
        SafetyConfig(disabled=("colision",))
    with pytest.raises(ConfigError, match="tuple"):
        SafetyConfig(disabled="collision")  # type: ignore[arg-type]
    for check in ("range", "non_finite", "state", "contract"):
        with pytest.raises(UnknownNameError, match="can be turned off"):
            SafetyConfig(disabled=(check,))
    with pytest.raises(TypeError, match="disable"):
        SafetyConfig.from_json({"disable": ["collision"]})


def test_what_is_turned_off_is_said_and_no_longer_counted(caplog: pytest.LogCaptureFixture) -> None:
    config = SafetyConfig(disabled=("collision", "motion"))
    envelope = SafetyEnvelope(bench(), config, geometry=GEOMETRY)
    assert "SAFETY CHECKS TURNED OFF: collision, motion" in caplog.text
    assert config.warning() == "SAFETY CHECKS TURNED OFF: collision, motion"
    assert envelope.checks == ("state", "non_finite", "range", "change", "workspace")
    assert not {"collision", "motion"} & set(envelope.counts)


def test_a_configuration_of_earlier_versions_is_understood() -> None:
    assert SafetyConfig.from_json({"workspace": True, "max_delta_change": 0.5}) == SafetyConfig(
        max_delta_change=0.5
    )
    assert SafetyConfig.from_json({"workspace": False}).disabled == ("workspace",)


def test_a_wiring_fault_is_counted_and_raised() -> None:
    envelope = SafetyEnvelope(bench(boxed=False))
    with pytest.raises(ActionError, match="shape"):
        envelope(np.zeros(4), at(0, 0, 0))
    assert envelope.counts["contract"] == 1


# --- what an embodiment declares


def test_limits_of_motion_come_back_and_files_without_them_still_load() -> None:
    arm = bench()
    assert Embodiment.from_json(arm.to_json()) == arm
    plain = bench(limited=False).to_json()
    assert "max_jerk" not in plain["action"][0]
    assert Embodiment.from_json(plain) == bench(limited=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_acceleration": ()}, "together"),
        ({"max_velocity": (1.0, 1.0)}, "3 positive"),
        ({"max_jerk": (1.0, 0.0, 1.0)}, "3 positive"),
        ({"mode": "delta"}, "absolute position"),
        ({"rotation_format": "rotvec"}, "absolute position"),
    ],
)
def test_limits_of_motion_that_mean_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(EmbodimentError, match=words):
        replace(bench().action[0], **changes)
