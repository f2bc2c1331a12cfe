"""The tabletop suite as evaluation and data generation see it."""

from __future__ import annotations

from typing import Any, cast

from vla.errors import EnvError
from vla.interfaces import Env, Policy
from vla_envs.tabletop.arms import ARM_NAMES, arm_names
from vla_envs.tabletop.env import TabletopEnv
from vla_envs.tabletop.experts import Expert
from vla_envs.tabletop.instructions import ParseError, parse_relation, parse_verb
from vla_envs.tabletop.names import HELD_OUT_ARM, TASKS
from vla_envs.tabletop.perturbations import PERTURBATIONS
from vla_envs.tabletop.seasons import Season
from vla_envs.tabletop.tasks.relation import COMPASS
from vla_envs.tabletop.tasks.slide import SIDE
from vla_envs.tabletop.tasks.turn import SENSE

_TASK_OF_VERB = {
    **dict.fromkeys(("open", "close"), "drawer"),
    **dict.fromkeys(SENSE, "turn"),
    **dict.fromkeys(SIDE, "slide"),
    **dict.fromkeys(COMPASS, "beside"),
}


class TabletopSuite:
    """See :class:`vla.interfaces.Suite`.

    Args:
        season: None for the public scenes, or what :meth:`Season.parse` takes: 7, 1007, "1007+unseen". The
            suite's name then ends in it, ``tabletop@1007``, and is what results carry.

    Raises:
        EnvError: no such season.
    """

    tasks = TASKS
    camera_roles = ("front", "wrist")
    perturbations = PERTURBATIONS
    heldout_embodiments = (HELD_OUT_ARM,)

    def __init__(self, season: Season | int | str | None = None) -> None:
        known = season is None or isinstance(season, Season)
        self.season: Season | None = season if known else Season.parse(season)  # type: ignore[assignment,arg-type]
        self.name = "tabletop" if self.season is None else f"tabletop@{self.season}"

    @property
    def embodiments(self) -> tuple[str, ...]:
        """Our arms, then foreign ones found on ``VLA_ARM_PATH``."""
        return arm_names()

    @property
    def default_embodiments(self) -> tuple[str, ...]:
        return ARM_NAMES

    def make(
        self,
        task: str,
        embodiment: str,
        *,
        image_size: int = 64,
        render: bool = True,
        detailed: bool = False,
    ) -> TabletopEnv:
        """Build an env (compiles a MuJoCo model: about 0.2 s); keep it and reset it."""
        return TabletopEnv(
            task, embodiment, image_size=image_size, render=render, detailed=detailed, season=self.season
        )

    def expert(self, env: Env) -> Policy:
        """The scripted policy for whatever ``env`` is asked to do."""
        return Expert(cast(TabletopEnv, getattr(env, "unwrapped", env)))

    def env_for_instruction(
        self, text: str, embodiment: str, seed: int = 0, *, tries: int = 2000, **make_kwargs: Any
    ) -> tuple[TabletopEnv, int]:
        """An env and a seed whose scene can do what the sentence asks.

        Args:
            text: e.g. "put the red cube in the blue bowl".
            seed: first seed to try; the next ones are tried until the scene fits.

        Returns:
            The env, already reset to the returned seed and told the instruction.

        Raises:
            ParseError: when the sentence has no known verb, or no scene tried could do it.
        """
        verb = parse_verb(text)
        task = _TASK_OF_VERB.get(verb, verb)
        if task == "pick" and parse_relation(text) is not None:
            task = "relation"
        env = self.make(task, embodiment, **make_kwargs)
        reason: EnvError | ParseError | None = None
        for candidate in range(seed, seed + tries):
            env.draw(candidate)
            try:
                env.set_instruction(text)
            except ParseError as error:
                reason = error
                continue
            env.reset(seed=candidate)
            env.set_instruction(text)
            return env, candidate
        env.close()
        raise ParseError(f"None of {tries} {task} scenes can do {text!r}. The last one said: {reason}")
