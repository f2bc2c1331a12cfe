"""``vla data solve``: find out what the columns of a data set mean, say why, and write it down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from vla.cli.flags import parse

if TYPE_CHECKING:
    from vla.data.solve.robot import RobotModel


@dataclass(frozen=True)
class Solve:
    """Infer the conventions of a data set; nothing is guessed: what the data do not show is refused.

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
    """Print the table; 0 when the embodiment file could be written (or was), else 1."""
    from vla.data.description import description_path
    from vla.data.readers import is_store, open_raw
    from vla.data.readers.known import known_description
    from vla.data.remote import is_url
    from vla.data.remote_copy import local_copy
    from vla.data.solve import solve
    from vla.data.solve.draft import read_given, write_draft
    from vla.errors import DatasetError

    if is_store(flags.path):
        raise DatasetError(f"{flags.path} is our own store and carries its embodiments: nothing to solve.")
    path = local_copy(flags.path) if is_url(flags.path) else Path(flags.path)
    beside = description_path(path)
    target = flags.out or (beside if flags.write else None)
    if target is not None and target.exists():
        raise DatasetError(f"{target} is there already: move it away to have it written anew.")
    if beside.exists():
        print(f"{beside} already says what the columns mean; this is what the data say.")
    given = {} if flags.answers is None else read_given(flags.answers)
    cameras = None if flags.cameras is None else [name for name in flags.cameras.split(",") if name]
    model = _model(flags)
    raw = open_raw(path, cameras=cameras)
    if not beside.exists() and known_description(raw) is not None:
        print(
            f"{flags.path} has a published layout: every command reads it as it is, no answers are needed. "
            "This is what the data themselves say."
        )
    solution = solve(raw, model=model, given=given)
    print(f"{flags.path}: {raw.format}, {len(raw.episodes)} episodes\n{solution.table()}\n")
    try:
        description = solution.description()
    except DatasetError as error:
        print(error)
        if target is not None:
            draft = target.with_name(f"{target.name.removesuffix('.json')}.draft.json")
            _write(lambda: write_draft(solution, draft), draft)
            print(f'wrote the draft {draft}: fill in what is "?" there and run this again with --answers')
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
