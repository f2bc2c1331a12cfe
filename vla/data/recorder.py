"""Recording what a loop does into a store: every episode, successful or not, so that running feeds training.

An instruction that changes, or an operator who holds the arm, ends one episode and begins the next: the
store says one sentence of each. What was held still is not recorded. Success is what a simulator's predicate
or, above it, the operator says; where neither speaks it is unknown, and no failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np

from vla.control.loop import Tick
from vla.data.episode_recorder import EpisodeRecorder, copied, scene_facts
from vla.data.store import EpisodeStore
from vla.data.store_header import is_store
from vla.embodiment import Embodiment
from vla.errors import ConfigError, StoreError, VlaError
from vla.robots import Reading
from vla.teleop import POLICY
from vla.types import Episode

Verdict = Literal["success", "failure", "discard"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class StoreRecorder:
    """Loop hook that commits every episode of a loop to a store, in a thread of its own.

    Use as a context manager around the loop: leaving it commits what was begun, also after an error. An
    episode that cannot be written (a full disk) is named by the next tick and tried once more at the end;
    those before and after it are committed all the same.

    Args:
        store: where; nobody else appends through this handle meanwhile.
        embodiment: the arm; it is registered here.
        provenance: facts stored with every episode.
        tell: says to an operator what was recorded; the last episode then waits for :meth:`judge` until the
            next one begins. None: nobody is asked.

    Raises:
        IncompatibleError: the store holds another arm of this name.
        StoreError: of a tick or of closing: an episode could not be written.
    """

    def __init__(
        self,
        store: EpisodeStore,
        embodiment: Embodiment,
        provenance: Mapping[str, Any],
        *,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        store.add_embodiment(embodiment)
        self._store, self._embodiment, self._provenance = store, embodiment, dict(provenance)
        self._tell = tell
        self._recorder: EpisodeRecorder | None = None
        self._actor = ""
        self._last: Episode | None = None  # ended, not yet committed
        self._segment = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recorder")
        self._pending: list[tuple[Episode, Future[int]]] = []
        self._failed: list[tuple[Episode, BaseException]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def started(self, reading: Reading) -> None:
        self._provenance |= scene_facts(reading.info)

    def ticked(self, tick: Tick) -> None:
        self._check()
        if tick.chunk is None:
            if self._end() and self._tell is not None and self._last is not None:
                self._tell(f"recorded {_outcome(self._last)}; {' or '.join(VERDICTS)} judges it.")
            return
        if tick.chunk.info.get("idle"):  # a person who has not begun
            return
        actor = str(tick.chunk.info.get("actor", ""))
        if self._recorder is not None and self._actor != actor:
            self._change_hands()
        if self._recorder is not None and self._recorder.instruction != tick.observation.instruction:
            self._end()
        if self._recorder is None:
            self._commit()
            facts = {**self._provenance, "segment": self._segment, "first_step": tick.index}
            self._actor, facts = actor, facts | ({"actor": actor} if actor else {})
            self._recorder = EpisodeRecorder(self._embodiment, facts)
            self._segment += 1
        self._recorder.add(
            copied(tick.observation),
            np.asarray(tick.chunk.actions[0]),
            tick.safe.action,
            success=_known(tick.reading.info),
            events=tick.safe.events,
        )

    def judge(self, verdict: Verdict) -> bool:
        """What the operator says of the episode under way, which ends with it, or else of the last one.

        Returns:
            Whether an episode was under way: the arm shall hold still now.
        """
        tell, ended, last = self._tell or (lambda _: None), self._end(), self._last
        if last is None:
            tell("there is no episode to judge.")
        elif verdict == "discard":
            self._last = None
            tell(f"discarded {_outcome(last)}.")
        else:
            facts = {**last.provenance, "judged_by": "operator"}
            self._last = replace(last, success=verdict == "success", provenance=facts)
            tell(f"recorded {_outcome(self._last)}.")
        return ended

    def close(self) -> None:
        """Commit what was begun and wait until all is on disk; what failed before is tried once more.

        Raises:
            StoreError: episodes that are not in the store, each with the reason; all others are.
        """
        lost: list[tuple[str, Exception]] = []
        begun = self._recorder
        try:
            self._end()
        except Exception as error:  # noqa: BLE001  # the others are written first, this one is named below
            lost.append((f'"{begun.instruction if begun else ""}", under way', error))
            self._recorder = None
        self._commit()
        self._thread.shutdown()
        self._collect()
        failed, self._failed = self._failed, []
        for episode, _ in failed:
            try:
                self._store.append(episode)
            except Exception as error:  # noqa: BLE001  # whatever it is, those after it are still written
                lost.append((_outcome(episode), error))
        if lost:
            lines = "".join(f"\n  - {name}: {_reason(error)}" for name, error in lost)
            raise StoreError(
                f"{self._store.path} lacks {len(lost)} recorded episodes that could not be written:{lines}\n"
                f"The {len(self._store)} in it are whole. Where the disk is full make room, "
                "or record to another path."
            ) from lost[0][1]

    def _change_hands(self) -> None:
        """Whoever acts, the episode is theirs alone: the policy's failed where a person had to take over, and
        what becomes of the person's is not known where they hand back.
        """
        assert self._recorder is not None
        taken = self._actor == POLICY
        facts = {"ended_by": "takeover" if taken else "handing back"}
        self._end(success=False if taken else None, facts=facts)

    def _end(self, success: bool | None = None, facts: Mapping[str, Any] | None = None) -> bool:
        """Whether an episode was under way; it is over now, and committed unless a person may judge it."""
        if self._recorder is None:
            return False
        self._last, self._recorder = self._recorder.episode(), None
        if facts is not None and not self._last.success:
            known = {**self._last.provenance, **facts}
            self._last = replace(self._last, success=success, provenance=known)
        if self._tell is None:
            self._commit()
        return True

    def _commit(self) -> None:
        if self._last is not None:
            self._pending.append((self._last, self._thread.submit(self._store.append, self._last)))
        self._last = None

    def _check(self) -> None:
        """Raise for an episode whose writing has failed since the last check: going on would lose more."""
        known = len(self._failed)
        self._collect()
        if self._failed[known:]:
            episode, error = self._failed[known]
            raise StoreError(
                f"Recording stops: {_outcome(episode)} could not be written to {self._store.path}: "
                f"{_reason(error)}. It is tried once more as the run ends; what was committed before "
                "is whole."
            ) from error

    def _collect(self) -> None:
        """Sort out what the thread is done with."""
        waiting = []
        for episode, future in self._pending:
            if not future.done():
                waiting.append((episode, future))
            elif (error := future.exception()) is not None:
                self._failed.append((episode, error))
        self._pending = waiting


def _known(info: Mapping[str, Any]) -> bool | None:
    """What a simulator's predicate says; None for a robot that has none."""
    success = info.get("success")
    return None if success is None else bool(success)


def _reason(error: BaseException) -> str:
    """Its text; with its kind where it was not raised for people."""
    return str(error) if isinstance(error, OSError | VlaError) else f"{type(error).__name__}: {error}"


def _outcome(episode: Episode) -> str:
    names = {True: "success", False: "failure", None: "success unknown"}
    return f'"{episode.instruction}", {len(episode)} steps: {names[episode.success]}'


def check_recordable(path: str | Path) -> None:
    """Raise before a run for a place where no store can be made or extended.

    Raises:
        ConfigError: a file, a folder that is not a store and not empty, or a place below a file.
    """
    path = Path(path)
    blocked = next((place for place in (path, *path.parents) if place.exists() and not place.is_dir()), None)
    if blocked is not None:
        raise ConfigError(
            f"Episodes cannot be recorded to {path}: {blocked} is a file. Give an episode store, or a path "
            "at which there is nothing yet."
        )
    strange = [] if not path.is_dir() or is_store(path) else [file.name for file in path.iterdir()]
    if [name for name in strange if not name.startswith((".", "part-"))]:
        raise ConfigError(
            f"Episodes cannot be recorded to {path}: it holds {', '.join(sorted(strange)[:3])} and is no "
            "episode store. Give an episode store, or a path at which there is nothing yet."
        )


def ensure_store(path: str | Path, made_by: str) -> None:
    """Make an empty store where there is nothing yet, or only what a killed process began to make."""
    if not (Path(path) / "zarr.json").exists():
        EpisodeStore.create(path, provenance={"made_by": made_by}).close()
