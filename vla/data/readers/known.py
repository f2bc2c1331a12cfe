"""Layouts whose conventions their authors published, so that nobody has to solve for them.

Recognised by what is in the files, never by the name of a folder. Ranges of the state are for people. Ranges
of the action are the controller's for robosuite; for BridgeData and ALOHA no source states any, so they are
round numbers and marked so (``ranges="assumed"``): such arms are normalised by quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vla.data.description import CameraRule, ColumnRule, DatasetDescription, SourceRotation
from vla.data.readers.known_fields import (
    arm_prefix,
    cameras_by_role,
    column_size,
    field_of,
    gripper_field,
    joints_field,
    opening_field,
    pose_change_fields,
    rotation_field,
)
from vla.data.source import RawDataset
from vla.embodiment import Camera, CameraRole, Embodiment, Field

#: Roles of the cameras of robomimic and LIBERO by the camera's name in robosuite.
_ROBOSUITE_ROLES: Mapping[str, CameraRole] = {
    "agentview_rgb": "front", "agentview_image": "front", "eye_in_hand_rgb": "wrist",
    "robot0_eye_in_hand_image": "wrist", "sideview_image": "side",
}  # fmt: skip
_ALOHA_ROLES: Mapping[str, CameraRole] = {
    "cam_high": "top", "top": "top", "cam_low": "front", "cam_left_wrist": "wrist_left",
    "cam_right_wrist": "wrist_right",
}  # fmt: skip
_ALOHA_SIDES = (("arm0", "left", 0), ("arm1", "right", 7))


#: What people call the published layouts, by format.
LAYOUT_NAMES: Mapping[str, str] = {
    "rlds": "BridgeData V2", "robomimic": "robosuite OSC_POSE", "libero": "LIBERO", "aloha": "ALOHA",
}  # fmt: skip


def known_description(raw: RawDataset) -> DatasetDescription | None:
    """The description of a published layout; None where this one is not known."""
    readers = {"rlds": _bridge, "robomimic": _osc_pose, "libero": _osc_pose, "aloha": _aloha}
    return readers[raw.format](raw) if raw.format in readers else None


def _bridge(raw: RawDataset) -> DatasetDescription | None:
    """BridgeData V2 (Walke et al. 2023; rail-berkeley/bridge_data_v2 and its RLDS build): a WidowX at 5 Hz.

    State: x y z, roll pitch yaw, gripper (1 open). Action: their change, gripper target (1 open). So octo
    reads it: octo/data/oxe/oxe_dataset_configs.py (POS_EULER, EEF_POS, image_0 first) and
    oxe_standardization_transforms.py. 5 Hz: move_duration 0.2 of bridge_data_robot's widowx_env_service.py.
    The first action of every episode is a placeholder: openvla drops it ("the first timestep has an all-zero
    action", prismatic/vla/datasets/rlds/oxe/transforms.py; lerobot's openx transforms do likewise); in 25
    episodes of the release it is below 1e-6 where the next is 0.01.
    Not stated anywhere: the ranges (of the 25 episodes, no action passes 0.033 m or 0.26 rad), and which axes
    the orientation counts from (bridge_data_robot's state2transform turns by the controller's default_rot).
    Only image_0 is read: the others are black in many episodes, and the flags that should say so are not
    always filled.
    """
    pictures = {f"observation/image_{i}" for i in range(4)}
    marks = {f"episode_metadata/has_image_{i}" for i in range(4)} | {"episode_metadata/has_language"}
    sizes = {name: raw.columns[name].size for name in ("action", "observation/state") if name in raw.columns}
    facts = raw.episodes[0].provenance
    if (
        sizes != {"action": 7, "observation/state": 7}
        or not {"observation/image_0"} <= set(raw.cameras) <= pictures
        or not marks <= set(facts)
    ):
        return None
    state = (
        field_of("tcp_position", 3, "tcp_position", 1.0, unit="m", frame="base"),
        rotation_field(),
        opening_field("gripper_opening", "arm0"),
    )
    action = (
        *pose_change_fields("arm0", (0.05,) * 3, (0.25,) * 3, frame="base"),
        gripper_field("gripper", "arm0"),
    )
    stored = raw.cameras["observation/image_0"]
    return DatasetDescription(
        embodiment=Embodiment(
            name="widowx",
            cameras=(Camera(name="image_0", role="front", height=stored.height, width=stored.width),),
            state=state,
            action=action,
            control_hz=5.0,
        ),
        state=(
            ColumnRule(field="tcp_position", column="observation/state"),
            ColumnRule(field="tcp_rotation", column="observation/state", start=3, rotation="euler_xyz"),
            ColumnRule(field="gripper_opening", column="observation/state", start=6),
        ),
        action=(
            ColumnRule(field="tcp_position_delta", column="action"),
            ColumnRule(field="tcp_rotation_delta", column="action", start=3, rotation="euler_xyz"),
            ColumnRule(field="gripper", column="action", start=6, scale=-2.0, offset=1.0),
        ),
        cameras=(CameraRule(camera="image_0", column="observation/image_0"),),
        skip_first=1,
        ranges="assumed",
        evidence={"known": "BridgeData V2, RLDS"},
    )


def _osc_pose(raw: RawDataset) -> DatasetDescription | None:
    """robosuite's OSC_POSE controller, one arm or two, in files of robosuite, robomimic and LIBERO.

    robosuite/controllers/osc.py: -1..1 is scaled to ``output_min..output_max``; metres and a rotation vector,
    both in the world's frame. Numbers beyond -1..1 are clipped before (base_controller.py, scale_action):
    the label is what the person asked for, ``executed`` what the arm was sent. robosuite/models/grippers: -1
    opens, +1 closes. ``eef_quat`` is x y z w (robosuite/utils/transform_utils.py); LIBERO's ``ee_ori`` is its
    rotation vector (LIBERO, scripts/create_dataset.py: quat2axisangle).

    LIBERO's create_dataset.py stores pictures as the simulator gives them and names the convention in
    ``macros_image_convention``. robosuite's default, "opengl" (robosuite/macros.py), is bottom row first: a
    vertical flip puts them upright. openvla (regenerate_libero_dataset.py), openpi (examples/libero/main.py)
    and lerobot (envs/libero.py) turn them by 180 degrees instead, which mirrors the scene as well: to feed
    weights trained on such pictures, give a description with ``rotate_180``. That robomimic's pictures are
    upright already was not found in a source, only in its files.
    """
    controller = raw.episodes[0].provenance.get("controller", {})
    largest = controller.get("output_max")
    symmetric = controller.get("input_max") == 1 and controller.get("input_min") == -1
    if controller.get("type") != "OSC_POSE" or controller.get("control_delta") is not True or not symmetric:
        return None
    if not isinstance(largest, list) or len(largest) != 6 or raw.control_hz is None:
        return None
    if [-x for x in largest] != controller.get("output_min") or len({*largest[:3]}) + len(
        {*largest[3:]}
    ) != 2:
        return None
    arms = (raw.robot or "").split("+")
    stored = raw.columns["actions"].size
    if not 1 <= len(arms) <= 2 or stored not in (6 * len(arms), 7 * len(arms)):
        return None
    fields: list[Field] = []
    rules: list[ColumnRule] = []
    for number in range(len(arms)):
        arm, start = f"arm{number}", number * stored // len(arms)
        names = arm_prefix(len(arms), number)
        members = [*pose_change_fields(arm, largest[:3], largest[3:], prefix=names)]
        rules += [
            ColumnRule(field=m.name, column="actions", start=start + 3 * i, scale=largest[3 * i])
            for i, m in enumerate(members)
        ]
        if stored == 7 * len(arms):
            members.append(gripper_field(f"{names}gripper", arm))
            rules.append(ColumnRule(field=f"{names}gripper", column="actions", start=start + 6))
        fields += members
    state, state_rules = _robosuite_state(raw, arms)
    convention = raw.episodes[0].provenance.get("image_convention", "opengl")
    bottom_first = raw.format == "libero" and convention == "opengl"
    cameras, camera_rules = cameras_by_role(raw, _ROBOSUITE_ROLES, "vertical" if bottom_first else "none")
    robots = "_".join(arms).lower()
    return DatasetDescription(
        embodiment=Embodiment(
            name=f"robosuite_{robots}",
            cameras=cameras,
            state=state,
            action=tuple(fields),
            control_hz=raw.control_hz,
        ),
        state=state_rules,
        action=tuple(rules),
        executed=tuple(replace(rule, clip=True) for rule in rules),
        cameras=camera_rules,
        evidence={"known": f"robosuite OSC_POSE ({raw.format})"},
    )


def _robosuite_state(raw: RawDataset, arms: list[str]) -> tuple[tuple[Field, ...], tuple[ColumnRule, ...]]:
    """What there is of tool pose and joints; joints also out of MuJoCo's flattened state, by their names."""
    fields: list[Field] = []
    rules: list[ColumnRule] = []

    def add(
        member: Field, column: str, start: int = 0, rotation: SourceRotation = "", scale: float = 1.0
    ) -> None:
        fields.append(member)
        rules.append(
            ColumnRule(field=member.name, column=column, start=start, rotation=rotation, scale=scale)
        )

    libero = raw.format == "libero"
    for number, robot in enumerate(arms):
        arm, names, obs = f"arm{number}", arm_prefix(len(arms), number), f"obs/robot{number}_"
        position = "obs/ee_pos" if libero else f"{obs}eef_pos"
        if column_size(raw, position) == 3:
            add(field_of(f"{names}tcp_position", 3, "tcp_position", 2.0, unit="m", arm=arm), position)
        rotation, written, size = (
            ("obs/ee_ori", "rotvec", 3) if libero else (f"{obs}eef_quat", "quat_xyzw", 4)
        )
        if column_size(raw, rotation) == size:
            add(rotation_field(arm, names), rotation, rotation=written)  # type: ignore[arg-type]
        joints = "obs/joint_states" if libero else f"{obs}joint_pos"
        member = joints_field(f"{names}joint_position", 7, arm)
        wanted = [f"robot{number}_joint{i + 1}" for i in range(7)]
        state_names = raw.columns["states"].names if "states" in raw.columns else ()
        if column_size(raw, joints) == 7:
            add(member, joints)
        elif wanted[0] in state_names:
            start = state_names.index(wanted[0])
            if list(state_names[start : start + 7]) == wanted:
                add(member, "states", start)
        grip = "obs/gripper_states" if libero else f"{obs}gripper_qpos"
        if (
            robot == "Panda" and column_size(raw, grip) == 2
        ):  # each finger travels 0..0.04 m (panda_gripper.xml)
            add(opening_field(f"{names}gripper_opening", arm), grip, scale=25.0)
    return tuple(fields), tuple(rules)


def _aloha(raw: RawDataset) -> DatasetDescription | None:
    """ALOHA (Zhao et al. 2023; tonyzhaozh/act, constants.py): two ViperX, 50 Hz, absolute joint targets.

    14 numbers: 6 joints (rad) and a gripper (0 closed .. 1 open) of the left arm, then of the right.
    Compressed pictures are left to a description: writers disagree about the order of colours.
    """
    facts = raw.episodes[0].provenance
    if (
        column_size(raw, "action") != 14
        or column_size(raw, "observations/qpos") != 14
        or facts.get("compress")
    ):
        return None
    state: list[Field] = []
    action: list[Field] = []
    seen: list[ColumnRule] = []
    sent: list[ColumnRule] = []
    for arm, side, start in _ALOHA_SIDES:
        state += [
            joints_field(f"{side}_joint_position", 6, arm),
            opening_field(f"{side}_gripper_opening", arm),
        ]
        action += [joints_field(f"{side}_joint_position", 6, arm), gripper_field(f"{side}_gripper", arm)]
        seen += [
            ColumnRule(field=f"{side}_joint_position", column="observations/qpos", start=start),
            ColumnRule(field=f"{side}_gripper_opening", column="observations/qpos", start=start + 6),
        ]
        sent += [
            ColumnRule(field=f"{side}_joint_position", column="action", start=start),
            ColumnRule(field=f"{side}_gripper", column="action", start=start + 6, scale=-2.0, offset=1.0),
        ]
    cameras, rules = cameras_by_role(raw, _ALOHA_ROLES, "none")
    arms = Embodiment(
        name="aloha", cameras=cameras, state=tuple(state), action=tuple(action), control_hz=50.0
    )
    return DatasetDescription(
        embodiment=arms,
        state=tuple(seen),
        action=tuple(sent),
        cameras=rules,
        ranges="assumed",
        evidence={"known": "ALOHA, 14 joints"},
    )
