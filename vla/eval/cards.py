"""Failure cards: why an episode failed, by going on from its middle under something else.

For each chosen failure: the replay, the last step from which the expert could still have made it in time,
what the policy does from half way to there, under other words, with one camera less or with other weights,
and what it was taught that is most like it. Kept in ``cards/`` of the run directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vla import registry
from vla.control.policies import EXECUTION_HORIZON, PolicySpec
from vla.data.source import EpisodeSource
from vla.errors import ConfigError
from vla.eval.ablations import DEPRIVATIONS, DeprivedPolicy
from vla.eval.branches import MAX_STEPS, Branch, go_on, reachable_until
from vla.eval.evaluate import load_summary
from vla.eval.grid import EvalConfig
from vla.eval.nearest import Near, nearest_episodes
from vla.eval.records import EpisodeKey, EpisodeRecord
from vla.eval.rollout import run_episode
from vla.eval.runners import make_env
from vla.files import read_json, write_json
from vla.interfaces import Env, Policy, Suite
from vla.report.video import StateTrace, write_video
from vla.robots.sim import Describing

FOLDER, FILE = "cards", "cards.json"
_FPS = 10.0


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of one failure.

    Args:
        key: the episode.
        instruction: what was said.
        reproduced: the replay failed as the record says; otherwise nothing else was tried.
        steps, control_hz: of the episode.
        reachable: step -> whether the expert, taking over there, succeeds in the time that is left.
        branches: how it went on under something else.
        nearest: training episodes most like it.
        clip: film of the failure.
    """

    key: EpisodeKey
    instruction: str
    reproduced: bool
    steps: int
    control_hz: float
    reachable: dict[int, bool] = field(default_factory=dict)
    branches: tuple[Branch, ...] = ()
    nearest: tuple[Near, ...] = ()
    clip: str = ""

    @property
    def last_chance(self) -> int | None:
        """The last step found from which success could still be had; None: not even from the first."""
        return max((step for step, yes in self.reachable.items() if yes), default=None)

    def to_json(self) -> dict[str, Any]:
        reachable = {str(step): yes for step, yes in self.reachable.items()}
        return {**asdict(self), "reachable": reachable, "last_chance": self.last_chance}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Card:
        """Inverse of :meth:`to_json`."""
        given = {name: value for name, value in data.items() if name != "last_chance"}
        given["key"] = EpisodeKey(**given["key"])
        given["reachable"] = {int(step): yes for step, yes in given["reachable"].items()}
        given["branches"] = tuple(Branch(**branch) for branch in given["branches"])
        given["nearest"] = tuple(Near(**near) for near in given["nearest"])
        return cls(**given)


def make_cards(
    run: str | Path,
    *,
    count: int = 3,
    other: str | None = None,
    demonstrations: Sequence[EpisodeSource] = (),
) -> list[Card]:
    """Choose failures of an evaluation, one of each cell before a second of any, and explain them.

    Args:
        run: directory that ``vla eval`` wrote.
        count: how many.
        other: policy spec that is tried from the last chance besides.
        demonstrations: what the policy was trained on, to look for the episodes nearest to a failure.

    Raises:
        EnvError: the directory holds no evaluation.
        ConfigError: fewer than one card; demonstrations that do not say where the target is.
    """
    if count < 1:
        raise ConfigError(f"Cards are counted from 1: {count}.")
    run = Path(run)
    config, records, _ = load_summary(run)
    suite = registry.suite(config.suite)
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    cards = []
    for record in chosen(records, count):
        env = make_env(suite, config, record.key.task, record.key.embodiment)
        try:
            maker = _CardMaker(config, suite, env, folder, other, demonstrations)
            cards.append(maker.make(record))
        finally:
            env.close()
    write_json(folder / FILE, {"cards": [card.to_json() for card in cards]})
    return cards


def load_cards(run: str | Path) -> list[Card]:
    """What :func:`make_cards` wrote; none where it was not called."""
    path = Path(run) / FOLDER / FILE
    if not path.exists():
        return []
    found = read_json(path, ConfigError, "Make the cards again with 'vla eval cards'.")
    return [Card.from_json(card) for card in found["cards"]]


def chosen(records: Sequence[EpisodeRecord], count: int) -> list[EpisodeRecord]:
    """Failures of the plain conditions that did not crash, spread over tasks and arms."""
    failed = [r for r in records if not r.success and not r.error and r.key.ablation == "none"]
    seen: dict[tuple[str, str], int] = {}
    ranked = []
    for place, record in enumerate(failed):
        cell = (record.key.task, record.key.embodiment)
        seen[cell] = seen.get(cell, -1) + 1
        ranked.append((seen[cell], place))
    return [failed[place] for _, place in sorted(ranked)[:count]]


class _CardMaker:
    """Replays and branches in one env."""

    def __init__(
        self,
        config: EvalConfig,
        suite: Suite,
        env: Env,
        folder: Path,
        other: str | None,
        demonstrations: Sequence[EpisodeSource],
    ) -> None:
        self._config, self._env, self._folder = config, env, folder
        self._horizon = config.execution_horizon or EXECUTION_HORIZON
        self._policy = PolicySpec.parse(config.policy).build(suite=suite, env=env)
        self._expert = suite.expert(env)
        self._other = None if other is None else (other, PolicySpec.parse(other).build(suite=suite, env=env))
        self._demonstrations = demonstrations

    def make(self, record: EpisodeRecord) -> Card:
        trace, key = StateTrace(self._env, size=256), record.key
        again = run_episode(
            self._env,
            self._policy,
            suite=self._config.suite,
            key=key,
            execution_horizon=self._horizon,
            execution=self._config.execution,
            latency_s=self._config.latency_s,
            safety=self._config.safety,
            max_steps=MAX_STEPS,
            hooks=(trace,),
        )
        card = Card(
            key=key,
            instruction=record.instruction,
            reproduced=(again.success, again.steps) == (record.success, record.steps),
            steps=record.steps,
            control_hz=self._env.embodiment.control_hz,
        )
        if not card.reproduced:
            return card
        states = [state for state, _ in trace.states]
        clip = self._film(trace, f"{key.label}.mp4")
        reachable = reachable_until(lambda step: self._expert_from(states[step])[0].success, record.steps - 1)
        card = replace(card, clip=clip, reachable=reachable)
        last = card.last_chance or 0
        first = trace.states[0][1].observation
        aux = {name: first.aux[name] for name in ("target_position", "goal_position") if name in first.aux}
        near = [
            found
            for source in self._demonstrations
            for found in nearest_episodes(source, key.task, key.embodiment, aux)
        ]
        return replace(
            card,
            branches=(
                self._rescue(key, record.instruction, last, states[last]),
                *self._branches(key, record.instruction, last // 2, states[last // 2], trace),
            ),
            nearest=tuple(sorted(near, key=lambda n: n.distance_m)[:3]),
        )

    def _expert_from(self, state: dict[str, Any]) -> tuple[Any, StateTrace]:
        return go_on(self._env, self._expert, state, execution_horizon=1, safety=self._config.safety)

    def _rescue(self, key: EpisodeKey, instruction: str, step: int, state: dict[str, Any]) -> Branch:
        result, film = self._expert_from(state)
        clip = self._film(film, f"{key.label}-expert.mp4")
        meaning = "the expert takes over at the last chance"
        return _branch("expert", meaning, result, step=step, instruction=instruction, clip=clip)

    def _branches(
        self, key: EpisodeKey, instruction: str, step: int, state: dict[str, Any], trace: StateTrace
    ) -> list[Branch]:
        """From one state: the policy again, told something else, with a camera less, another policy."""
        made = []
        for name, meaning, policy, words in self._changes(key, state, trace):
            result, _ = go_on(
                self._env, policy, state,
                execution_horizon=self._horizon, safety=self._config.safety, instruction=words,
            )  # fmt: skip
            made.append(_branch(name, meaning, result, step=step, instruction=words or instruction))
        return made

    def _changes(
        self, key: EpisodeKey, state: dict[str, Any], trace: StateTrace
    ) -> list[tuple[str, str, Policy, str | None]]:
        """Name, meaning, policy and words of each branch but the expert's."""
        changes: list[tuple[str, str, Policy, str | None]] = []
        changes.append(("again", "the policy itself, without memory of what came before", self._policy, None))
        for words in self._others(state, trace)[:2]:
            changes.append(("other words", "another feasible instruction", self._policy, words))
        for role in dict.fromkeys(camera.role for camera in self._env.embodiment.cameras):
            name = f"no_{role}"
            seeing = DeprivedPolicy(self._policy, name, self._env.embodiment, key.seed)
            changes.append((name, DEPRIVATIONS[name], seeing, None))
        if self._other is not None:
            changes.append(("other policy", self._other[0], self._other[1], None))
        return changes

    def _others(self, state: dict[str, Any], trace: StateTrace) -> list[str]:
        """What else the scene can be asked to do from this state."""
        now = trace.states[0][1].observation.instruction
        said = trace.states[0][1].info.get("other_instructions", ())
        if not said and isinstance(self._env, Describing):
            self._env.restore_state(state)
            said = self._env.sentences()
        return [text for text in said if text != now]

    def _film(self, trace: StateTrace, name: str) -> str:
        write_video(self._folder / name, trace.frames(), fps=_FPS)
        return name


def _branch(name: str, meaning: str, result: Any, *, step: int, instruction: str, clip: str = "") -> Branch:
    return Branch(
        name=name, meaning=meaning, step=step, instruction=instruction,
        success=result.success, wrong=result.wrong, steps=result.steps, clip=clip,
    )  # fmt: skip
