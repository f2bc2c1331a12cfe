"""The suite's tasks by name."""

from __future__ import annotations

from vla.errors import UnknownNameError
from vla_envs.tabletop.names import TASKS
from vla_envs.tabletop.tasks.base import Goal, Layout, Placement, Task
from vla_envs.tabletop.tasks.beside import Beside
from vla_envs.tabletop.tasks.drawer import Drawer
from vla_envs.tabletop.tasks.insert import Insert
from vla_envs.tabletop.tasks.knock import Knock
from vla_envs.tabletop.tasks.pick import Pick
from vla_envs.tabletop.tasks.place import Place
from vla_envs.tabletop.tasks.press import Press
from vla_envs.tabletop.tasks.push import Push
from vla_envs.tabletop.tasks.relation import Relation
from vla_envs.tabletop.tasks.slide import Slide
from vla_envs.tabletop.tasks.stack import Stack
from vla_envs.tabletop.tasks.turn import Turn
from vla_envs.tabletop.tasks.unstack import Unstack

__all__ = ["Goal", "Layout", "Placement", "Task", "make_task"]

_TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(Pick(), Place(), Push(), Stack(), Knock(), Drawer(), Press(), Relation()),
        *(Turn(), Slide(), Insert(), Beside(), Unstack()),
    )
}
assert tuple(_TASKS) == TASKS


def make_task(name: str) -> Task:
    """The task of that name; an unknown one raises with the known ones."""
    if name not in _TASKS:
        raise UnknownNameError("task", name, _TASKS)
    return _TASKS[name]
