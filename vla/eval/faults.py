"""What is wrong with a policy, in words, from an audit: only what no sound policy would show.

- What is taken away makes no difference: every episode without it had the very actions of the plain one, to
  the last bit. Success alone does not tell: a sound policy may manage without a camera that it uses.
- The 95 % interval of ``looks`` or ``follows`` (``hears``, where nothing else was asked for) lies below a
  half; a sound policy's is near 1.
- On some arm an entry of the state lies far outside the policy's statistics in most of its decisions: they
  are of another arm, or of other units.

A wrong rotation format does not come this far: ``PolicyContract.check`` refuses the arm, and
``vla.data.plausibility`` the statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from vla.embodiment import CameraRole
from vla.eval.records import EpisodeRecord

LOOKS = "it ignores its cameras"
HEARS = "it ignores the instruction"
STATISTICS = "its statistics are not those of"
_LOW = 0.5
_MOSTLY = 0.5


def name_faults(
    *,
    same: Mapping[str, tuple[int, int]],
    shares: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    plain: Sequence[EpisodeRecord],
) -> tuple[str, ...]:
    """A sentence for each fault, without a full stop.

    Args:
        same: deprivation -> episodes under it with the actions of the plain one, of how many.
        shares, intervals: of the grounding score, by name.
        plain: records of the plain condition.
    """
    gone = {
        name: f"without, the same actions to the last bit in {alike} of {n} episodes"
        for name, (alike, n) in same.items()
        if n and alike == n
    }
    found: dict[str, str] = {}
    if "blank" in gone:
        found[LOOKS] = gone["blank"]
    else:
        roles = [role for role in get_args(CameraRole) if f"no_{role}" in gone]
        found.update({f"it ignores the {role} camera": gone[f"no_{role}"] for role in roles})
    if "no_words" in gone:
        found[HEARS] = gone["no_words"]
    heard = "follows" if "follows" in shares else "hears"  # what is usual may go without saying
    for name, fault in (("looks", LOOKS), (heard, HEARS)):
        if name in shares and intervals[name][1] < _LOW:
            low, high = intervals[name]
            found.setdefault(fault, f"{name} {shares[name]:.2f} [{low:.2f}, {high:.2f}]")
    return (*(f"{fault}: {evidence}" for fault, evidence in found.items()), *_unfamiliar(plain))


def _unfamiliar(plain: Sequence[EpisodeRecord]) -> list[str]:
    """Arms on which the policy mostly meets states that its statistics never saw."""
    faults = []
    for arm in dict.fromkeys(record.key.embodiment for record in plain):
        ran = [record for record in plain if record.key.embodiment == arm and not record.error]
        names = dict.fromkeys(name for record in ran for name in record.unfamiliar)
        far = {name: sum(record.unfamiliar.get(name, 0.0) for record in ran) / len(ran) for name in names}
        if often := [name for name, share in far.items() if share > _MOSTLY]:
            share = 100 * min(far[name] for name in often)
            faults.append(
                f"{STATISTICS} {arm!r}: {', '.join(often)} far outside what they saw, in at least "
                f"{share:.0f} % of its decisions"
            )
    return faults
