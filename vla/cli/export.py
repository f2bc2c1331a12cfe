"""``vla export``: a policy as ONNX files that the CPU engine runs, with an int8 option."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from vla.cli.flags import parse
from vla.errors import ConfigError

if TYPE_CHECKING:
    from vla.export.manifest import Manifest


@dataclass(frozen=True)
class Export:
    """Write a policy as ONNX files. Beside the policy, they become its engine on a CPU.

    Args:
        policy: a directory that vla train wrote, or default (the shipped policy).
        format: of the files.
        out: a folder; left out: the folder onnx beside the weights, where the policy finds it.
        head: which action head; left out: the policy's default.
        batch: observations at once.
        words: tokens of the longest instruction; left out: as many as the backbone takes.
        int8: also write 8-bit files, and measure what the actions lose.
        suite: whose episodes' first observations the int8 error is measured on.
        observations: how many of them.
        limit: largest int8 error, as a share of the action range.
        accept_error: keep int8 files beyond the limit.
        json: print the manifest instead of a summary.
    """

    policy: tyro.conf.Positional[str] = "default"
    format: Literal["onnx"] = "onnx"
    out: Path | None = None
    head: str | None = None
    batch: int = 1
    words: int | None = None
    int8: bool = False
    suite: str = "tabletop"
    observations: int = 24
    limit: float = 1e-2
    accept_error: bool = False
    json: bool = False


def run(argv: Sequence[str]) -> int:
    flags = parse(Export, "export", argv)
    if flags.observations < 1 or not flags.limit > 0:
        raise ConfigError(f"--observations and --limit are positive: {flags.observations}, {flags.limit}.")
    from vla.cli.parity import policy_directory
    from vla.export.manifest import FOLDER
    from vla.export.writing import export_policy

    policy = policy_directory(flags.policy)
    out = flags.out or policy / FOLDER
    manifest = export_policy(policy, out, head=flags.head, batch=flags.batch, words=flags.words)
    if not flags.json:
        print(_described(manifest, out))
        print(f"run it: {_use(manifest, policy, out, flags.out is not None)}")
    if flags.int8:
        manifest = _quantise(policy, out, flags)
    if flags.json:
        print(json.dumps(asdict(manifest), indent=1))
    elif manifest.int8 is not None:
        found = manifest.int8
        kept = "" if found["within_limit"] else ": BEYOND it, kept as --accept-error asks"
        print(
            f"int8: {found['largest']:.1e} of the action range at most, mean {found['mean']:.1e}, on "
            f"{found['observations']} observations (limit {found['limit']:g}{kept})"
        )
        print(f"run it: {_use(manifest, policy, out, flags.out is not None, 'onnx-int8')}")
    return 0


def _described(manifest: Manifest, out: Path) -> str:
    parity = manifest.parity
    steps = "one pass" if manifest.num_steps == 1 else f"{manifest.num_steps} steps"
    return (
        f"{out}: head {manifest.head}, {steps}, {manifest.batch} at once, {manifest.words} words at most\n"
        f"float32: {parity['error']:.1e} from float64 (allowed {parity['allowed']:.0e})"
    )


def _use(manifest: Manifest, policy: Path, out: Path, elsewhere: bool, engine: str = "onnx") -> str:
    """The command that runs what was written; float32 files beside the policy are taken by default."""
    settings = [f"export={out}"] if elsewhere else []
    if engine != "onnx" or elsewhere:
        settings.append(f"engine={engine}")
    from vla.contract import PolicyContract

    if manifest.head != PolicyContract.load(policy).heads[0]:
        settings.append(f"head={manifest.head}")
    chosen = ",".join([f"learned:{policy}", *settings]) if settings else policy
    return f"vla eval --policy {chosen}"


def _quantise(policy: Path, out: Path, flags: Export) -> Manifest:
    from vla import registry
    from vla.contract import PolicyContract
    from vla.export.quantise import action_error, first_observations, judge, quantise

    contract = PolicyContract.load(policy)
    quantise(out, contract)
    print("measuring what the actions lose to int8 ...", file=sys.stderr)
    make = registry.policy_factory("learned")
    exact = make(policy, flags.head, engine="torch")
    small = make(policy, flags.head, engine="onnx-int8", export=out)
    seen = list(first_observations(registry.suite(flags.suite), contract, flags.observations))
    report = action_error(exact, small, seen, contract.embodiments)
    return judge(out, contract, report, limit=flags.limit, accept=flags.accept_error)
