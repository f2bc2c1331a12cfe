"""What a check says: findings, how grave each is, and the report that holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from vla.errors import UnknownNameError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Kind:
    """A sort of fault: how grave, what it is, and what can be done."""

    severity: Severity
    meaning: str
    remedy: str


_DROP = "vla data fix --drop {}"
_CUT = "vla data fix --cut {}"

#: Every kind that ``check`` can report. error: training on it fails or learns something wrong; warning: it
#: costs success or is a likely fault; note: worth knowing.
KINDS: Mapping[str, Kind] = {
    "missing": Kind(
        "error", "something cannot be opened or contradicts itself: it is missing, cut short or damaged",
        "fetch or copy it again; vla data fix writes a new store of all that can be opened",
    ),
    "unreadable": Kind(
        "error", "a column or a camera cannot be read",
        "fetch it again; where it is one camera of a foreign format, --cameras with the others alone reads "
        "them; or " + _DROP.format("damaged"),
    ),
    "ragged": Kind("error", "a column or camera has another number of steps", _DROP.format("damaged")),
    "not_finite": Kind("error", "NaN or infinity among the numbers", "vla data fix --cut not_finite"),
    "unreadable_frame": Kind("error", "a picture that cannot be decoded", _CUT.format("frames")),
    "blank_frame": Kind("error", "a black or single-coloured picture", _CUT.format("frames")),
    "torn_frame": Kind("error", "the lower part of a picture is missing", _CUT.format("frames")),
    "frozen_state": Kind(
        "warning", "the state stays as it was to the last bit while commands go on: nobody reported it?",
        _CUT.format("frozen_state"),
    ),
    "frozen_frames": Kind("warning", "the picture stands still while the arm moves", _CUT.format("frames")),
    "odd_frame": Kind("warning", "one picture does not belong between its neighbours", _CUT.format("frames")),
    "jump": Kind(
        "warning", "the state, or a column nobody described, moves farther in a step than it ever does",
        _CUT.format("jump"),
    ),
    "outlier": Kind("warning", "a number far from all others of its kind", _CUT.format("outlier")),
    "episode_outlier": Kind(
        "warning", "an episode lies far from all others: other units, frame or robot?",
        _DROP.format("episode_outlier"),
    ),
    "constant_action": Kind("warning", "an action entry that never changes", "leave it out of the data"),
    "constant_state": Kind("note", "a state entry that never changes", "nothing: statistics guard it"),
    "state_out_of_range": Kind("warning", "state outside the range its field declares", "correct the range"),
    "action_out_of_range": Kind(
        "error", "action outside the range its field declares",
        "correct the range or the unit; clip in the embodiment file where the controller holds it",
    ),
    "saturated_action": Kind(
        "warning", "an action lies at an end of its range too often: clipped when recorded?",
        "widen the range and record again; a policy learns the clipped value",
    ),
    "held_action": Kind(
        "note", "an action beyond the range of its field: what was executed is held at its end",
        "nothing: the controller does the same; clip in the embodiment file for the label too",
    ),
    "placeholder_first": Kind(
        "error", "the first action of nearly all episodes is none: zeros, or unlike all others",
        "skip_first in the embodiment file",
    ),
    "placeholder_last": Kind(
        "error", "the last action of nearly all episodes is none: zeros, or unlike all others",
        "skip_last in the embodiment file",
    ),
    "idle_start": Kind("warning", "nothing happens at first: teaches to wait", "vla data fix --trim-idle"),
    "idle_end": Kind("warning", "nothing happens at the end", "vla data fix --trim-idle"),
    "idle_middle": Kind("warning", "nothing happens for long", _CUT.format("idle_middle") + ", or --drop it"),
    "time_backwards": Kind(
        "error", "time stamps do not increase", "vla data fix --restamp, or --drop time_backwards"
    ),
    "time_gap": Kind("warning", "steps are missing between two time stamps", _CUT.format("time_gap")),
    "wrong_rate": Kind(
        "error", "time stamps tell another rate than control_hz", "vla data fix --retime HZ, or correct it"
    ),
    "empty_instruction": Kind(
        "error", "nobody says what is done",
        "vla data import or fix --instruction TEXT says one in all that have none; or "
        + _DROP.format("empty_instruction"),
    ),
    "odd_instruction": Kind(
        "warning", "a file name, task id, placeholder or broken text instead of a sentence",
        "put what a person would say",
    ),
    "misspelt_instruction": Kind("note", "a word nobody else uses, close to a common one", "look at it"),
    "contradicting_instruction": Kind(
        "warning", "the same demonstration twice, under different instructions",
        "correct the wrong one; vla data fix --drop duplicates keeps the first",
    ),
    "duplicate": Kind("warning", "the same demonstration twice", _DROP.format("duplicates")),
    "near_duplicate": Kind("warning", "almost the same demonstration twice", _DROP.format("duplicates")),
    "short_episode": Kind("warning", "far shorter than the others", _DROP.format("short_episode")),
    "long_episode": Kind("warning", "far longer than the others", _DROP.format("long_episode")),
    "action_late": Kind(
        "error", "the arm moves before the action: labels are shifted", "action_lag in the embodiment file"
    ),
    "action_early": Kind(
        "warning", "the arm follows the action very late", "action_lag in the embodiment file"
    ),
    "opposite_sign": Kind(
        "error", "the arm moves against the action", "scale in the embodiment file; see vla data solve"
    ),
    "wrong_scale": Kind(
        "error", "the arm moves by another amount than the action says", "unit in the embodiment file"
    ),
    "mismatch": Kind("warning", "the arm does not do what the actions say", _DROP.format("mismatch")),
}  # fmt: skip

#: Kinds that only pictures show ...
OF_PICTURES = ("unreadable_frame", "blank_frame", "torn_frame", "frozen_frames", "odd_frame")
#: ... and those that compare what was asked for with what moved.
OF_AGREEMENT = ("action_late", "action_early", "opposite_sign", "wrong_scale", "mismatch")

#: Names that stand for several kinds, for ``vla data fix``.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "damaged": ("unreadable", "ragged", "not_finite", "unreadable_frame", "blank_frame", "torn_frame"),
    "frames": OF_PICTURES,
    "duplicates": ("duplicate", "near_duplicate", "contradicting_instruction"),
}


def expand_kinds(names: Sequence[str]) -> frozenset[str]:
    """Kinds and groups by name -> kinds; an unknown name raises :class:`UnknownNameError`."""
    for name in names:
        if name not in KINDS and name not in GROUPS:
            raise UnknownNameError("kind of finding", name, [*KINDS, *GROUPS])
    return frozenset(kind for name in names for kind in GROUPS.get(name, (name,)))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault and where it is.

    Args:
        kind: see :data:`KINDS`.
        message: for people.
        episode: its number; None where all episodes of an embodiment are meant.
        first, last: first and last step concerned, both included; None where it is the whole episode.
        where: camera (``front``) or field and entry (``state/tcp_position[0]``), empty where neither.
        value: what was measured.
        threshold: what it was compared with.
        evidence: JSON-able facts behind it. ``steps``: those concerned, where not all from first to last are;
            of what lies between two steps (a jump, a gap in time), the earlier one.
    """

    kind: str
    message: str
    episode: int | None = None
    first: int | None = None
    last: int | None = None
    where: str = ""
    value: float | None = None
    threshold: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of finding", self.kind, KINDS)

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    @property
    def place(self) -> str:
        """``episode 3, steps 4-9, front``."""
        arm = self.evidence.get("embodiment")
        whole = "the data set" if self.kind == "missing" else f"all of {arm}" if arm else "all episodes"
        parts = [whole if self.episode is None else f"episode {self.episode}"]
        if self.first is not None:
            parts.append(
                f"step {self.first}" if self.first == self.last else f"steps {self.first}-{self.last}"
            )
        return ", ".join([*parts, *([self.where] if self.where else [])])

    @property
    def steps(self) -> list[int]:
        """All that it names; none where it is of the whole episode, or of all."""
        if self.first is None or self.last is None:
            return []
        return list(self.evidence.get("steps", range(self.first, self.last + 1)))

    def to_json(self) -> dict[str, Any]:
        return {"severity": self.severity, **asdict(self)}


def episodes_of(found: Sequence[Finding]) -> str:
    """How many episodes findings of one kind name; ``all`` where they are of all, ``-``: of no one's."""
    named = {finding.episode for finding in found} - {None}
    if named:
        return str(len(named))
    return "-" if found[0].kind == "missing" else "all"


@dataclass(frozen=True, kw_only=True)
class Report:
    """All findings, the gravest kinds first, and how much was looked at.

    ``left_out``: kinds that were not looked for, and what would have to be known or read for that.
    """

    path: str
    num_episodes: int
    num_steps: int
    num_frames_read: int
    findings: tuple[Finding, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, list[Finding]]:
        """Findings by kind, in the order of :data:`KINDS` within each severity."""
        order = sorted(KINDS, key=lambda kind: SEVERITIES.index(KINDS[kind].severity))
        grouped = {kind: [f for f in self.findings if f.kind == kind] for kind in order}
        return {kind: found for kind, found in grouped.items() if found}

    def at_least(self, severity: Severity) -> list[Finding]:
        """Findings of a severity or a graver one."""
        limit = SEVERITIES.index(severity)
        return [f for f in self.findings if SEVERITIES.index(f.severity) <= limit]

    def rows(self) -> list[list[str]]:
        """Kind, severity, count, episodes and first message of each kind found."""
        return [
            [
                kind,
                KINDS[kind].severity,
                str(len(found)),
                episodes_of(found),
                f"{found[0].place}: {found[0].message}",
            ]
            for kind, found in self.kinds.items()
        ]

    def to_json(self) -> dict[str, Any]:
        """``counts`` are by severity, the gravest first."""
        counts = Counter(f.severity for f in self.findings)
        return {
            "format_version": 1,
            "path": self.path,
            "num_episodes": self.num_episodes,
            "num_steps": self.num_steps,
            "num_frames_read": self.num_frames_read,
            "left_out": dict(self.left_out),
            "counts": {severity: counts[severity] for severity in SEVERITIES if counts[severity]},
            "findings": [f.to_json() for f in self.findings],
        }
