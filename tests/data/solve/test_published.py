"""What is said of data is compared with what the data say, and contradictions are named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.data.solve.arm import dataset, motions, robot
from vla.cli.main import main
from vla.data.importing import import_dataset
from vla.data.mapped import MappedSource
from vla.data.readers.memory import MemoryDataset
from vla.data.solve import solve
from vla.data.solve.published import compare, named, stated
from vla.data.store import EpisodeStore

MADE = motions()
MODEL = robot()
SOLUTION = solve(dataset(MADE), model=MODEL)
SAID = SOLUTION.description()


def verdicts(said) -> dict[str, str]:
    return {row.question: row.verdict for row in compare(SOLUTION, stated(said))}


def with_rule(of: str, field: str, **changes):
    rules = tuple(replace(r, **changes) if r.field == field else r for r in getattr(SAID, of))
    return replace(SAID, **{of: rules})


def test_what_the_solver_wrote_it_finds_again():
    assert set(verdicts(SAID).values()) == {"agrees"}
    wanted = {"rotation", "gripper_action", "gripper_state", "action_mode", "control_hz", "joints"}
    assert wanted <= set(verdicts(SAID))


@pytest.mark.parametrize(
    ("lie", "question"),
    [
        (with_rule("state", "tcp_rotation", rotation="quat_wxyz"), "rotation"),
        (with_rule("action", "gripper", scale=-1.0), "gripper_action"),
        (with_rule("state", "gripper_opening", scale=-1.0, offset=1.0), "gripper_state"),
        (with_rule("action", "tcp_position_delta", unit="m/s"), "action_mode"),
        (with_rule("action", "tcp_position_delta", unit="mm/step"), "action_unit"),
        (with_rule("action", "tcp_position_delta", frame="tool"), "action_frame"),
        (with_rule("state", "tcp_position", start=1), "position"),
        (replace(SAID, embodiment=replace(SAID.embodiment, control_hz=20.0)), "control_hz"),
        (replace(SAID, action_lag=1), "action_lag"),
    ],
)
def test_a_lie_is_named(lie, question):
    assert [q for q, verdict in verdicts(lie).items() if verdict == "CONTRADICTS"][:1] == [question]


def test_joints_said_where_the_tool_is_moved_contradict():
    joints = solve(dataset(MADE, mode="joint_delta"), model=MODEL)
    rows = {row.question: row.verdict for row in compare(joints, stated(SAID))}
    assert rows["action_position"] == "CONTRADICTS"


def stored(folder: Path, **lies) -> Path:
    """The demonstrations in our own store, whose embodiment may lie."""
    raw = dataset(MADE)
    description = replace(SAID, instruction="do it")
    import_dataset(MappedSource(raw, description), folder / "sound.zarr")
    if not lies:
        return folder / "sound.zarr"
    with EpisodeStore.open(folder / "sound.zarr") as store:
        (arm,) = store.embodiments.values()
        lie = replace(arm, **lies)
        with EpisodeStore.create(folder / "lying.zarr", embodiments=[lie]) as out:
            from vla.data.source import read_episode

            for index in range(len(store)):
                out.append(read_episode(store, index))
    return folder / "lying.zarr"


def test_our_own_store_needs_no_answers_and_is_compared(tmp_path, capsys):
    assert main(["data", "solve", str(stored(tmp_path))]) == 0
    said = capsys.readouterr().out
    assert "no answers are needed" in said
    assert "contradict 0" in said


def test_a_store_whose_embodiment_lies_is_named(tmp_path, capsys):
    assert main(["data", "solve", str(stored(tmp_path, control_hz=20.0))]) == 1
    assert "CONTRADICTED: control_hz" in capsys.readouterr().out


def test_nothing_is_written_for_our_own_store(tmp_path, capsys):
    assert main(["data", "solve", str(stored(tmp_path)), "--write"]) == 2
    assert "nothing is to be answered" in capsys.readouterr().err


def test_names_say_places():
    names = {
        "state": ("x", "y", "z", "qx", "qy", "qz", "qw", *(f"joint_{i}" for i in range(6)), "gripper.pos"),
        "action": ("delta_x", "delta_y", "delta_z", "rx", "ry", "rz", "gripper"),
    }
    raw = dataset(MADE)
    raw = MemoryDataset([raw._episodes[i] for i in range(3)], names=names)
    said = named(raw)
    assert said["position"] == {"column": "state", "start": 0}
    assert said["rotation"] == {"column": "state", "start": 3, "format": "quat_xyzw"}
    assert said["joints"] == {"column": "state", "start": 7, "size": 6}
    assert said["action_position"]["start"] == 0
    assert (said["gripper_state"]["start"], said["gripper_action"]["start"]) == (13, 6)
    assert {row.verdict for row in compare(SOLUTION, said)} == {"agrees"}


def test_names_that_lie_are_contradicted():
    names = {"state": ("x", "y", "z", "qw", "qx", "qy", "qz", *(f"joint_{i}" for i in range(6)), "gripper")}
    raw = MemoryDataset(dataset(MADE)._episodes, names=names)
    rows = {row.question: row.verdict for row in compare(SOLUTION, named(raw))}
    assert rows["rotation"] == "CONTRADICTS"
    assert np.unique(list(rows.values())).tolist() == ["CONTRADICTS", "agrees"]
