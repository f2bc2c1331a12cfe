"""What a person may write after ``--policy``: ``default``, a directory, or the name of a policy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vla import registry
from vla.contract import CONTRACT_FILE, PolicyContract
from vla.control.policies import PolicySpec
from vla.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class ChosenPolicy:
    """A policy found: its spec (see ``PolicySpec``), and its contract where it was learned."""

    spec: str
    contract: PolicyContract | None = None

    @property
    def execution_horizon(self) -> int:
        """What its contract recommends; a policy without one is asked at every step."""
        return 1 if self.contract is None else self.contract.execution_horizon


def choose_policy(text: str, suite: str) -> ChosenPolicy:
    """Find the policy meant by ``text``.

    Args:
        text: ``default`` (shipped for the suite), a policy or run directory, or a spec such as
            ``expert`` or ``learned:PATH,key=value``.
        suite: registered suite it is to act in.

    Raises:
        CheckpointError: a path without a policy.
        ContractError: a policy whose contract is damaged or belongs to other weights.
        UnknownNameError: no such policy or argument.
    """
    if text == "default":
        return _learned(registry.checkpoint(suite))
    path = Path(text)
    for folder in (path, path / "policy"):  # a run directory of `vla train` keeps its policy in policy/
        if (folder / CONTRACT_FILE).is_file():
            return _learned(folder)
    if path.exists() or "/" in text.partition(":")[0]:
        raise CheckpointError(
            f"No policy at {text}: neither {CONTRACT_FILE} nor policy/{CONTRACT_FILE} is in there. "
            "Give a directory that 'vla train' wrote, or 'default', 'expert', 'random', 'zero'."
        )
    spec = PolicySpec.parse(text)
    if spec.name == "learned":
        return ChosenPolicy(spec=text, contract=PolicyContract.load(spec.arguments["path"]))
    return ChosenPolicy(spec=text)


def _learned(folder: Path) -> ChosenPolicy:
    return ChosenPolicy(spec=f"learned:{folder}", contract=PolicyContract.load(folder))
