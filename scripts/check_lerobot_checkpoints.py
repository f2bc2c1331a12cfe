"""SmolVLA, pi0 and pi05 that lerobot 0.6.1 saved: same chunks here, same bytes saved, and lerobot reads them.

usage: python scripts/check_lerobot_checkpoints.py --data FOLDER [--peer PYTHON] [--extra FOLDER]

FOLDER holds lerobot_smolvla_tiny, lerobot_pi0_tiny and lerobot_pi05_tiny: checkpoints that lerobot wrote with
random weights, and golden.safetensors with what its policies made of a stored observation, noise and time.
For each: the chunk and, where there is one, the loss against lerobot's; the round trip (bytes of every file);
whether a denoising step exports as one graph; and the time of a chunk. With --peer (a Python that has lerobot
and transformers 5.5; --extra is put on its PYTHONPATH) lerobot itself loads the SmolVLA that was saved here
and runs it. Prints a table and, as its last line, everything as JSON; exits with 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file

from vla.models.lerobot import LerobotCheckpoint, load_lerobot
from vla.text import text_table

TOLERANCE = 1e-5
VISION_HEADS = {"smolvla": None, "pi0": 4, "pi05": 4}  # the tiny towers are 32 wide

PEER = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import load_file
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.configs import PreTrainedConfig
from lerobot.processor import PolicyProcessorPipeline
directory, golden = Path(sys.argv[1]), load_file(sys.argv[2])
config = PreTrainedConfig.from_pretrained(directory)
config.vlm_model_name = str(directory / config.vlm_model_name)
policy = SmolVLAPolicy.from_pretrained(directory, config=config, strict=True)
pre = PolicyProcessorPipeline.from_pretrained(
    directory, config_filename="policy_preprocessor.json",
    overrides={"tokenizer_processor": {"tokenizer_name": config.vlm_model_name}},
)
post = PolicyProcessorPipeline.from_pretrained(
    directory, config_filename="policy_postprocessor.json",
    to_transition=lambda action: {"action": action}, to_output=lambda transition: transition["action"],
)
batch = {k[4:]: v for k, v in golden.items() if k.startswith("raw.")}
batch["task"] = json.load(open(sys.argv[3]))["raw.task"]
chunk = post(policy.predict_action_chunk(pre(batch), noise=golden["noise"]))
print(json.dumps({"chunk": chunk.tolist()}))
"""


class _Step(torch.nn.Module):
    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, prefix: Any, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.net.step(prefix, x, condition)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--extra", type=Path)
    flags = parser.parse_args()
    rows = [check(kind, flags.data / f"lerobot_{kind}_tiny") for kind in VISION_HEADS]
    if flags.peer:
        source = flags.data / "lerobot_smolvla_tiny"
        rows[0]["lerobot_reads_ours_error"] = peer_error(source, flags.peer, flags.extra)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print(text_table(columns, [[str(row.get(key, "-")) for key in columns] for row in rows]))
    print(json.dumps(rows))
    errors = [value for row in rows for key, value in row.items() if key.endswith("_error")]
    whole = all(row["bytes_equal"] and row["step_is_one_graph"] for row in rows)
    return 0 if whole and max(errors) < TOLERANCE else 1


def check(kind: str, source: Path) -> dict[str, Any]:
    """Errors against lerobot's own results, and what else must hold."""
    golden = load_file(source / "golden.safetensors")
    checkpoint = load_lerobot(source, vision_heads=VISION_HEADS[kind])
    row: dict[str, Any] = {"policy": kind}
    if kind == "smolvla":
        inputs, processed = checkpoint.prepare(_raw(source, golden))
        row["tokens_equal"] = torch.equal(processed["observation.language.tokens"], golden["tokens"])
        actions, _ = checkpoint.chunk(_raw(source, golden), golden["noise"])
        row["actions_error"] = _far(actions, golden["act"])
        loss = checkpoint.net.loss(inputs, golden["action"], golden["noise"], golden["time"])
        row["loss_error"] = _far(loss, golden["loss"])
    else:
        inputs = checkpoint.inputs({k[6:]: v for k, v in golden.items() if k.startswith("batch.")})
        row["pictures_error"] = max(_far(inputs.images[:, i], golden[f"imgs.{i}"]) for i in (0, 1))
    with torch.inference_mode():
        checkpoint.net.sample(inputs, golden["noise"])
        began = time.perf_counter()
        chunk = checkpoint.net.sample(inputs, golden["noise"])
        row["chunk_ms"] = round(1000 * (time.perf_counter() - began), 1)
    row["chunk_error"] = _far(chunk[..., : checkpoint.config.action_dim], golden["out"])
    row["step_is_one_graph"] = exports(checkpoint, inputs, golden["noise"])
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "copy")
        names = [path.name for path in (Path(folder) / "copy").iterdir() if path.is_file()]
        row["bytes_equal"] = all(
            (source / name).read_bytes() == (Path(folder) / "copy" / name).read_bytes() for name in names
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


def peer_error(source: Path, python: Path, extra: Path | None) -> float:
    """What lerobot makes of the SmolVLA saved here, against what it made of its own."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        load_lerobot(source).save(copy)
        environment = {**os.environ, **({"PYTHONPATH": str(extra)} if extra else {})}
        arguments = [str(copy), str(source / "golden.safetensors"), str(source / "golden_text.json")]
        done = subprocess.run(
            [str(python), "-c", PEER, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
    if done.returncode:
        print(done.stderr[-3000:], file=sys.stderr)
        raise SystemExit("lerobot did not read what was saved here.")
    theirs = torch.tensor(json.loads(done.stdout.strip().splitlines()[-1])["chunk"])
    return _far(theirs, load_file(source / "golden.safetensors")["act"])


def _raw(source: Path, golden: dict[str, torch.Tensor]) -> dict[str, Any]:
    tasks = json.loads((source / "golden_text.json").read_text())["raw.task"]
    return {k[4:]: v for k, v in golden.items() if k.startswith("raw.")} | {"task": tasks}


def _far(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().abs().max())


if __name__ == "__main__":
    sys.exit(main())
