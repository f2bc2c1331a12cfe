"""The policy contract: what a checkpoint was trained for, stored beside its weights and enforced.

``policy.json`` lies next to ``model.safetensors``. It knows embodiments, statistics, cameras, rates
and words, so that nobody picks a normalisation or a gripper sign by hand. Every doubt is an error:
a missing key, an unknown one, another version, other weights, a foreign arm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.plausibility import check_statistics
from vla.data.statistics import Normalizer
from vla.embodiment import Embodiment, compatible
from vla.errors import ContractError, IncompatibleError, ObservationError, StatisticsError, VlaError
from vla.files import read_json, write_json
from vla.spaces import SLOT_VERSION
from vla.types import Observation

FORMAT_VERSION = 1
CONTRACT_FILE = "policy.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class PolicyContract:
    """What must hold wherever the policy meets a dataset, an env or a robot.

    Args:
        embodiments: the arms it was trained on, by name.
        normalisation: modes and statistics by embodiment (JSON of ``vla.data.statistics.Normalizer``).
        camera_roles: cameras it looks through, in the network's order.
        image_size: px; images are squares of exactly this size.
        horizon: actions a chunk.
        execution_horizon: actions to execute before replanning, unless somebody measures better.
        heads: action heads with trained weights; the first is the default.
        num_flow_steps: denoising steps of the flow head.
        instruction: how instructions become words (``normalisation``) and which are known (``vocabulary``).
        network: JSON of ``vla.models.net_config.PolicyNetConfig``.
        provenance: config, data, versions, git state, seeds, what training cost.
        weights_sha256: of ``model.safetensors``; empty until weights are saved.
    """

    embodiments: Mapping[str, Embodiment]
    normalisation: Mapping[str, Any]
    camera_roles: tuple[str, ...]
    image_size: int
    horizon: int
    execution_horizon: int
    heads: tuple[str, ...]
    num_flow_steps: int
    instruction: Mapping[str, Any]
    network: Mapping[str, Any]
    provenance: Mapping[str, Any]
    weights_sha256: str = ""
    format_version: int = FORMAT_VERSION
    slot_version: int = SLOT_VERSION

    def __post_init__(self) -> None:
        for given, expected, what in (
            (self.format_version, FORMAT_VERSION, "format version"),
            (self.slot_version, SLOT_VERSION, "slot version"),
        ):
            if given != expected:
                raise ContractError(f"Policy contract of {what} {given}; this package reads {expected}.")
        if not self.embodiments or not self.heads:
            raise ContractError("A policy contract needs at least one embodiment and one head.")
        if not 1 <= self.execution_horizon <= self.horizon:
            raise ContractError(f"execution_horizon {self.execution_horizon} must lie in 1..{self.horizon}.")
        for name, embodiment in self.embodiments.items():
            if embodiment.name != name:
                raise ContractError(f"Embodiment {embodiment.name!r} is stored as {name!r}.")
        statistics = self.normalizer().statistics
        for name in self.embodiments:
            if name not in statistics:
                raise StatisticsError(
                    f"Policy contract has no normalisation statistics for {name!r}; "
                    f"it has them for {sorted(statistics)}."
                )
            check_statistics(self.embodiments[name], statistics[name])

    def normalizer(self) -> Normalizer:
        """Between the units of each embodiment and what the network sees."""
        return Normalizer.from_json(self.normalisation, self.embodiments)

    def check(self, embodiment: Embodiment, *, trained_as: str | None = None) -> Embodiment:
        """The training embodiment that fits ``embodiment``.

        Args:
            embodiment: the arm to be driven.
            trained_as: treat it as this training embodiment; by default the one of the same name.

        Raises:
            IncompatibleError: never trained on that name, or conventions or cameras differ; with every
                reason.
        """
        name = trained_as or embodiment.name
        if name not in self.embodiments:
            known = ", ".join(sorted(self.embodiments))
            raise IncompatibleError(
                "policy",
                repr(embodiment.name),
                [f"not trained on {name!r}, only on: {known}; if one of those fits, say so (trained_as=)"],
            )
        trained = self.embodiments[name]
        reasons = (*compatible(trained, embodiment).reasons, *self._camera_reasons(trained, embodiment))
        if reasons:
            raise IncompatibleError(f"policy (trained on {name!r})", repr(embodiment.name), reasons)
        return trained

    def _camera_reasons(self, trained: Embodiment, embodiment: Embodiment) -> list[str]:
        """What :meth:`check_observation` would say of this arm's cameras, before anything runs."""
        there, reasons = {camera.name: camera for camera in embodiment.cameras}, []
        for name, role in ((c.name, c.role) for c in trained.cameras if c.role in self.camera_roles):
            camera = there.get(name)
            if camera is None or camera.role != role:
                reasons.append(f"looks through the {role} camera {name!r}, here: {sorted(there)}")
            elif (camera.height, camera.width) != (self.image_size, self.image_size):
                reasons.append(
                    f"camera {name!r} gives {camera.height}x{camera.width} px, the policy was trained on "
                    f"{self.image_size}x{self.image_size}: make the env or robot with "
                    f"image_size={self.image_size} (vla eval: leave --image-size out)"
                )
        return reasons

    def check_observation(self, observation: Observation, *, trained_as: str | None = None) -> None:
        """Raise :class:`ObservationError` unless cameras, image size, dtype and state are as trained."""
        name = trained_as or observation.embodiment
        if name not in self.embodiments:
            raise ObservationError(
                f"Observation of {name!r}, but the policy knows only {sorted(self.embodiments)}."
            )
        embodiment = self.embodiments[name]
        shape = (self.image_size, self.image_size, 3)
        for camera, role in ((c.name, c.role) for c in embodiment.cameras if c.role in self.camera_roles):
            if camera not in observation.images:
                raise ObservationError(
                    f"Observation of {name!r} lacks the {role} camera {camera!r}; "
                    f"it has {sorted(observation.images)}."
                )
            image = observation.images[camera]
            if image.shape != shape or image.dtype != np.uint8:
                raise ObservationError(
                    f"Camera {camera!r} of {name!r} gave {image.dtype} {image.shape}; the policy was trained "
                    f"on uint8 {shape}. Make the env or robot with image_size={self.image_size}."
                )
        embodiment.pack_state(observation.state)

    def to_json(self) -> dict[str, Any]:
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**data, "embodiments": {name: e.to_json() for name, e in self.embodiments.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolicyContract:
        """Strict inverse of :meth:`to_json`."""
        known = {f.name for f in fields(cls)}
        if data.get("format_version") != FORMAT_VERSION:
            raise ContractError(
                f"Policy contract of format version {data.get('format_version')!r}; "
                f"this package reads {FORMAT_VERSION}."
            )
        missing, unknown = sorted(known - set(data)), sorted(set(data) - known)
        if missing or unknown:
            raise ContractError(f"Policy contract: missing keys {missing}, unknown keys {unknown}.")
        try:
            embodiments = {name: Embodiment.from_json(e) for name, e in data["embodiments"].items()}
        except (VlaError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, ContractError):
                raise
            raise ContractError(f"Policy contract with a damaged embodiment: {error}") from error
        return cls(
            **{
                **data,
                "embodiments": embodiments,
                "camera_roles": tuple(data["camera_roles"]),
                "heads": tuple(data["heads"]),
            }
        )

    def save(self, directory: str | Path) -> PolicyContract:
        """Write ``policy.json`` beside the weights already there; returns the contract with their hash."""
        directory = Path(directory)
        sealed = replace(self, weights_sha256=sha256_of(directory / WEIGHTS_FILE))
        write_json(directory / CONTRACT_FILE, sealed.to_json())
        return sealed

    @classmethod
    def load(cls, directory: str | Path) -> PolicyContract:
        """Read and verify: the weights must be those that the contract was written for."""
        directory = Path(directory)
        path = directory / CONTRACT_FILE
        if not path.is_file():
            raise ContractError(
                f"No policy at {directory}: {CONTRACT_FILE} is missing. Train one with 'vla train'."
            )
        remedy = "Copy the policy again, or resume its run: every checkpoint writes it anew."
        data = read_json(path, ContractError, remedy)
        try:
            contract = cls.from_json(data)
        except (TypeError, KeyError, AttributeError) as error:
            if isinstance(error, VlaError):
                raise
            raise ContractError(f"{path} is damaged: {error!r}. {remedy}") from error
        found = sha256_of(directory / WEIGHTS_FILE)
        if found != contract.weights_sha256:
            raise ContractError(
                f"{directory / WEIGHTS_FILE} is not the file this contract was written for "
                f"(sha256 {found[:12]}, expected {contract.weights_sha256[:12]})."
            )
        return contract


def sha256_of(path: Path) -> str:
    """Hash of a weights file; a missing one raises :class:`ContractError`."""
    if not path.is_file():
        raise ContractError(f"No weights at {path}.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
