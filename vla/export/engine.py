"""The exported policy run by ONNX Runtime: two calls a chunk, fixed shapes, no spinning threads."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vla import spaces
from vla.contract import PolicyContract
from vla.errors import CheckpointError, ConfigError, MissingExtraError, ObservationError, UnknownNameError
from vla.export.graphs import INPUTS, MEMORY, PAST, pad_words
from vla.export.manifest import MANIFEST_FILE, PRECISIONS, Manifest, file_names
from vla.models.policy_net import PolicyInputs

#: A thread that spins for work steals the core that cameras and control need: several times slower there.
SETTINGS = {"intra_op_threads": 1, "inter_op_threads": 1, "allow_spinning": False}


def has_export(directory: Path) -> bool:
    """Whether there is an export that this machine can run."""
    return (directory / MANIFEST_FILE).is_file() and importlib.util.find_spec("onnxruntime") is not None


def onnx_runtime() -> ModuleType:
    """The module, or :class:`MissingExtraError`."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx", "Running an exported policy") from None
    return onnxruntime


@dataclass(frozen=True, eq=False)
class OnnxEngine:
    """Prefix and step sessions of one export; see :meth:`load`."""

    manifest: Manifest
    precision: str
    prefix: Any
    steps: Any

    @classmethod
    def load(
        cls,
        directory: Path,
        contract: PolicyContract,
        *,
        precision: str = "float32",
        threads: int | None = None,
    ) -> OnnxEngine:
        """From the folder that ``vla export`` wrote, checked against the policy.

        Args:
            precision: ``float32`` or ``int8``.
            threads: of each session; None: the manifest's.

        Raises:
            MissingExtraError: no ONNX Runtime.
            CheckpointError: no int8 files, ones whose error was not accepted, or damage.
            ContractError: an export of other weights.
        """
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
        manifest, names = Manifest.load(directory, contract), file_names(precision)
        if precision == "int8" and not (manifest.int8 or {}).get("accepted"):
            raise CheckpointError(
                f"{directory} holds no accepted int8 export. Make one with 'vla export POLICY --int8'."
            )
        manifest.check_files(directory, names)
        sessions = [
            make_session(directory / name, threads or manifest.settings["intra_op_threads"]) for name in names
        ]
        return cls(manifest, precision, *sessions)

    def sample(self, inputs: PolicyInputs, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """What :meth:`PolicyNet.sample` gives: chunk [B H ACTION_DIM], location [B 2 3]."""
        made, count, size = self.manifest, len(inputs.state), self.manifest.batch
        noise = torch.zeros(count, made.horizon, len(made.action_index))
        if generator is not None and made.draws_noise:
            noise = torch.randn(noise.shape, generator=generator)
        chunk, location = torch.zeros(count, made.horizon, spaces.ACTION_DIM), torch.zeros(count, 2, 3)
        rows = [*self._rows(inputs), noise]
        for start in range(0, count, size):
            here = slice(start, min(start + size, count))
            actions, where = self.run(*(self._fill(value[here]) for value in rows))
            chunk[here, :, list(made.action_index)] = actions[: here.stop - start]
            location[here] = where[: here.stop - start]
        return chunk, location

    def run(self, *values: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of the prefix graph and noise, of exactly the exported sizes -> actions, location."""
        *given, noise = values
        feed = {name: value.numpy() for name, value in zip((*INPUTS, *PAST), given, strict=False)}
        made = self.prefix.run(list(MEMORY), _wanted(self.prefix, feed))
        feed = {"x": noise.numpy(), "memory": made[0], "memory_mask": made[1]}
        (actions,) = self.steps.run(None, _wanted(self.steps, feed))
        return torch.from_numpy(actions), torch.from_numpy(np.asarray(made[2]))

    def _rows(self, inputs: PolicyInputs) -> tuple[Tensor, ...]:
        mask = inputs.image_mask
        if mask is None:
            mask = torch.ones(inputs.images.shape[:2], dtype=torch.bool)
        ids, words = pad_words(inputs.token_ids, inputs.token_mask, self.manifest.words)
        past = () if inputs.past is None else (inputs.past.state, inputs.past.action, inputs.past.there)
        return inputs.images, mask, ids, words, inputs.embodiment_id, inputs.state, inputs.state_mask, *past

    def _fill(self, rows: Tensor) -> Tensor:
        """To a whole batch: the last row again and again."""
        more = self.manifest.batch - len(rows)
        return rows.contiguous() if not more else torch.cat([rows, rows[-1:].expand(more, *rows.shape[1:])])


def _wanted(session: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without what the exporter left out because the graph does not read it (noise, by a regression head)."""
    missing = [i.name for i in session.get_inputs() if i.name not in feed]
    if missing:
        raise ObservationError(f"The export reads {', '.join(missing)}, which were not given.")
    return {i.name: feed[i.name] for i in session.get_inputs()}


def make_session(path: Path, threads: int) -> Any:
    """An ONNX Runtime session on the CPU: :data:`SETTINGS`, and so many threads.

    Raises:
        CheckpointError: a file that ONNX Runtime cannot read.
    """
    runtime = onnx_runtime()
    from onnxruntime.capi import onnxruntime_pybind11_state as raised  # pyright: ignore

    if threads < 1:
        raise ConfigError(f"Threads are counted from 1: {threads}.")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, SETTINGS["inter_op_threads"]
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    unreadable = (raised.Fail, raised.InvalidArgument, raised.InvalidGraph, raised.InvalidProtobuf)
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (*unreadable, raised.NotImplemented, raised.RuntimeException) as error:
        raise CheckpointError(f"ONNX Runtime cannot read {path}: {error}") from error
