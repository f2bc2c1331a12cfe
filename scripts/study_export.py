"""Does every backbone family, and every choice after the backbone, export to ONNX and compute the same?

usage: python scripts/study_export.py [--out docs/results/export.json]

A small random model of each family that ``vla`` knows is made on the spot, exported as ``vla export`` does
it (prefix and step graph), and run by ONNX Runtime on sentences and absent cameras not traced with.
Prints a table, then one JSON line; exits with 1 where one does not export or differs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.export.exports import CHOICES, choice_config, family_config, largest_difference
from tests.models.backbones.tiny_vlms import CONFIGS
from vla.errors import VlaError
from vla.export.writing import TOLERANCE
from vla.files import write_json
from vla.provenance import package_versions
from vla.report.tables import text_table


@dataclass(frozen=True, kw_only=True)
class Study:
    """Export everything that can be chosen.

    Args:
        out: result file; left out: only printed.
    """

    out: Path | None = None


def main() -> int:
    study, rows = tyro.cli(Study), {}
    for name in (*CONFIGS, *CHOICES):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            make = choice_config if name in CHOICES else family_config
            try:
                found: float | str = largest_difference(make(name, Path(folder)), Path(folder))
            except VlaError as error:
                found = str(error)
        rows[name] = {"difference": found, "seconds": round(time.perf_counter() - started, 1)}
        print(f"{name}: {found}", file=sys.stderr)
    good = [
        row
        for row in rows.values()
        if isinstance(row["difference"], float) and row["difference"] <= TOLERANCE
    ]
    print(
        text_table(
            ["what", "difference", "seconds"],
            [[n, f"{r['difference']}", f"{r['seconds']}"] for n, r in rows.items()],
        )
    )
    result = {
        "claim": "every backbone family, projector, compression, block and static head exports to ONNX",
        "target": f"actions and locations within {TOLERANCE:g} of torch, float32, on inputs not traced with",
        "measured": f"{len(good)} of {len(rows)} ({len(CONFIGS)} families, {len(CHOICES)} further choices)",
        "command": "python scripts/study_export.py --out docs/results/export.json",
        "versions": package_versions(("torch", "transformers", "onnx", "onnxruntime")),
        "rows": rows,
    }
    if study.out is not None:
        write_json(study.out, result)
    print(json.dumps(result))
    return int(len(good) < len(rows))


if __name__ == "__main__":
    sys.exit(main())
