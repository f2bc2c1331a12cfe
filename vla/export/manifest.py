"""``export.json``: what an exported policy is, of which weights, its files' hashes, thread settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vla.contract import PolicyContract, sha256_of
from vla.errors import CheckpointError, ContractError
from vla.files import read_json, write_json

FORMAT_VERSION = 1
MANIFEST_FILE = "export.json"
#: Where an export lies beside its policy, and is found.
FOLDER = "onnx"
PRECISIONS = ("float32", "int8")
INT8_FILE = "steps.int8.onnx"
REMEDY = "Export again with 'vla export POLICY'."


def file_names(precision: str) -> tuple[str, str]:
    """Prefix and step graph; int8 has the same prefix."""
    return "prefix.onnx", "steps.onnx" if precision == "float32" else INT8_FILE


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """JSON-able.

    Args:
        weights_sha256: of the policy that was exported; its contract must name the same.
        head, num_steps, draws_noise: the action head, its denoising steps, and whether it starts from noise.
        batch, words: fixed sizes (see :class:`vla.export.graphs.Sizes`).
        horizon, action_index: of the chunk that comes out.
        files: name -> SHA-256.
        parity: float32 against the float64 reference: ``error`` (relative to the largest action, at least 1),
            ``allowed``, ``inputs`` (how many random observations).
        int8: None, or the report of :func:`vla.export.quantise.action_error` and whether it was accepted.
        settings: of the ONNX Runtime session.
        versions: of the packages that made the files.
    """

    weights_sha256: str
    head: str
    num_steps: int
    draws_noise: bool
    batch: int
    words: int
    horizon: int
    action_index: tuple[int, ...]
    parity: Mapping[str, Any]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    int8: Mapping[str, Any] | None = None
    format_version: int = FORMAT_VERSION

    def save(self, directory: Path) -> None:
        write_json(directory / MANIFEST_FILE, asdict(self))

    @classmethod
    def load(cls, directory: Path, contract: PolicyContract) -> Manifest:
        """Read and checked against the policy: damage is a :class:`CheckpointError`."""
        data = read_json(directory / MANIFEST_FILE, CheckpointError, REMEDY)
        known = {f.name for f in fields(cls)}
        if data.get("format_version") != FORMAT_VERSION or set(data) != known:
            wrong = sorted(set(data) ^ known) or data.get("format_version")
            raise CheckpointError(f"{directory / MANIFEST_FILE} is of another version ({wrong}). {REMEDY}")
        found = cls(**{**data, "action_index": tuple(data["action_index"])})
        if found.weights_sha256 != contract.weights_sha256:
            raise ContractError(
                f"The export in {directory} was made of weights {found.weights_sha256[:12]}, the policy has "
                f"{contract.weights_sha256[:12]}. {REMEDY}"
            )
        return found

    def check_files(self, directory: Path, names: tuple[str, ...]) -> None:
        """Raise :class:`CheckpointError` for a file that is missing or not the one that was exported."""
        for name in names:
            path = directory / name
            if not path.is_file():
                raise CheckpointError(f"{path} is missing. {REMEDY}")
            if sha256_of(path) != self.files.get(name):
                raise CheckpointError(f"{path} is not the file that {MANIFEST_FILE} names. {REMEDY}")
