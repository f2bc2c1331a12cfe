"""SmolVLA, pi0 and pi05 that lerobot 0.6.1 saved: same chunk, same loss, same bytes, and lerobot reads ours.

usage: python scripts/check_lerobot_checkpoints.py --data FOLDER [--check] [--out docs/results/...json]

FOLDER holds lerobot_smolvla_tiny, lerobot_pi0_tiny and lerobot_pi05_tiny: checkpoints that lerobot wrote with
random weights, and golden.safetensors with what its policies made of a stored observation and noise.
For each: chunk and loss here against lerobot's recorded ones and against lerobot 0.6.1 itself, which runs in
a Python of its own (scripts/lerobot_peer.py makes it; transformers and num2words are added for this); the
round trip (bytes of every file); whether a denoising step exports as one graph; and two steps of fine-tuning
here, saved in lerobot's format and loaded by lerobot, which must then make the same chunk and loss.
Prints a table and, as its last line, everything as JSON; --check exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lerobot_peer import run_in_peer
from safetensors.torch import load_file, save_file

from vla.models.lerobot import LerobotCheckpoint, load_lerobot
from vla.models.lerobot.training import FineTuning
from vla.text import text_table

TOLERANCE = 1e-5
VISION_HEADS = {"smolvla": None, "pi0": 4, "pi05": 4}  # the tiny towers are 32 wide
COMMAND = "python scripts/check_lerobot_checkpoints.py --data FOLDER --check"
PEER = Path(__file__).parent / "lerobot_checkpoints_peer.py"


class _Step(torch.nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, prefix: Any, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.net.step(prefix, x, condition)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = check_all(flags.data, Path(folder))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print(text_table(columns, [[_shown(row.get(key)) for key in columns] for row in rows]))
    errors = [value for row in rows for key, value in row.items() if key.endswith("_error")]
    whole = all(value for row in rows for value in row.values() if isinstance(value, bool))
    met = whole and max(errors) <= TOLERANCE
    chunks = [row["chunk_error"] for row in rows]
    losses = [row["loss_error"] for row in rows]
    result = {
        "claim": "SmolVLA, pi0 and pi0.5 of lerobot 0.6.1 (tiny): chunk and loss beside lerobot's own; "
        "fine-tuned here, saved, loaded by lerobot",
        "target": f"greatest difference <= {TOLERANCE:g}, same bytes back",
        "measured": f"chunk {max(chunks):.1e}, loss {max(losses):.1e}, all {max(errors):.1e}; "
        + ("same bytes" if all(row["bytes_equal"] for row in rows) else "other bytes"),
        "command": COMMAND,
        "met": met,
        "rows": rows,
    }
    if flags.out:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return int(flags.check and not met)


def check_all(data: Path, folder: Path) -> list[dict[str, Any]]:
    rows, cases, mine = [], [], []
    for kind, heads in VISION_HEADS.items():
        source = data / f"lerobot_{kind}_tiny"
        checkpoint = load_lerobot(source, vision_heads=heads)
        golden = load_file(source / "golden.safetensors")
        batch, noise, time_B = training_batch(checkpoint, golden, source)
        rows.append({"policy": kind, **check(checkpoint, source, golden, folder)})
        tuned = load_lerobot(source, vision_heads=heads)
        tuning = FineTuning(tuned)
        rows[-1]["losses_of_two_steps"] = [tuning.step(batch, noise, time_B) for _ in range(2)]
        tuned.save(folder / kind / "tuned")
        stored = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
        save_file({**stored, "noise": noise, "time": time_B}, folder / kind / "batch.safetensors")
        for name, policy, which in (("", source, checkpoint), ("tuned_", folder / kind / "tuned", tuned)):
            case = {
                "kind": kind,
                "policy": str(policy.resolve()),
                "batch": str(folder / kind / "batch.safetensors"),
                "out": str(folder / kind / f"{name}out.safetensors"),
            }
            if kind == "smolvla":
                raw = _raw(source, golden)
                case |= {"raw": str(folder / "raw.safetensors"), "tasks": raw.pop("task")}
                save_file(raw, case["raw"])
            cases.append(case)
            with torch.inference_mode():
                inputs = which.inputs(batch)
                found = {
                    "chunk": which.net.sample(inputs, noise)[..., : which.config.action_dim],
                    "loss": which.net.loss(inputs, batch["action"], noise, time_B),
                }
                if kind == "smolvla":
                    found["actions"] = which.chunk(_raw(source, golden), noise)[0]
            mine.append((rows[-1], name, found))
    (folder / "cases.json").write_text(json.dumps(cases))
    run_in_peer(PEER, [str(folder / "cases.json")], timeout_s=900, extras=("smolvla", "pi"))
    for case, (row, name, found) in zip(cases, mine, strict=True):
        theirs = load_file(case["out"])
        for key, value in found.items():
            row[f"{name}{key}_error"] = _far(value, theirs[key])
    return rows


def training_batch(
    checkpoint: LerobotCheckpoint, golden: dict[str, torch.Tensor], source: Path
) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """Processed batch with normalised actions, noise, times: the recorded ones, or drawn where none were."""
    if checkpoint.config.kind == "smolvla":
        batch = checkpoint.prepare(_raw(source, golden))[1]
        return {**batch, "action": golden["action"]}, golden["noise"], golden["time"]
    generator = torch.Generator().manual_seed(0)
    shape = (2, checkpoint.config.chunk_size, checkpoint.config.action_dim)
    batch = {k[6:]: v for k, v in golden.items() if k.startswith("batch.")}
    batch["action"] = torch.randn(shape, generator=generator)
    return batch, golden["noise"], checkpoint.net.draw(2, generator)[1]


def check(
    checkpoint: LerobotCheckpoint, source: Path, golden: dict[str, torch.Tensor], folder: Path
) -> dict[str, Any]:
    """Errors against what lerobot recorded, and what else must hold."""
    kind = checkpoint.config.kind
    row: dict[str, Any] = {}
    if kind == "smolvla":
        inputs, processed = checkpoint.prepare(_raw(source, golden))
        row["tokens_equal"] = torch.equal(processed["observation.language.tokens"], golden["tokens"])
        actions, _ = checkpoint.chunk(_raw(source, golden), golden["noise"])
        row["recorded_actions_error"] = _far(actions, golden["act"])
        loss = checkpoint.net.loss(inputs, golden["action"], golden["noise"], golden["time"])
        row["recorded_loss_error"] = _far(loss, golden["loss"])
    else:
        inputs = checkpoint.inputs({k[6:]: v for k, v in golden.items() if k.startswith("batch.")})
        row["pictures_error"] = max(_far(inputs.images[:, i], golden[f"imgs.{i}"]) for i in (0, 1))
    with torch.inference_mode():
        chunk = checkpoint.net.sample(inputs, golden["noise"])
    row["recorded_chunk_error"] = _far(chunk[..., : checkpoint.config.action_dim], golden["out"])
    row["step_is_one_graph"] = exports(checkpoint, inputs, golden["noise"])
    checkpoint.save(folder / kind / "copy")
    names = [path.name for path in (folder / kind / "copy").iterdir() if path.is_file()]
    row["bytes_equal"] = all(
        (source / name).read_bytes() == (folder / kind / "copy" / name).read_bytes() for name in names
    )
    return row


def exports(checkpoint: LerobotCheckpoint, inputs: Any, noise: torch.Tensor) -> bool:
    """Whether torch.export takes a step as one graph that changes no buffer and gives the same."""
    net = checkpoint.net
    with torch.no_grad():
        arguments = (net.encode_prefix(inputs), noise, net.condition(torch.tensor([0.7])))
        program = torch.export.export(_Step(net), arguments)
        same = torch.equal(program.module()(*arguments), net.step(*arguments))
    return same and not program.graph_signature.buffers_to_mutate


def _raw(source: Path, golden: dict[str, torch.Tensor]) -> dict[str, Any]:
    tasks = json.loads((source / "golden_text.json").read_text())["raw.task"]
    return {k[4:]: v for k, v in golden.items() if k.startswith("raw.")} | {"task": tasks}


def _far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().abs().max())


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{v:.3f}" for v in value)
    return "-" if value is None else f"{value:.1e}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
