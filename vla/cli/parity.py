"""``vla doctor --parity``: the certificate of a checkpoint's action heads, as a table and an exit code."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from vla.text import text_table


def run_parity(checkpoint: str, *, out: Path | None, overwrite: bool, as_json: bool) -> int:
    """Measure, store, print; 1 if a path missed its tolerance or none ran.

    Args:
        checkpoint: a policy or run directory, or ``default`` for the shipped policy.
    """
    device = _device()
    from vla.kernels.parity import CERTIFICATE_FILE, certify

    directory = policy_directory(checkpoint)
    slow = "; Triton's interpreter takes minutes" if os.environ.get("TRITON_INTERPRET") == "1" else ""
    print(f"comparing every path of {directory} with float64 on {device}{slow} ...", file=sys.stderr)
    found = certify(directory, out=out, overwrite=overwrite, device=device)
    print(json.dumps(found, indent=1) if as_json else _table(found))
    print(f"written to {out or directory / CERTIFICATE_FILE}", file=sys.stderr)
    return int(not found["passed"])


def _device() -> str:
    """A GPU if there is one; else Triton, which must know before it is imported, shall interpret."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if importlib.util.find_spec("triton") is not None and "triton" not in sys.modules:
        os.environ.setdefault("TRITON_INTERPRET", "1")
    return "cpu"


def policy_directory(checkpoint: str) -> Path:
    """The folder that holds ``policy.json``, as :class:`LearnedPolicy` would find it."""
    from vla import registry
    from vla.contract import CONTRACT_FILE

    if checkpoint == "default":
        module = sys.modules[registry.policy_factory("learned").__module__]
        return Path(module.SHIPPED)
    path = Path(checkpoint)
    return path if (path / CONTRACT_FILE).is_file() or not (path / "policy").is_dir() else path / "policy"


def _table(found: dict[str, Any]) -> str:
    rows = []
    for row in found["rows"]:
        error = row["error"]
        verdict = "MISSED" if row["missed"] else "not run" if error is None else "ok"
        measured = "-" if error is None else f"{error:.1e}"
        rows.append(
            [f"{row['head']} {row['path']}", row["dtype"], measured, f"{row['tolerance']:.0e}", verdict]
        )
    lines = [text_table(["head and path", "dtype", "error", "allowed", "verdict"], rows)]
    lines += sorted({f"{r['path']}: {r['reason']}" for r in found["rows"] if r["reason"]})
    lines.append(f"inputs: {'; '.join(found['inputs'])} (seed {found['seed']})")
    return "\n".join(lines)
