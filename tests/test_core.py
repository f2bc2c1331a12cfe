"""Types, slots, embodiments, errors and the registry: the nouns everything else is said in."""

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla import registry, spaces
from vla.embodiment import Camera, Embodiment, Field, compatible
from vla.errors import (
    ActionError,
    EmbodimentError,
    IncompatibleError,
    MissingExtraError,
    ObservationError,
    UnknownNameError,
    VlaError,
)
from vla.types import ActionChunk, Episode, Observation, Step


def make_field(name="tcp_position_delta", size=3, **changes) -> Field:
    values = {
        "unit": "m/step",
        "frame": "world",
        "mode": "delta",
        "low": (-0.03,) * size,
        "high": (0.03,) * size,
        "slot": "arm0.tcp_position_delta",
    }
    return Field(name=name, size=size, **(values | changes))


GRIPPER = make_field("gripper", 1, unit="1", mode="absolute", slot="arm0.gripper", low=(-1,), high=(1,))
POSITION = make_field(
    "tcp_position", unit="m", mode="absolute", slot="arm0.tcp_position", low=(-1,) * 3, high=(1,) * 3
)
ARM = Embodiment(
    name="toy",
    cameras=(Camera(name="front", role="front", height=64, width=64),),
    state=(POSITION,),
    action=(make_field(), replace(GRIPPER, gripper_sign="positive_closes")),
    control_hz=10,
    workspace_low=(-1, -1, 0),
    workspace_high=(1, 1, 1),
)


# --- errors


def test_unknown_names_suggest_the_closest_and_list_all():
    error = UnknownNameError("arm", "pnada", ["ur5e", "panda"])
    assert "Did you mean 'panda'?" in str(error)
    assert "Known: panda, ur5e." in str(error)


def test_unknown_names_say_when_nothing_exists():
    assert "(none registered)" in str(UnknownNameError("suite", "x", []))


def test_every_error_is_one_family():
    import vla.errors as module

    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) > 10
    assert all(issubclass(c, VlaError) for c in classes)


def test_incompatible_lists_every_reason():
    error = IncompatibleError("policy", "env", ["rate 10 Hz, here 20 Hz", "no wrist camera"])
    assert "rate 10 Hz" in str(error)
    assert "no wrist camera" in str(error)


def test_missing_extra_says_how_to_install_it():
    assert "pip install 'vla[fast]'" in str(MissingExtraError("simplejpeg", "fast", "Fast decoding"))


# --- slots


@pytest.mark.parametrize("slots", [spaces.STATE_SLOTS, spaces.ACTION_SLOTS])
def test_slots_tile_the_padded_vector(slots):
    covered = np.concatenate([np.arange(s.offset, s.offset + s.size) for s in slots.values()])
    assert np.array_equal(covered, np.arange(len(covered)))


def test_slot_places_never_change():
    """Stored policies rely on these numbers; a new meaning needs a new slot at the end."""
    assert spaces.SLOT_VERSION == 1
    assert (spaces.STATE_DIM, spaces.ACTION_DIM) == (64, 80)
    assert spaces.STATE_SLOTS["arm0.joint_position"].offset == 14
    assert spaces.ACTION_SLOTS["arm0.gripper"].offset == 39
    assert spaces.ACTION_SLOTS["arm1.tcp_position_delta"].offset == 40


@given(st.lists(st.floats(-1e3, 1e3, width=32, allow_subnormal=False), min_size=4, max_size=4))
def test_gather_inverts_scatter(values):
    vector = np.array(values, np.float32)
    padded = spaces.scatter(vector, ARM.action_index, spaces.ACTION_DIM)
    assert np.array_equal(spaces.gather(padded, ARM.action_index), vector)
    mask = spaces.slot_mask(ARM.action_index, spaces.ACTION_DIM)
    assert mask.sum() == 4
    assert not padded[~mask].any()


def test_unknown_overfull_and_shared_slots_raise():
    with pytest.raises(UnknownNameError, match=r"arm0\.gripper"):
        spaces.slot_index(spaces.ACTION_SLOTS, [("arm0.griper", 0, 1)])
    with pytest.raises(ValueError, match="do not fit"):
        spaces.slot_index(spaces.ACTION_SLOTS, [("arm0.gripper", 0, 2)])
    with pytest.raises(ValueError, match="share a slot"):
        spaces.slot_index(spaces.ACTION_SLOTS, [("arm0.gripper", 0, 1)] * 2)


# --- embodiments


def test_embodiment_survives_json():
    assert Embodiment.from_json(json.loads(json.dumps(ARM.to_json()))) == ARM


def test_embodiment_loads_from_a_file(tmp_path):
    (tmp_path / "toy.json").write_text(json.dumps(ARM.to_json()))
    assert Embodiment.load(tmp_path / "toy.json") == ARM


def test_unknown_json_keys_raise_with_a_hint():
    with pytest.raises(UnknownNameError, match="control_hz"):
        Embodiment.from_json({**ARM.to_json(), "control_hx": 10})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": (0.0,)}, "size 3, but 1 lows"),
        ({"low": (1.0,) * 3, "high": (0.0,) * 3}, "low must be below high"),
        ({"mode": "relative"}, "absolute, delta, velocity"),
        ({"rotation_format": "quaternion"}, "quat_wxyz"),
        ({"gripper_sign": "closes"}, "positive_closes"),
    ],
)
def test_contradictory_fields_raise(changes, message):
    with pytest.raises(VlaError, match=message):
        make_field(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": ()}, "no action fields"),
        ({"state": (POSITION, POSITION)}, "repeated state field"),
        ({"control_hz": 0}, "control_hz is 0"),
        ({"workspace_low": (0, 0)}, "two corners"),
    ],
)
def test_contradictory_embodiments_raise(changes, message):
    with pytest.raises(EmbodimentError, match=message):
        replace(ARM, **changes)


def test_state_packs_and_unpacks():
    state = {"tcp_position": np.array([0.1, 0.2, 0.3], np.float32)}
    assert np.array_equal(ARM.unpack_state(ARM.pack_state(state))["tcp_position"], state["tcp_position"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "lacks 'tcp_position'"),
        ({"tcp_position": np.zeros(2)}, "shape"),
        ({"tcp_position": np.array([0, 0, np.nan])}, "not finite"),
        ({"tcp_position": np.zeros(3), "tcp_positoin": np.zeros(3)}, "Did you mean 'tcp_position'"),
    ],
)
def test_wrong_states_raise(state, message):
    with pytest.raises((ObservationError, UnknownNameError), match=message):
        ARM.pack_state(state)


def test_wrong_actions_raise():
    with pytest.raises(ActionError, match="expected"):
        ARM.check_action(np.zeros(3))
    with pytest.raises(ActionError, match="not finite"):
        ARM.check_action(np.full(4, np.inf))


def test_fields_are_found_where_they_lie():
    assert ARM.field_slice("gripper", of="action") == slice(3, 4)
    with pytest.raises(UnknownNameError, match="tcp_position"):
        ARM.field_slice("gripper", of="state")


def test_cameras_are_found_by_role():
    assert ARM.camera("front").name == "front"
    with pytest.raises(UnknownNameError, match="camera role"):
        ARM.camera("wrist")


def test_another_name_stays_compatible():
    assert compatible(ARM, replace(ARM, name="other"))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(ARM, control_hz=20), "control rate"),
        (replace(ARM, cameras=()), "needs a 'front' camera"),
        (replace(ARM, action=ARM.action[:1]), "'gripper' is missing"),
        (replace(ARM, action=(ARM.action[0], GRIPPER)), "gripper_sign"),
        (replace(ARM, action=ARM.action[::-1]), "action order"),
        (replace(ARM, action=(make_field(high=(0.05,) * 3), ARM.action[1])), "range"),
        (replace(ARM, state=(replace(POSITION, frame="base"),)), "frame 'world', here 'base'"),
    ],
)
def test_incompatible_conventions_are_named(other, reason):
    verdict = compatible(ARM, other)
    assert not verdict
    assert any(reason in r for r in verdict.reasons), verdict.reasons


# --- values


def make_observation() -> Observation:
    return Observation(
        images={"front": np.zeros((64, 64, 3), np.uint8)},
        state={"tcp_position": np.zeros(3, np.float32)},
        instruction="go",
        embodiment="toy",
    )


def test_values_cannot_be_reassigned():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_observation().instruction = "stop"


def test_a_chunk_knows_its_horizon():
    assert ActionChunk(actions=np.zeros((8, 4), np.float32), control_hz=10).horizon == 8


def test_a_step_is_perturbed_where_label_and_execution_differ():
    action = np.zeros(4, np.float32)
    assert not Step(observation=make_observation(), action=action, executed=action.copy()).perturbed
    assert Step(observation=make_observation(), action=action, executed=action + 0.01).perturbed


def test_an_episode_is_as_long_as_its_steps():
    step = Step(observation=make_observation(), action=np.zeros(4), executed=np.zeros(4))
    episode = Episode(steps=(step, step), instruction="go", embodiment="toy", success=True, provenance={})
    assert len(episode) == 2


# --- registry


def test_the_packages_register_themselves():
    assert "tabletop" in registry.names(registry.SUITES)
    assert {"learned", "expert", "zero", "random"} <= set(registry.names(registry.POLICIES))


def test_unknown_suites_and_policies_raise_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="tabletop"):
        registry.suite("table-top")
    with pytest.raises(UnknownNameError, match="Did you mean 'expert'"):
        registry.policy_factory("exprt")
