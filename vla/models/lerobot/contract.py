"""What a lerobot checkpoint does not say: which arm it is for, which camera is which, in which units.

lerobot's config names vectors of 6 or 7 numbers and pictures; that their third number is an elbow in degrees
is in somebody's head. ``vla_contract.json`` beside the checkpoint writes it down once, and holds wherever
the policy meets an env or a robot. Without it the policy does not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np

from vla.contract import sha256_of
from vla.embodiment import Embodiment, compatible
from vla.errors import ContractError, IncompatibleError, ObservationError, UnknownNameError, VlaError
from vla.files import read_json, write_json
from vla.models.lerobot.config import LerobotConfig
from vla.types import Observation

CONTRACT_FILE = "vla_contract.json"
_WEIGHTS = "model.safetensors"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LerobotContract:
    """The embodiment behind a checkpoint's vectors and pictures.

    Args:
        embodiment: the arm, with cameras of the size they give.
        cameras: lerobot's key -> name of the embodiment's camera.
        state: fields of the embodiment's state, in the order of ``observation.state``; actions are in the
            order of the embodiment's action fields.
        factors: field (of state or action) -> what one unit of the embodiment is in the checkpoint's, for
            example 57.29578 where the checkpoint has degrees; 1 where nothing is said.
        execution_horizon: actions to execute before replanning.
        weights_sha256: of ``model.safetensors``; empty until it is saved.
    """

    embodiment: Embodiment
    cameras: Mapping[str, str]
    state: tuple[str, ...]
    execution_horizon: int
    factors: Mapping[str, float] = field(default_factory=dict)
    weights_sha256: str = ""
    format_version: int = _VERSION

    def __post_init__(self) -> None:
        names = [camera.name for camera in self.embodiment.cameras]
        for name in self.cameras.values():
            if name not in names:
                raise UnknownNameError(f"camera of {self.embodiment.name!r}", name, names)
        known = [f.name for f in self.embodiment.state]
        for name in self.state:
            if name not in known:
                raise UnknownNameError(f"state field of {self.embodiment.name!r}", name, known)
        known += [f.name for f in self.embodiment.action]
        for name, factor in self.factors.items():
            if name not in known:
                raise UnknownNameError(f"field of {self.embodiment.name!r}", name, known)
            if not np.isfinite(factor) or factor == 0:
                raise ContractError(f"The factor of {name!r} is {factor}; it must be a number other than 0.")
        _ = self.image_size

    @property
    def image_size(self) -> int:
        """px, of every camera that the policy looks through; they must be squares of one size."""
        sizes = {(c.height, c.width) for c in self.embodiment.cameras if c.name in self.cameras.values()}
        if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
            raise ContractError(f"The cameras must give squares of one size, not {sorted(sizes)}.")
        return next(iter(sizes))[0]

    def check_config(self, config: LerobotConfig) -> None:
        """Raise :class:`ContractError` unless pictures, state and actions add up to the checkpoint's."""
        reasons = []
        missing = [key for key in config.cameras if key not in self.cameras]
        if len(missing) > config.empty_cameras:
            reasons.append(f"nothing is said about the cameras {missing}")
        unknown = sorted(set(self.cameras) - set(config.cameras))
        if unknown:
            reasons.append(f"unknown cameras {unknown}; the checkpoint has {list(config.cameras)}")
        sizes = {f.name: f.size for f in self.embodiment.state}
        state_dim = sum(sizes[name] for name in self.state)
        if state_dim != config.state_dim:
            reasons.append(f"the state fields {self.state} have {state_dim} entries, not {config.state_dim}")
        if self.embodiment.action_dim != config.action_dim:
            reasons.append(f"the action has {self.embodiment.action_dim} entries, not {config.action_dim}")
        if not 1 <= self.execution_horizon <= config.chunk_size:
            reasons.append(f"execution_horizon {self.execution_horizon} is not in 1..{config.chunk_size}")
        if reasons:
            lines = "".join(f"\n  - {reason}" for reason in reasons)
            raise ContractError(f"{CONTRACT_FILE} does not fit its checkpoint:{lines}")

    @property
    def embodiments(self) -> dict[str, Embodiment]:
        """The one arm, by its name."""
        return {self.embodiment.name: self.embodiment}

    def check(self, embodiment: Embodiment) -> Embodiment:
        """The contract's embodiment, or :class:`IncompatibleError` with every reason."""
        reasons = list(compatible(self.embodiment, embodiment).reasons)
        if embodiment.name != self.embodiment.name:
            reasons.append(f"made for {self.embodiment.name!r}, not for {embodiment.name!r}")
        there = {camera.name: camera for camera in embodiment.cameras}
        for camera in self.embodiment.cameras:
            if camera.name in self.cameras.values() and there.get(camera.name) != camera:
                reasons.append(f"looks through {camera}, here: {there.get(camera.name)}")
        if reasons:
            raise IncompatibleError("lerobot policy", repr(embodiment.name), reasons)
        return self.embodiment

    def state_vector(self, observation: Observation) -> np.ndarray:
        """float32 [state_dim] in the checkpoint's units and order."""
        if observation.embodiment != self.embodiment.name:
            raise ObservationError(
                f"Observation of {observation.embodiment!r}; this policy is for {self.embodiment.name!r}."
            )
        values = self.embodiment.unpack_state(self.embodiment.pack_state(observation.state))
        parts = [values[name] * np.float32(self.factors.get(name, 1.0)) for name in self.state]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def picture(self, observation: Observation, key: str) -> np.ndarray:
        """uint8 [h w 3] of the camera behind lerobot's ``key``; raises :class:`ObservationError`."""
        name, size = self.cameras[key], self.image_size
        if name not in observation.images:
            raise ObservationError(f"No picture of camera {name!r}; there are {sorted(observation.images)}.")
        image = observation.images[name]
        if image.shape != (size, size, 3) or image.dtype != np.uint8:
            raise ObservationError(
                f"Camera {name!r} gave {image.dtype} {image.shape}, expected uint8 {(size, size, 3)}."
            )
        return image

    def actions(self, vectors: np.ndarray) -> np.ndarray:
        """[..., action_dim] in the checkpoint's units -> float32 in the embodiment's."""
        factors = [self.factors.get(f.name, 1.0) for f in self.embodiment.action for _ in range(f.size)]
        return (vectors / np.array(factors)).astype(np.float32)

    def save(self, directory: str | Path, config: LerobotConfig) -> LerobotContract:
        """Write ``vla_contract.json`` beside the weights, sealed with their hash."""
        self.check_config(config)
        sealed = replace(self, weights_sha256=sha256_of(Path(directory) / _WEIGHTS))
        data = {f.name: getattr(sealed, f.name) for f in fields(sealed)}
        write_json(Path(directory) / CONTRACT_FILE, {**data, "embodiment": self.embodiment.to_json()})
        return sealed

    @classmethod
    def load(cls, directory: str | Path, config: LerobotConfig) -> LerobotContract:
        """Read and verify; raises :class:`ContractError` for every doubt."""
        path = Path(directory) / CONTRACT_FILE
        remedy = (
            "A lerobot checkpoint does not say which arm it is for: describe it once with "
            "vla.models.lerobot.contract.LerobotContract(...).save(directory, config)."
        )
        data = read_json(path, ContractError, remedy)
        known = {f.name for f in fields(cls)}
        if set(data) != known or data["format_version"] != _VERSION:
            raise ContractError(
                f"{path}: expected version {_VERSION} with {sorted(known)}, got {sorted(data)}. {remedy}"
            )
        try:
            embodiment = Embodiment.from_json(data["embodiment"])
            contract = cls(**{**data, "embodiment": embodiment, "state": tuple(data["state"])})
        except (VlaError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, ContractError):
                raise
            raise ContractError(f"{path} is damaged: {error}. {remedy}") from error
        if contract.weights_sha256 != sha256_of(Path(directory) / _WEIGHTS):
            raise ContractError(f"{path} was written for other weights. {remedy}")
        contract.check_config(config)
        return contract
