"""``vla data solve``: find out what the columns of a data set mean, say why, and write it down."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vla.cli.flags import parse
from vla.text import counted

if TYPE_CHECKING:
    from vla.data.solve.answers import Solution
    from vla.data.solve.robot import RobotModel


@dataclass(frozen=True)
class Solve:
    """Infer the conventions of a data set; nothing is guessed: what the data do not show is refused.

    Where they are said already (a published layout, an embodiment file, our own store) no answers are needed,
    and what the data show is compared with what is said: exit code 1 where they contradict each other.

    Args:
        path: directory, file or URL in any format that 'vla data import' reads.
        write: save the embodiment file beside the data; where answers that it needs were refused, a draft
            (embodiment.draft.json) with "?" in their places, to be filled in and given as --answers.
        out: save it here instead, for data that one may not write beside.
        answers: JSON file {question: answer} with what you know; null: the data have no such thing.
        cameras: look only at these, by their stored names, separated by commas ('' for none); pictures of the
            others need not be there.
        suite: simulated suite that has the arm, for kinematics and pictures; with --arm.
        arm: name of the arm in the suite.
        mjcf: robot model (MJCF) of the arm, for kinematics.
        site: name of the tool site in --mjcf, where it is not called tcp.
    """

    path: tyro.conf.Positional[str]
    write: bool = False
    out: Path | None = None
    answers: Path | None = None
    cameras: str | None = None
    suite: str | None = None
    arm: str | None = None
    mjcf: Path | None = None
    site: str = ""


def run_solve(argv: Sequence[str]) -> int:
    return solve_path(parse(Solve, "data solve", argv))


def solve_path(flags: Solve) -> int:
    """Print the table, and where the layout is known what contradicts it.

    0: the embodiment file could be written (or was), or the data contradict nothing of a known layout.
    """
    from vla.data.description import description_path
    from vla.data.readers import is_store, open_raw
    from vla.data.remote import is_url
    from vla.data.remote_copy import local_copy
    from vla.data.solve import solve
    from vla.data.solve.draft import read_given, write_draft
    from vla.errors import DatasetError

    model = _model(flags)
    if is_store(flags.path):
        return _look_at_store(flags, model)
    path = local_copy(flags.path) if is_url(flags.path) else Path(flags.path)
    beside = description_path(path)
    target = flags.out or (beside if flags.write else None)
    if target is not None and target.exists():
        raise DatasetError(f"{target} is there already: move it away to have it written anew.")
    given = {} if flags.answers is None else read_given(flags.answers)
    cameras = None if flags.cameras is None else [name for name in flags.cameras.split(",") if name]
    raw = open_raw(path, cameras=cameras)
    solution = solve(raw, model=model, given=given)
    print(f"{flags.path}: {raw.format}, {counted(len(raw.episodes), 'episode')}\n{solution.table()}\n")
    known, agreed = _compare_known(flags.path, beside, solution)
    if known and target is None:
        raw.close()
        return int(not agreed)
    try:
        description = solution.description()
    except DatasetError as error:
        print(error)
        if target is not None:
            draft = target.with_name(f"{target.name.removesuffix('.json')}.draft.json")
            _write(lambda: write_draft(solution, draft), draft)
            print(
                f'wrote the draft {draft}: it says how; fill in what is "?" and run this again with --answers'
            )
        return 1
    finally:
        raw.close()
    if description.skip_first:
        print(f"skip_first: {description.evidence['skip_first']['evidence']}")
    if target is not None:
        _write(lambda: description.save(target), target)
        print(f"wrote {target}")
        if target != beside:
            print(f"every command that reads these data takes it as --description {target}")
    return 0


def _look_at_store(flags: Solve, model: RobotModel | None) -> int:
    """Our own store: nothing is to be answered, but an embodiment may say what the data contradict."""
    from vla.data.solve import solve
    from vla.data.solve.published import stated
    from vla.data.solve.stored import StoredColumns, stored_description
    from vla.data.store import EpisodeStore
    from vla.errors import DatasetError, UnknownNameError

    if flags.write or flags.out or flags.answers or flags.cameras is not None:
        raise DatasetError(
            f"{flags.path} is our own store: its embodiments say what its columns mean, nothing is to be "
            "answered or written. Without --write, --out, --answers and --cameras the two are compared."
        )
    agreed = True
    with EpisodeStore.open(flags.path) as store:
        print(f"{flags.path} is our own store: its embodiments say what columns mean, no answers are needed.")
        arms = sorted({episode.embodiment for episode in store.episodes})
        if flags.arm is not None and flags.arm not in arms:
            raise UnknownNameError(f"embodiment with episodes in {flags.path}", flags.arm, arms)
        for arm in arms if flags.arm is None else [flags.arm]:
            raw = StoredColumns(store, arm)
            try:
                solution = solve(raw, model=model)
            except DatasetError as error:  # an arm without a state shows nothing: the others may
                print(f"{arm}: nothing to compare with. {error}")
                continue
            print(f"\n{arm}: {counted(len(raw.episodes), 'episode')}")
            agreed &= _compare(f"the embodiment {arm!r}", solution, stated(stored_description(store, arm)))
    return int(not agreed)


def _compare_known(path: str, beside: Path, solution: Solution) -> tuple[bool, bool]:
    """(whether somebody says what all columns mean, whether the data contradict nothing that is said)."""
    from vla.data.description import DatasetDescription
    from vla.data.readers.known import known_description
    from vla.data.solve.published import named, stated

    if beside.exists():
        print(f"{beside} already says what the columns mean: no answers are needed.")
        return True, _compare(str(beside), solution, stated(DatasetDescription.load(beside)))
    published = known_description(solution.raw)
    if published is not None:
        print(f"{path} has a published layout: every command reads it as it is, no answers are needed.")
        return True, _compare("what is published", solution, stated(published))
    names = named(solution.raw)
    if names:
        print("The names of the entries say where things are, not their units, frames and signs.")
        return False, _compare("the names of the entries", solution, names)
    return False, True


def _compare(who: str, solution: Solution, said: Mapping[str, Any]) -> bool:
    """Print what is said beside what was found; whether nothing contradicts."""
    from vla.data.solve.published import compare, comparison_table

    rows = compare(solution, said)
    count = {v: sum(row.verdict == v for row in rows) for v in ("agrees", "CONTRADICTS", "not seen")}
    unseen = [row.question for row in rows if row.verdict == "not seen"]
    print(
        f"{comparison_table(rows)}\nOf {who} the data confirm {count['agrees']}, contradict "
        f"{count['CONTRADICTS']} and do not show {count['not seen']}{':' if unseen else '.'}"
    )
    if unseen:
        print(solution.refusals(unseen))
    wrong = [row.question for row in rows if row.verdict == "CONTRADICTS"]
    if wrong:
        print(
            f"CONTRADICTED: {', '.join(wrong)}. One of the two is wrong; look before you train on these data."
        )
    return not wrong


def _write(save: Callable[[], object], path: Path) -> None:
    from vla.errors import DatasetError

    try:
        save()
    except OSError as error:
        raise DatasetError(f"{path} cannot be written ({error}): choose another place with --out.") from error


def _model(flags: Solve) -> RobotModel | None:
    from vla.data.solve.robot import MujocoRobot, suite_robot
    from vla.errors import ConfigError

    if (flags.suite is None) != (flags.arm is None) or (flags.suite and flags.mjcf):
        raise ConfigError("Give --suite together with --arm, or --mjcf alone, or none of them.")
    if flags.suite and flags.arm:
        return suite_robot(flags.suite, flags.arm)
    return MujocoRobot.from_mjcf(flags.mjcf, flags.site) if flags.mjcf else None
