"""What the columns of an exported LeRobotDataset are: for lerobot (``features``), and for reading it back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vla.data.description import CameraRule, ColumnRule, DatasetDescription, Ranges
from vla.embodiment import Embodiment, Field


def export_description(
    arm: Embodiment,
    *,
    executed: bool,
    aux: Sequence[str],
    ranges: Ranges = "declared",
    held: Collection[str] = (),
) -> DatasetDescription:
    """What the columns mean (``embodiment.json``).

    Args:
        arm: whose columns they are.
        executed: there is a column of what was sent beside the label.
        aux: keys of the auxiliary quantities.
        ranges: where those of its fields come from.
        held: action fields that are executed at the end of their range, however far the label asks.
    """
    sent = _rules(arm.action, "executed" if executed else "action") if executed or held else ()
    return DatasetDescription(
        embodiment=arm,
        ranges=ranges,
        state=_rules(arm.state, "observation.state"),
        action=_rules(arm.action, "action"),
        executed=tuple(replace(rule, clip=rule.field in held) for rule in sent),
        aux={key: f"aux.{key}" for key in aux},
        time_column="time_s",
        cameras=tuple(CameraRule(camera=c.name, column=f"observation.images.{c.name}") for c in arm.cameras),
    )


def exported_features(
    arm: Embodiment,
    *,
    executed: bool,
    aux: Mapping[str, int],
    videos: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """``features`` of ``meta/info.json``.

    Args:
        arm: whose fields and cameras they are.
        executed: there is a column of what was sent beside the label.
        aux: numbers a step of each auxiliary quantity.
        videos: what is known of each camera's video; a camera without one is stored as images.
    """
    features: dict[str, Any] = {}
    if arm.state_dim:
        features["observation.state"] = _vector("float32", _entry_names(arm.state))
    features["action"] = _vector("float32", _entry_names(arm.action))
    for camera in arm.cameras:
        feature: dict[str, Any] = {
            "dtype": "video" if camera.name in videos else "image",
            "shape": [camera.height, camera.width, 3],
            "names": ["height", "width", "channels"],
        }
        if camera.name in videos:
            feature["info"] = videos[camera.name]
        features[f"observation.images.{camera.name}"] = feature
    if executed:
        features["executed"] = _vector("float32", _entry_names(arm.action))
    features["time_s"] = _vector("float64", None)
    for key, size in aux.items():
        features[f"aux.{key}"] = _vector("float32", [f"{key}.{i}" for i in range(size)])
    features["timestamp"] = _vector("float32", None)
    for key in ("frame_index", "episode_index", "index", "task_index"):
        features[key] = _vector("int64", None)
    return features


def _rules(members: Sequence[Field], column: str) -> tuple[ColumnRule, ...]:
    rules, start = [], 0
    for member in members:
        rules.append(ColumnRule(field=member.name, column=column, start=start))
        start += member.size
    return tuple(rules)


def _entry_names(members: Sequence[Field]) -> list[str]:
    return [m.name if m.size == 1 else f"{m.name}.{i}" for m in members for i in range(m.size)]


def _vector(dtype: str, names: list[str] | None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [len(names) if names else 1], "names": names}
