"""One JSON line an episode: appended and flushed at once, so that whatever stops a run loses nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

from vla.errors import StoreError, UnknownNameError
from vla.interfaces import Variant, Wording

LOG = logging.getLogger(__name__)

#: Count in ``EpisodeRecord.safety``: steps whose action the env clipped behind the envelope (a fault).
ENV_CLIPPED = "env_clipped"

#: Keys that records of earlier versions lack.
_ADDED = ("unknown_words", "head", "actions", "unfamiliar")


@dataclass(frozen=True, kw_only=True, order=True)
class EpisodeKey:
    """Everything that makes an episode reproducible, apart from the policy.

    ``ablation``: ``none``, or what is taken from the policy or changed under it (``vla.eval.ablations``).
    """

    task: str
    embodiment: str
    variant: Variant = "base"
    wording: Wording = "train"
    ablation: str = "none"
    seed: int = 0

    @property
    def condition(self) -> str:
        """A column of the tables: ``base``, ``swapped``, ``base heldout``, ``base blank`` ..."""
        extra = [x for x, plain in ((self.wording, "train"), (self.ablation, "none")) if x != plain]
        return " ".join((self.variant, *extra))

    @property
    def label(self) -> str:
        """A name for files."""
        return f"{self.task}-{self.embodiment}-{self.condition.replace(' ', '-')}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """What happened in one episode.

    Args:
        suite, key: what was run.
        instruction: what the person said, verbatim.
        success: the instruction was fulfilled when the episode ended.
        wrong: at some step the goal of a *different* feasible instruction held.
        steps: control steps executed.
        time_to_success_s: steps over control rate; None without success.
        latency_mean_s, latency_p95_s: of the policy, over the steps at which it was asked.
        safety: how often each stage of the envelope changed an action, and how often materially (see
            ``vla.control.safety``); ``env_clipped`` where the env reports what it clipped itself.
        target_error_t0_m, goal_error_t0_m: distance between the policy's estimate of the target (goal)
            position and the truth before the first step; None where it does not say.
        target_error_m: the same by phase (``phase`` of ``AUX_KEYS``), mean over the steps in it.
        unknown_words: of the instruction, as the policy said.
        head: action head that decided, as the policy said; empty where it has but one way.
        actions: digest of all executed actions: episodes that share it moved alike to the last bit; empty
            where an ablation found nothing to take away (an arm without that camera).
        unfamiliar: entries of the state that lay far outside the policy's statistics, as it said, each with
            the share of the steps at which it was asked.
        error: last line of what went wrong with the simulation, empty if nothing did.
        video: file name under ``videos/``, empty if none was made.
    """

    suite: str
    key: EpisodeKey
    instruction: str
    success: bool
    wrong: bool
    steps: int
    time_to_success_s: float | None
    latency_mean_s: float
    latency_p95_s: float
    safety: Mapping[str, int] = field(default_factory=dict)
    target_error_t0_m: float | None = None
    goal_error_t0_m: float | None = None
    target_error_m: Mapping[str, float] = field(default_factory=dict)
    unknown_words: tuple[str, ...] = ()
    head: str = ""
    actions: str = ""
    unfamiliar: Mapping[str, float] = field(default_factory=dict)
    error: str = ""
    video: str = ""

    def to_json(self) -> dict[str, Any]:
        """Flat: the key's fields stand beside the others."""
        data = asdict(self)
        return {"suite": data.pop("suite"), **data.pop("key"), **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EpisodeRecord:
        """Strict inverse of :meth:`to_json`."""
        of_key = [f.name for f in fields(EpisodeKey)]
        known = [*of_key, *(f.name for f in fields(cls) if f.name != "key")]
        for name in data:
            if name not in known:
                raise UnknownNameError("key of an episode record", name, known)
        if missing := [name for name in known if name not in data and name not in _ADDED]:
            raise StoreError(f"Episode record lacks {missing}; it has {sorted(data)}.")
        key = EpisodeKey(**{name: data[name] for name in of_key})
        rest = {name: data[name] for name in data if name not in of_key}
        return cls(key=key, **{**rest, "unknown_words": tuple(data.get("unknown_words", ()))})

    @classmethod
    def crashed(cls, suite: str, key: EpisodeKey, error: str) -> EpisodeRecord:
        """An episode that did not come to an end: counted as a failure, reported as an error."""
        return cls(
            suite=suite,
            key=key,
            instruction="",
            success=False,
            wrong=False,
            steps=0,
            time_to_success_s=None,
            latency_mean_s=0.0,
            latency_p95_s=0.0,
            error=error,
        )


class RecordFile:
    """Append-only JSON lines, one episode each; use as a context manager.

    Opening repairs a last line that a killed writer left half written (it says so); any other damaged
    line raises :class:`~vla.errors.StoreError`, because it was not an accident of writing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._records = {record.key: record for record in read_records(self.path, repair=True)}
        self._file: IO[str] = self.path.open("a", encoding="utf-8")

    @property
    def records(self) -> list[EpisodeRecord]:
        """The last record of each episode, in order of first appearance."""
        return list(self._records.values())

    @property
    def finished(self) -> set[EpisodeKey]:
        """Episodes that came to an end; crashed ones are to be run again."""
        return {key for key, record in self._records.items() if not record.error}

    def append(self, record: EpisodeRecord) -> None:
        self._file.write(json.dumps(record.to_json(), allow_nan=False) + "\n")
        self._file.flush()
        self._records[record.key] = record

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_records(path: str | Path, *, repair: bool = False) -> list[EpisodeRecord]:
    """The last record of each episode in a file; a missing file holds none.

    Args:
        path: a ``records.jsonl``.
        repair: cut off a half-written last line in the file (otherwise it is only skipped).
    """
    path = Path(path)
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        done = "cut off" if repair else "skipped"
        LOG.warning(
            "%s: the last line is half written (a killed run); %s, its episode counts as not run.", path, done
        )
        if repair:
            with path.open("r+b") as file:
                file.truncate(whole)
    return list({record.key: record for record in _parse(path, data[:whole])}.values())


def _parse(path: Path, data: bytes) -> Iterable[EpisodeRecord]:
    for number, line in enumerate(data.decode("utf-8").splitlines(), start=1):
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise StoreError(
                f"{path}, line {number} is not JSON ({error}). Remove the line to run its episode again."
            ) from error
        yield EpisodeRecord.from_json(content)
