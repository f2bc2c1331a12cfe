from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eval.fake_suite import HALF_M, STEP_M, point_embodiment
from vla.control.safety import SafetyConfig, SafetyEnvelope
from vla.embodiment import Embodiment, Field
from vla.errors import ActionError, ConfigError

POINT = point_embodiment()
#: What an arm driven by tool deltas inside a box is counted by.
COUNTED = ("state", "non_finite", "range", "change", "workspace")
COUNTED += ("range_material", "change_material", "workspace_material")
AT_REST = {"tcp_position": np.zeros(3, np.float32) + 0.05, "tcp_error": np.zeros(3, np.float32)}
anything = st.floats(width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30])
nearby = st.floats(-0.3, 0.3)

ANGLES: Any = {"size": 2, "unit": "rad", "frame": "joint", "mode": "absolute", "slot": "arm0.joint_position"}
ONE: Any = {"size": 1, "unit": "1", "frame": "none", "mode": "absolute", "low": (-1,), "high": (1,)}
JOINTS = Embodiment(
    name="joints",
    cameras=(),
    state=(
        Field(name="joint_position", low=(-3, -3), high=(3, 3), **ANGLES),
        Field(name="gripper_command", slot="arm0.gripper_command", **ONE),
    ),
    action=(
        Field(name="joint_target", low=(-2, -2), high=(2, 2), **ANGLES),
        Field(name="gripper", slot="arm0.gripper", gripper_sign="positive_closes", **ONE),
    ),
    control_hz=10,
)


def joint_state(q: float = 0.0, gripper: float = 1.0) -> dict[str, np.ndarray]:
    return {"joint_position": np.full(2, q, np.float32), "gripper_command": np.array([gripper], np.float32)}


@settings(max_examples=200, deadline=None)
@given(
    actions=st.lists(st.lists(anything, min_size=4, max_size=4), min_size=1, max_size=6),
    start=st.lists(nearby, min_size=3, max_size=3),
    fraction=st.floats(0.01, 1.0),
    margin=st.floats(0, 0.02),
)
def test_delta_output_is_always_inside_every_limit(
    actions: list[list[float]], start: list[float], fraction: float, margin: float
) -> None:
    envelope = SafetyEnvelope(POINT, SafetyConfig(max_delta_change=fraction, workspace_margin_m=margin))
    low, high = np.array(POINT.workspace_low) + margin, np.array(POINT.workspace_high) - margin
    tcp, last, eps = np.array(start, np.float32), np.zeros(3), 1e-6
    for action in actions:
        out = envelope(np.array(action), {"tcp_position": tcp, "tcp_error": np.zeros(3, np.float32)}).action
        delta = out[:3].astype(float)
        assert np.isfinite(out).all()
        assert (POINT.action_low <= out).all()
        assert (out <= POINT.action_high).all()
        reach = fraction * 2 * STEP_M
        slower = (np.abs(delta) <= np.abs(last) + eps) & (delta * last >= -eps)
        assert (slower | (np.abs(delta - last) <= reach + eps)).all()
        reached = tcp + delta
        assert (reached >= np.minimum(low, tcp) - eps).all()
        assert (reached <= np.maximum(high, tcp) + eps).all()
        tcp, last = reached.astype(np.float32), delta


@settings(max_examples=100, deadline=None)
@given(
    actions=st.lists(st.lists(anything, min_size=3, max_size=3), min_size=1, max_size=6),
    q=st.floats(-2, 2, width=32),
    fraction=st.floats(0.01, 1.0),
)
def test_absolute_output_is_always_inside_range_and_reach(
    actions: list[list[float]], q: float, fraction: float
) -> None:
    envelope = SafetyEnvelope(JOINTS, SafetyConfig(max_absolute_change=fraction))
    last = np.full(2, q)
    for action in actions:
        out = envelope(np.array(action), joint_state(q)).action
        assert (JOINTS.action_low <= out).all()
        assert (out <= JOINTS.action_high).all()
        assert (np.abs(out[:2] - last) <= fraction * 4 + 1e-5).all()
        last = out[:2].astype(float)


@settings(deadline=None)
@given(st.lists(st.floats(-0.0225, 0.0225), min_size=3, max_size=3))
def test_a_harmless_action_passes_unchanged_and_uncounted(delta: list[float]) -> None:
    envelope = SafetyEnvelope(POINT)
    action = np.array([*delta, 1.0], np.float32)
    safe = envelope(action, AT_REST)
    np.testing.assert_array_equal(safe.action, action)
    assert safe.events == ()
    assert set(envelope.counts.values()) == {0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_action_stops_the_arm_and_keeps_the_gripper(bad: float) -> None:
    envelope = SafetyEnvelope(POINT)
    envelope(np.array([0.02, 0, 0, 1.0]), AT_REST)
    safe = envelope(np.array([0.02, bad, 0, -1.0]), AT_REST)
    np.testing.assert_array_equal(safe.action, [0, 0, 0, 1])
    assert safe.events == ("non_finite",)


def test_before_any_command_hold_takes_the_measured_joints_and_gripper() -> None:
    envelope = SafetyEnvelope(JOINTS)
    np.testing.assert_allclose(envelope.hold(joint_state(0.7, gripper=1.0)), [0.7, 0.7, 1.0])
    np.testing.assert_allclose(envelope(np.full(3, np.nan), joint_state(0.7)).action, [0.7, 0.7, 1.0])


def test_a_state_that_is_not_finite_stops_the_arm_whatever_the_action() -> None:
    envelope = SafetyEnvelope(POINT)
    blind = {**AT_REST, "tcp_position": np.array([0, np.nan, 0], np.float32)}
    safe = envelope(np.array([0.02, 0, 0, -1.0]), blind)
    np.testing.assert_array_equal(safe.action[:3], 0)
    assert safe.events == ("state",)


def test_range_and_change_are_counted_by_name() -> None:
    envelope = SafetyEnvelope(POINT)
    assert envelope(np.array([0.5, 0, 0, 0]), AT_REST).events == ("range",)
    safe = envelope(np.array([-STEP_M, 0, 0, 0]), AT_REST)
    assert safe.events == ("change",)
    assert safe.action[0] == pytest.approx(STEP_M - 0.75 * 2 * STEP_M)
    once = dict.fromkeys(("range", "range_material", "change", "change_material"), 1)
    assert envelope.counts == {**dict.fromkeys(COUNTED, 0), **once}
    envelope.reset()
    assert set(envelope.counts.values()) == {0}


@pytest.mark.parametrize(("overshoot_m", "material"), [(1e-6, 0), (0.0005, 0), (0.0007, 1)])
def test_every_clamp_is_counted_and_the_material_ones_besides(overshoot_m: float, material: int) -> None:
    envelope = SafetyEnvelope(POINT)  # range 0.06 m: more than 0.0006 m is material
    safe = envelope(np.array([STEP_M + overshoot_m, 0, 0, 0]), AT_REST)
    assert safe.events == ("range",)
    assert (envelope.counts["range"], envelope.counts["range_material"]) == (1, material)


def test_the_commanded_not_the_measured_position_is_kept_in_the_box() -> None:
    state = {
        "tcp_position": np.array([HALF_M - 0.02, 0, 0.1], np.float32),
        "tcp_error": np.array([0.015, 0, 0], np.float32),
    }
    safe = SafetyEnvelope(POINT)(np.array([0.02, 0, 0, 0]), state)
    assert safe.events == ("workspace",)
    assert safe.action[0] == pytest.approx(0.005, abs=1e-6)


def test_outside_the_box_it_may_come_back_but_not_go_on() -> None:
    outside = {"tcp_position": np.array([0.3, 0, 0.1], np.float32), "tcp_error": np.zeros(3, np.float32)}
    assert SafetyEnvelope(POINT)(np.array([0.02, 0, 0, 0]), outside).action[0] == 0
    assert SafetyEnvelope(POINT)(np.array([-0.02, 0, 0, 0]), outside).action[0] == pytest.approx(-0.02)


def test_braking_is_never_slowed_down() -> None:
    envelope = SafetyEnvelope(POINT, SafetyConfig(max_delta_change=0.1))
    for _ in range(6):
        envelope(np.array([STEP_M, 0, 0, 0]), AT_REST)
    assert envelope(np.zeros(4), AT_REST).events == ()


def test_the_gripper_may_close_in_one_step() -> None:
    envelope = SafetyEnvelope(JOINTS, SafetyConfig(max_absolute_change=0.01))
    safe = envelope(np.array([0, 0, -1.0]), joint_state(gripper=1.0))
    assert safe.action[2] == -1
    assert safe.events == ()


def test_a_wrong_shape_is_a_fault_not_a_motion() -> None:
    with pytest.raises(ActionError, match="shape"):
        SafetyEnvelope(POINT)(np.zeros(5), AT_REST)
    with pytest.raises(ActionError, match="shape"):
        SafetyEnvelope(POINT)(np.zeros((1, 4)), AT_REST)


def test_a_box_that_cannot_be_kept_is_refused() -> None:
    in_tool_frame = replace(POINT, action=(replace(POINT.action[0], frame="tool"), POINT.action[1]))
    with pytest.raises(ConfigError, match="disabled="):
        SafetyEnvelope(in_tool_frame)
    SafetyEnvelope(in_tool_frame, SafetyConfig(disabled=("workspace",)))
    with pytest.raises(ConfigError, match="state field"):
        SafetyEnvelope(replace(POINT, state=()))


def test_a_box_that_no_action_entry_can_keep_is_refused_not_ignored() -> None:
    boxed = replace(JOINTS, workspace_low=(-1, -1, 0), workspace_high=(1, 1, 1))
    with pytest.raises(ConfigError, match=r"none of its action fields \(\['joint_target', 'gripper'\]\)"):
        SafetyEnvelope(boxed)
    SafetyEnvelope(boxed, SafetyConfig(disabled=("workspace",)))


@pytest.mark.parametrize(
    "changes", [{"max_delta_change": 0}, {"max_absolute_change": 2}, {"workspace_margin_m": -1}]
)
def test_limits_out_of_range_raise(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        SafetyConfig(**changes)  # type: ignore[arg-type]
