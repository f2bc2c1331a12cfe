"""What fewer visual tokens cost: closed-loop success and decision time at several places of the dial.

    python scripts/study_tokens.py --policy outputs/patches/policy --settings none:1 pool:0.25 attention:0.5

The policy needs a backbone whose tokens are patches. A setting is a compression with its ``keep``
(``vla.models.tokens``), and ``+reuse`` behind it where patches in which nothing moved are reused; the first
is what the others are compared with, pair by pair. ``@FOLDER`` behind a setting names another policy, one
that was trained with that compression; settings with weights of their own (``shuffle``, ``instruction``)
need it.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from paired_study import parser, study

from vla.errors import VlaError
from vla.models.saving import load_policy, save_policy

TRAINED = ("shuffle", "instruction")  # compressions with weights
SETTINGS = ("none:1", "none:1+reuse", "pool:0.5", "pool:0.25", "attention:0.5", "attention:0.25")


def prepare(policy: str, setting: str, folder: Path) -> Path:
    """The same weights, or those of the setting's own policy, under a contract with this compression."""
    setting, _, own = setting.partition("@")
    policy = own or policy
    net, contract = load_policy(policy)
    compression, plus, _ = setting.partition("+reuse")
    name, _, keep = compression.partition(":")
    if name in TRAINED and net.config.compression != name:
        sys.exit(
            f"{setting}: {policy} was trained with compression {net.config.compression!r}, not {name!r}."
        )
    network = replace(net.config, compression=name, keep=float(keep or 1), reuse=bool(plus)).to_json()
    weights = {k: v for k, v in net.state_dict().items() if name in TRAINED or not k.startswith("compress.")}
    save_policy(folder, weights, replace(contract, network=network))
    return folder


def describe(rows: list[dict[str, Any]]) -> dict[str, Any]:
    apart = [row["setting"] for row in rows[1:] if row["minus_first"]["p_value"] < 0.05]
    told = f"{', '.join(apart)} differ from it at p < 0.05" if apart else "none differs from it at p < 0.05"
    return {
        "claim": f"a small policy of patch tokens, compressed, against {rows[0]['setting']}; {told}",
        "target": "a curve of success against time",
    }


def main() -> None:
    options = parser(__doc__ or "", SETTINGS)
    options.add_argument("--policy", required=True)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folders = [
            prepare(args.policy, setting, scratch / f"policy{i}") for i, setting in enumerate(args.settings)
        ]
        study(args, folders, scratch, describe)


if __name__ == "__main__":
    try:
        main()
    except VlaError as error:
        sys.exit(str(error))
