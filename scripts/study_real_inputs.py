"""Real demonstrations of other projects, from their own files to a training step.

    python scripts/study_real_inputs.py --bridge DIR --lerobot DIR --lift FILE --handover FILE --wipe FILE \\
        --out FILE

Each input that is given is read in its own format, checked, solved for conventions (or refused), imported
into our store and read back; then all of them, read where they lie, are mixed with demonstrations of the
tabletop suite, made on the spot, and a small policy trains on the mixture for a few steps. Prints a table
and, last, one JSON line; exits with 1 where an input cannot be read, the check's errors are not those of
``ERRORS``, the solver contradicts what is published of a layout (``vla.data.readers.known``) or finds meaning
in numbers that have none, an import changes a number, or the loss does not fall. The solver works without a
robot model: robosuite's files hold one, but no tool position that it could be compared with.

``--bridge`` is a folder of BridgeData V2 in RLDS (octo's debug set), ``--lerobot`` a LeRobotDataset v3.0,
``--lift``, ``--handover`` and ``--wipe`` the demo.hdf5 of human teleoperation in the robosuite 1.4.1 wheel;
the last names neither its rate nor the parts of its state, so that a person says both.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for _variable, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
    os.environ.setdefault(_variable, _value)

import numpy as np
import tyro

from vla.contract import PolicyContract
from vla.data.check import check
from vla.data.description import CameraRule, ColumnRule, DatasetDescription
from vla.data.importing import import_dataset
from vla.data.mapped import MappedSource
from vla.data.mixture import SourceConfig
from vla.data.readers import open_raw, open_source
from vla.data.readers.known import known_description
from vla.data.readers.known_fields import joints_field, pose_change_fields
from vla.data.solve import Solution, solve
from vla.data.source import EpisodeSource, RawDataset
from vla.data.store import EpisodeStore
from vla.embodiment import Camera, Embodiment, Field
from vla.text import text_table
from vla.train.config import (
    DEFAULT_STATE_SLOTS,
    BudgetConfig,
    DataConfig,
    GenerationConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)
from vla.train.loop import train


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Real inputs; those that are not given are left out.

    Args:
        bridge: folder of BridgeData V2, RLDS.
        lerobot: folder of a LeRobotDataset v3.0 with columns of six joints, which get a made-up description.
        lift, handover, wipe: robosuite's demo.hdf5.
        steps: of training.
        out: where to write the result.
    """

    bridge: Path | None = None
    lerobot: Path | None = None
    lift: Path | None = None
    handover: Path | None = None
    wipe: Path | None = None
    steps: int = 20
    out: Path | None = None


JOINT_SLOTS = ("arm0.joint_position", "arm1.joint_position")
INSTRUCTIONS = {"lift": "lift the cube", "handover": "hand the hammer over", "wipe": "wipe the table"}
#: What the check must find of severity "error", and nothing else: the placeholder that BridgeData puts first,
#: read on purpose without ``skip_first``. (In Lift a person asks for 3.75 times what the controller gives;
#: the published layout says that it is held: a note.)
ERRORS = {"bridge": ["placeholder_first"]}


def main() -> int:
    flags = tyro.cli(Inputs)
    given = {name: getattr(flags, name) for name in ("bridge", "lerobot", "lift", "handover", "wipe")}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sources = []
        for name, path in given.items():
            if path is not None:
                rows.append(take(name, path, work))
                sources.append(SourceConfig(path=str(path), description=rows[-1].pop("description")))
        training = train_on(sources, work, flags.steps)
        fed = {r["input"]: fed_to_network(s, work) for r, s in zip(rows, sources, strict=True)}
    blind = [name for name, what in fed.items() if not what]
    print(
        text_table(
            ["input", "format", "episodes", "steps", "rate", "agree", "echo", "refused", "disagree", "fed"]
            + ["findings"],
            [
                [r["input"], r["format"], str(r["episodes"]), str(r["steps"]), f"{r['control_hz']:g} Hz"]
                + [
                    *(str(len(r["published"][k])) for k in ("agree", "echo", "refused", "disagree")),
                    ", ".join(fed[r["input"]]) or "NOTHING",
                    ", ".join(r["findings"]) or "none",
                ]
                for r in rows
            ],
        )
    )
    changed = [r["input"] for r in rows if not r["import_exact"]]
    wrong = [f"{r['input']}: {q}" for r in rows for q in r["published"]["disagree"]]
    right = sum(q not in r["refused"] for r in rows for q in r["published"]["agree"])
    echoes = sum(len(r["published"]["echo"]) for r in rows)
    empty, thin = (
        sum(q in r["refused"] for r in rows for q in r["published"][k]) for k in ("agree", "refused")
    )
    unlike = [r["input"] for r in rows if r["errors"] != ERRORS.get(r["input"], [])]
    result = {
        "claim": "real demonstrations of other projects: read, checked, solved, imported, mixed, trained on",
        "target": "each is read; the check finds the known errors alone; the solver contradicts nothing "
        "published; the import changes no number (as float32); each feeds state or pictures to the network; "
        "the loss falls",
        "measured": f"{len(rows)} inputs, {sum(r['steps'] for r in rows)} steps; "
        f"errors as known: {not unlike}; {right} answers of the solver right, {echoes} echoes "
        f"of what the file states, {len(wrong)} wrong, {thin} "
        f"refused, and {empty} questions without an answer refused; "
        f"imports exact (as float32): {not changed}; sources that feed nothing: {len(blind)}; "
        f"loss {training['first_loss']:.2f} -> {training['last_loss']:.2f} in {flags.steps} training steps",
        "command": "python scripts/study_real_inputs.py --bridge DIR --lerobot DIR --lift FILE "
        "--handover FILE --wipe FILE --out docs/results/real_inputs.json",
        "rows": rows,
        "fed": fed,
        "training": training,
    }
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    falls = training["last_loss"] < training["first_loss"]
    faults = changed or wrong or unlike or blind or not rows
    return int(bool(faults) or not math.isfinite(training["last_loss"]) or not falls)


def take(name: str, path: Path, work: Path) -> dict[str, Any]:
    """Read, check, solve and import one input."""
    raw = open_raw(path)
    solution = solve(raw)
    said = {"lerobot": six_joints, "wipe": wiping}
    description = said[name](raw) if name in said else None
    known = wiping(raw) if name == "wipe" else known_description(raw)
    assert name == "lerobot" or known is not None
    source = open_source(path, description, instruction=INSTRUCTIONS.get(name, ""))
    assert isinstance(source, MappedSource)
    as_stored = (
        source if known is None else MappedSource(source.raw, replace(source.description, skip_first=0))
    )
    findings = check(as_stored).findings
    store = work / f"{name}.zarr"
    import_dataset(source, store)
    arm = source.embodiments[source.episodes[0].embodiment]
    description_file = work / f"{name}.embodiment.json"
    source.description.save(description_file)
    row = {
        "input": name,
        "description": str(description_file),
        "format": raw.format,
        "episodes": len(source),
        "steps": sum(info.length for info in source.episodes),
        "control_hz": arm.control_hz,
        "solved": {q: a.value for q, a in solution.answers.items() if not a.refused},
        "refused": list(solution.refused),
        "published": compare(solution, published(known) if known else nothing(arm.control_hz, solution), raw),
        "findings": dict(Counter(finding.kind for finding in findings)),
        "errors": sorted({f.kind for f in findings if f.severity == "error"}),
        "import_exact": exact(source, store),
    }
    source.close()
    return row


#: For each question whether a value is right; None: there is no right one, it must be refused.
Truth = Mapping[str, Callable[[Any], bool] | None]


def compare(solution: Solution, truth: Truth, raw: RawDataset) -> dict[str, list[str]]:
    """Questions that the solver answers rightly (or refuses rightly), refuses, and answers wrongly.

    ``echo``: right, and no more than what the file states.
    """
    found: dict[str, list[str]] = {"agree": [], "echo": [], "refused": [], "disagree": []}
    for question, right in truth.items():
        value = solution.value(question)
        good = value is None if right is None else value is not None and right(value)
        if good and question == "control_hz" and raw.control_hz is not None:
            found["echo"].append(question)
            continue
        found["agree" if good else "refused" if value is None else "disagree"].append(question)
    return found


def nothing(control_hz: float, solution: Solution) -> Truth:
    """Of numbers made up by lerobot's tests: they have a rate, and mean nothing else."""
    return {**dict.fromkeys(solution.answers), "control_hz": _near(control_hz)}


def published(known: DatasetDescription) -> Truth:
    """Of a layout whose conventions its authors published."""
    arm, right = known.embodiment, dict[str, Callable[[Any], bool] | None]()
    right |= {"control_hz": _near(arm.control_hz), "action_lag": known.action_lag.__eq__}
    rules = {("state", r.field): r for r in known.state} | {("action", r.field): r for r in known.action}
    for kind, members in (("state", arm.state), ("action", arm.action)):
        for member in members:
            rule, slot = rules[kind, member.name], member.slot.removeprefix("arm0.")
            unit = (rule.unit or member.unit).__eq__
            if slot == "tcp_position":
                right |= {"position": _at(rule, axes=[0, 1, 2], signs=[1, 1, 1]), "position_unit": unit}
            elif slot == "tcp_rotation":
                right["rotation"] = _at(rule, format=rule.rotation)
            elif slot == "joint_position" and kind == "state":
                right |= {"joints": _at(rule), "joint_unit": unit}
            elif slot == "tcp_position_delta":
                frame = "tool" if member.frame == "tool" else "world"
                right |= {
                    "action_position": _at(rule),
                    "action_mode": "delta".__eq__,
                    "action_frame": frame.__eq__,
                    "action_unit": unit if rule.scale == 1.0 else None,
                }
            elif slot == "tcp_rotation_delta":
                right["action_rotation"] = _at(rule)
            elif slot in ("gripper", "gripper_opening"):
                question = "gripper_action" if slot == "gripper" else "gripper_state"
                right[question] = _ends(rule, positive_closes=slot == "gripper")
    for camera in known.cameras:
        role = next(c.role for c in arm.cameras if c.name == camera.camera)
        right[f"camera.{camera.column}"] = lambda v, c=camera, r=role: (
            (v["camera"], v["flip"], v["bgr"]) == (r, c.flip, c.bgr)
        )
    return right


def _near(wanted: float) -> Callable[[float], bool]:
    return lambda value: abs(value / wanted - 1) < 0.03


def _at(rule: ColumnRule, **more: Any) -> Callable[[Any], bool]:
    wanted = {"column": rule.column, "start": rule.start, **more}
    return lambda value: all(value.get(key) == item for key, item in wanted.items())


def _ends(rule: ColumnRule, *, positive_closes: bool) -> Callable[[Any], bool]:
    """Which entry, and which of its ends is open."""
    open_is_high = positive_closes == (rule.scale < 0)
    return lambda v: _at(rule)(v) and (v["open"] > v["closed"]) == open_is_high


def exact(source: EpisodeSource, store: Path) -> bool:
    """Whether the store has every number and word of the source."""
    with EpisodeStore.open(store) as ours:
        return len(ours) == len(source) and all(
            info.instruction == source.episodes[i].instruction
            and all(
                np.array_equal(ours.column(i, column), source.column(i, column))
                for column in ("state", "action", "executed", "time_s")
            )
            for i, info in enumerate(ours.episodes)
        )


def six_joints(raw: RawDataset) -> DatasetDescription:
    """A description of six joints a side, which nobody can verify on synthetic numbers: for reading only."""
    joints: dict[str, Any] = {"size": 6, "unit": "rad", "frame": "joint", "mode": "absolute"}
    reach: dict[str, Any] = {"low": (-10.0,) * 6, "high": (10.0,) * 6, "slot": "arm0.joint_position"}
    cameras = [
        Camera(name=f"cam{i}", role=role, height=raw.cameras[key].height, width=raw.cameras[key].width)
        for i, (key, role) in enumerate(zip(sorted(raw.cameras), ("front", "wrist"), strict=False))
    ]
    arm = Embodiment(
        name="six_joints",
        cameras=tuple(cameras),
        state=(Field(name="joint_position", **joints, **reach),),
        action=(Field(name="joint_target", **joints, **reach),),
        control_hz=raw.control_hz or 10.0,
    )
    return DatasetDescription(
        embodiment=arm,
        state=(ColumnRule(field="joint_position", column="observation.state"),),
        action=(ColumnRule(field="joint_target", column="action"),),
        cameras=tuple(
            CameraRule(camera=c.name, column=k) for c, k in zip(cameras, sorted(raw.cameras), strict=False)
        ),
    )


def wiping(raw: RawDataset) -> DatasetDescription:
    """What a person knows of robosuite's Wipe with a Panda: its file holds MuJoCo's flattened state without
    the names of its parts (time, 7 joint angles, 7 speeds; there is no gripper), and no control rate (time
    rises by 0.05 s)."""
    controller = raw.episodes[0].provenance["controller"]
    shift, turn = controller["output_max"][:3], controller["output_max"][3:]
    joints, moves = joints_field("joint_position", 7, "arm0"), pose_change_fields("arm0", shift, turn)
    action = tuple(
        ColumnRule(field=member.name, column="actions", start=3 * i, scale=largest[0])
        for i, (member, largest) in enumerate(zip(moves, (shift, turn), strict=True))
    )
    return DatasetDescription(
        embodiment=Embodiment(
            name="robosuite_panda_wipe", cameras=(), state=(joints,), action=moves, control_hz=20.0
        ),
        state=(ColumnRule(field=joints.name, column="states", start=1),),
        action=action,
        executed=tuple(replace(rule, clip=True) for rule in action),
    )


def fed_to_network(source: SourceConfig, work: Path) -> list[str]:
    """Camera roles and state slots of a source that the trained network takes in."""
    contract = PolicyContract.from_json(json.loads((work / "run/contract.json").read_text()))
    description = DatasetDescription.load(str(source.description))
    slots = set(
        json.loads((work / "run/contract.json").read_text())["provenance"]["config"]["model"]["state_slots"]
    )
    roles = [c.role for c in description.embodiment.cameras if c.role in contract.camera_roles]
    return [*roles, *sorted({f.slot for f in description.embodiment.state} & slots)]


def train_on(sources: list[SourceConfig], work: Path, steps: int) -> dict[str, Any]:
    """A few steps on the mixture with our own demonstrations."""
    ours = SourceConfig(path=str(work / "tabletop.zarr"), weight=float(max(len(sources), 1)))
    config = TrainConfig(
        name="real_inputs",
        data=DataConfig(
            sources=(ours, *sources),
            generate=GenerationConfig(
                tasks=("pick",), embodiments=("panda",), episodes_per_cell=8, num_workers=1
            ),
            action_mode="quantile",
        ),
        model=ModelConfig(width=32, state_slots=(*DEFAULT_STATE_SLOTS, *JOINT_SLOTS)),
        optim=OptimConfig(batch_size=32, warmup_steps=5),
        budget=BudgetConfig(steps=steps),
        num_processes=1,
        log_every=1,
    )
    train(config, work / "run")
    lines = [json.loads(line) for line in (work / "run/metrics.jsonl").read_text().splitlines()]
    notes = json.loads((work / "run/contract.json").read_text())["provenance"]["data_notes"]
    windows = {
        key: sum(line[key] for line in lines) / len(lines) for key in lines[0] if key.startswith("windows/")
    }
    return {
        "first_loss": lines[0]["loss"],
        "last_loss": lines[-1]["loss"],
        "windows_per_batch": windows,
        "notes": notes,
    }


if __name__ == "__main__":
    sys.exit(main())
