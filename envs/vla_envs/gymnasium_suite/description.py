"""The file that makes gymnasium environments a suite: what is state, picture, instruction and success.

See ``fetch.json`` beside this module for a whole one, and ``docs/benchmarks.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vla.embodiment import Embodiment
from vla.errors import ConfigError, UnknownNameError, VlaError
from vla.files import read_json

_SHIPPED = Path(__file__).parent
_TASK_KEYS = ("id", "make", "instruction", "success")
_STATE_KEYS = ("at", "start", "scale")
_SUCCESS_KEYS = ("info", "terminated", "reward_at_least")


@dataclass(frozen=True, kw_only=True)
class Description:
    """Environments that one arm acts in.

    Args:
        benchmark: whose Python has them (``scripts/setup_benchmark``), or ``here``.
        imports: modules that register them, or Python files (from the description's folder).
        embodiment: the arm; sizes of its cameras give way to the size asked for.
        cameras: camera -> ``"render"``, or keys that lead to a picture in the observation.
        size_arguments: arguments of ``gymnasium.make`` that take the picture's size; without any, pictures
            are brought to it.
        state: state field -> ``at`` (keys into the observation), ``start`` (first entry, default 0) and
            ``scale`` (default 1).
        action_scale: what the environment is given is the action divided by this, entry by entry.
        tasks: name -> ``id``, ``make`` (arguments of ``gymnasium.make``), ``instruction`` (text, or
            ``{"info": key}`` where the environment states its own) and ``success`` (``{"info": key}``,
            ``{"terminated": true}`` or ``{"reward_at_least": number}``).
    """

    benchmark: str
    imports: tuple[str, ...]
    embodiment: Embodiment
    cameras: Mapping[str, Any]
    state: Mapping[str, Mapping[str, Any]]
    tasks: Mapping[str, Mapping[str, Any]]
    size_arguments: tuple[str, ...] = ()
    action_scale: tuple[float, ...] = ()

    def settings(self, task: str, image_size: int) -> dict[str, Any]:
        """What the server is told (``serving.gymnasium_worlds``)."""
        told, sizes = self.tasks[task], {f.name: f.size for f in self.embodiment.state}
        state = {
            name: {"start": 0, "scale": 1.0, **rule, "size": sizes[name]} for name, rule in self.state.items()
        }
        return {
            "imports": list(self.imports),
            "id": told["id"],
            "make": dict(told.get("make", {})),
            "size_arguments": list(self.size_arguments),
            "image_size": image_size,
            "cameras": dict(self.cameras),
            "state": state,
            "instruction": told["instruction"],
            "success": dict(told["success"]),
        }


def load_description(name: str) -> Description:
    """From a file, or one that comes with the package, by its name: ``fetch``.

    Raises:
        UnknownNameError: a key that does not exist; no such file.
        ConfigError: the file is damaged or contradicts itself.
    """
    path = Path(name) if name.endswith(".json") else _SHIPPED / f"{name}.json"
    if not path.is_file():
        shipped = [p.stem for p in _SHIPPED.glob("*.json")]
        raise UnknownNameError(
            "description of gymnasium environments (or path of a .json file)", name, shipped
        )
    data = read_json(path, ConfigError, "docs/benchmarks.md says what it must hold.")
    known = [f.name for f in fields(Description)]
    _check_keys(f"key of {path}", data, known)
    try:
        made = Description(
            **{
                **data,
                "embodiment": Embodiment.from_json(data["embodiment"]),
                "imports": tuple(_file(path, name) for name in data.get("imports", ())),
                **{k: tuple(data.get(k, ())) for k in ("size_arguments", "action_scale")},
            }
        )
    except VlaError:  # some are KeyErrors too
        raise
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: a part is missing or misshapen ({error}); keys: {known}.") from error
    _check(path, made)
    return made


def _file(path: Path, name: str) -> str:
    return str((path.parent / name).resolve()) if name.endswith(".py") else name


def _check(path: Path, made: Description) -> None:
    arm = made.embodiment
    for what, given, there in (
        ("cameras", set(made.cameras), {c.name for c in arm.cameras}),
        ("state fields", set(made.state), {f.name for f in arm.state}),
    ):
        if given != there:
            raise ConfigError(
                f"{path}: rules for the {what} {sorted(given)}, the embodiment has {sorted(there)}."
            )
    for name, rule in made.state.items():
        _check_keys(f"key of state field {name!r} in {path}", rule, _STATE_KEYS, ("at",))
    if made.action_scale and (
        len(made.action_scale) != arm.action_dim or min(map(abs, made.action_scale)) == 0
    ):
        raise ConfigError(
            f"{path}: action_scale needs {arm.action_dim} numbers other than 0: {made.action_scale}."
        )
    if not made.tasks:
        raise ConfigError(f"{path} has no tasks.")
    for name, task in made.tasks.items():
        _check_keys(f"key of task {name!r} in {path}", task, _TASK_KEYS, ("id", "instruction", "success"))
        if len(task["success"]) != 1:
            raise ConfigError(
                f"{path}: success of task {name!r} needs one of {_SUCCESS_KEYS}: {task['success']}."
            )
        _check_keys(f"sort of success in {path}", task["success"], _SUCCESS_KEYS)
        if not task["instruction"]:
            raise ConfigError(f"{path}: task {name!r} says nothing (instruction).")


def _check_keys(what: str, given: Mapping[str, Any], known: Any, needed: tuple[str, ...] = ()) -> None:
    for key in given:
        if key not in known:
            raise UnknownNameError(what, key, known)
    for key in needed:
        if key not in given:
            raise ConfigError(f"{what}: {key!r} is missing.")
