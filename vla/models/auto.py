"""Our policies for people who know transformers: AutoModel, AutoProcessor and a pipeline.

Importing this module registers them; ``import vla`` alone does not, since importing transformers takes
seconds that a robot's client has better use for::

    import vla.models.auto
    from transformers import pipeline
    chunk = pipeline("vision-language-action", model=directory)(frames, "pick up the red cube", state=state)

A policy directory is one and the same thing for ``vla`` and for transformers: ``policy.json`` beside the
weights is enforced here too, so weights without their contract do not load.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoProcessor, Pipeline, PretrainedConfig, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY

from vla.contract import CONTRACT_FILE, WEIGHTS_FILE, PolicyContract
from vla.embodiment import Embodiment
from vla.errors import ConfigError, ContractError, ObservationError, UnknownNameError
from vla.models.backbones import DESCRIPTION, build_backbone, with_description
from vla.models.backbones.words import Tokens
from vla.models.examples import show_examples
from vla.models.heads.history import Past
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyInputs, PolicyNet
from vla.models.saving import PROCESSOR_FILE, TRANSFORMERS_FILE, load_policy, save_policy, transformers_files
from vla.transforms import actions_from_slots, stack_images, state_in_slots
from vla.types import ActionChunk, Episode, Observation

TASK = "vision-language-action"
#: What a policy directory holds that its classes read.
_FILES = (CONTRACT_FILE, WEIGHTS_FILE, TRANSFORMERS_FILE, PROCESSOR_FILE, f"{DESCRIPTION}/*")
#: Arguments of ``from_pretrained`` about where files come from; passed to the hub's client.
_WHERE = ("cache_dir", "force_download", "local_files_only", "revision", "token")
#: Arguments that transformers passes by itself and that change nothing here.
_IDLE = ("adapter_kwargs", "trust_remote_code", "use_safetensors", "low_cpu_mem_usage", "use_fast")


class VlaConfig(PretrainedConfig):
    """``config.json`` of a policy directory; everything else is in the contract beside it.

    Args:
        network: JSON of :class:`vla.models.net_config.PolicyNetConfig`, the same as the contract's.
    """

    model_type = "vla"

    def __init__(self, network: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        self.network = dict(network or {})
        super().__init__(**kwargs)


class VlaModel(PreTrainedModel):
    """A policy network with its contract.

    Args:
        config: what to build.
        contract: where the network meets the world; without it nothing can be saved or run in units.
        net: with its weights (None: a fresh one).
    """

    config_class = VlaConfig
    base_model_prefix = "net"
    main_input_name = "images"
    config: VlaConfig

    def __init__(
        self, config: VlaConfig, contract: PolicyContract | None = None, net: PolicyNet | None = None
    ) -> None:
        super().__init__(config)
        self.contract = contract
        self.net = PolicyNet(PolicyNetConfig.from_json(config.network)) if net is None else net
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """The network has initialised itself."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> VlaModel:  # type: ignore[override]
        """From a policy directory or a hub name, strictly and verified; in evaluation mode.

        Raises:
            ContractError: no contract, or weights that are not the contract's, or another config.json.
            ConfigError: an argument that transformers knows and that has no meaning here; a ``dtype`` other
                than the one that the policy was trained in.
        """
        config, dtype = kwargs.pop("config", None), kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        device = kwargs.pop("device_map", None)
        if args or (isinstance(device, Mapping | Sequence) and not isinstance(device, str)):
            raise ConfigError(f"A policy lies on one device as a whole; got {args or device!r}.")
        directory = _directory(pretrained_model_name_or_path, kwargs)
        net, contract = load_policy(directory, device if device not in (None, "auto") else "cpu")
        config = config or VlaConfig(network=contract.network)
        if _plain(config.network) != _plain(contract.network):
            raise ContractError(
                f"{TRANSFORMERS_FILE} in {directory} describes another network than its contract."
            )
        if dtype not in (None, "auto") and _dtype(dtype) != net.dtype:
            raise ConfigError(
                f"A policy acts in the dtype that it was trained in, here {str(net.dtype)[6:]}, not {dtype}: "
                "leave dtype out. A backbone in 16 bits is a setting of training (model.vlm.dtype)."
            )
        return cls(config, contract, net).eval()

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """A policy directory that ``vla`` and transformers both load; raises without a contract."""
        refused = {key: value for key, value in kwargs.items() if value and key != "safe_serialization"}
        if refused:
            raise ConfigError(f"A policy is saved whole, without {sorted(refused)}.")
        if self.contract is None:
            raise ContractError(
                "This network has no contract: nobody could know its units. Train it with vla."
            )
        described = self.net.config.backbone_settings
        save_policy(save_directory, self.net.state_dict(), self.contract, described_by=described)

    def forward(self, head: str | None = None, num_steps: int | None = None, **inputs: Any) -> Tensor:
        """Fields of :class:`vla.models.policy_net.PolicyInputs` -> normalised chunk [B H ACTION_DIM]."""
        steps = num_steps or (self.contract.num_flow_steps if self.contract else 5)
        return self.net.sample(PolicyInputs(**inputs), head=head, num_steps=steps)[0]


class VlaProcessor:
    """Between observations and the network's tensors, by the contract's rules.

    Args:
        contract: of the policy.
        tokenize: instructions -> ids; by default that of the contract's backbone.
    """

    def __init__(
        self, contract: PolicyContract, tokenize: Callable[[list[str]], Tokens] | None = None
    ) -> None:
        self.contract = contract
        network = PolicyNetConfig.from_json(contract.network)
        if tokenize is None:
            tokenize = build_backbone(network.backbone, network.backbone_settings).tokenize
        self._tokenize, self._history = tokenize, network.history
        self._normalizer = contract.normalizer()
        self._ids = {name: i for i, name in enumerate(sorted(contract.embodiments))}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> VlaProcessor:
        """From a policy directory or a hub name; the weights are verified with it."""
        directory = _directory(pretrained_model_name_or_path, kwargs)
        contract = PolicyContract.load(directory)
        name, settings = contract.network["backbone"], contract.network["backbone_settings"]
        backbone = build_backbone(name, with_description(name, settings, directory))
        return cls(contract, backbone.tokenize)

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Beside a saved model, whose contract must be this one; raises :class:`ContractError` otherwise."""
        there = PolicyContract.load(save_directory)
        if _plain(there.to_json()) != _plain(self.contract.to_json()):
            raise ContractError(f"{save_directory} holds a policy with another contract.")
        (Path(save_directory) / PROCESSOR_FILE).write_text(transformers_files(there)[PROCESSOR_FILE])

    def observation(
        self,
        frames: Mapping[str, np.ndarray],
        instruction: str,
        *,
        state: Mapping[str, np.ndarray] | None = None,
        embodiment: str | None = None,
    ) -> Observation:
        """An observation of ``frames`` (camera -> uint8 [h w 3] RGB).

        Args:
            state: field -> float [n] in the embodiment's units; without it the network gets none.
            embodiment: name; may be left out where the policy knows only one.
        """
        known = sorted(self.contract.embodiments)
        if embodiment is None and len(known) > 1:
            raise ObservationError(f"Say which arm this is (embodiment=): the policy knows {known}.")
        name = embodiment or known[0]
        if name not in self.contract.embodiments:
            raise UnknownNameError("embodiment of this policy", name, known)
        return Observation(images=frames, state=state or {}, instruction=instruction, embodiment=name)

    def __call__(self, observations: Sequence[Observation]) -> dict[str, Tensor | Past | None]:
        """Fields of :class:`vla.models.policy_net.PolicyInputs`, checked against the contract.

        An observation with an empty state runs with the state hidden, as in part of the training. A policy
        with a history is told that there is none: nothing is remembered from call to call.
        """
        arms = [self._checked(observation) for observation in observations]
        pairs = list(zip(observations, arms, strict=True))
        roles, size = self.contract.camera_roles, self.contract.image_size
        pictures = [stack_images(o, arm, roles, size) for o, arm in pairs]
        states = [state_in_slots(_with_state(o, arm), arm, self._normalizer) for o, arm in pairs]
        tokens = self._tokenize([observation.instruction for observation in observations])
        seen = np.stack([there for _, there in pictures])
        hidden = np.array([not observation.state for observation in observations])[:, None]
        return {
            "images": torch.from_numpy(np.stack([images for images, _ in pictures])),
            "image_mask": None if seen.all() else torch.from_numpy(seen),
            "token_ids": torch.from_numpy(np.ascontiguousarray(tokens.ids)),
            "token_mask": torch.from_numpy(np.ascontiguousarray(tokens.mask)),
            "embodiment_id": torch.tensor([self._ids[arm.name] for arm in arms]),
            "state": torch.from_numpy(np.stack([state for state, _ in states])),
            "state_mask": torch.from_numpy(np.stack([there for _, there in states]) & ~hidden),
            "past": Past.absent(len(arms), self._history) if self._history else None,
        }

    def actions(self, chunk: Tensor, observation: Observation) -> ActionChunk:
        """Normalised [H ACTION_DIM] -> actions in the units of the observation's embodiment."""
        arm = self.contract.embodiments[observation.embodiment]
        values = actions_from_slots(chunk.float().cpu().numpy(), arm, self._normalizer)
        info: dict[str, Any] = {"unknown_words": self._tokenize([observation.instruction]).unknown[0]}
        if self._history:
            info["note"] = (
                f"this policy learned to look back on {self._history} moments and was told of none, as when "
                "an episode begins; the policy 'learned' of vla remembers them"
            )
        return ActionChunk(actions=values, control_hz=arm.control_hz, info=info)

    def _checked(self, observation: Observation) -> Embodiment:
        name = observation.embodiment
        if name not in self.contract.embodiments:
            raise UnknownNameError("embodiment of this policy", name, self.contract.embodiments)
        arm = self.contract.embodiments[name]
        self.contract.check_observation(_with_state(observation, arm))
        return arm


class VlaPipeline(Pipeline):
    """Frames and a sentence -> :class:`vla.types.ActionChunk` in the embodiment's units.

    Every call stands alone. To a policy with a history each is an episode's first moment, which the chunk's
    ``info["note"]`` says; the registered policy ``learned`` remembers.
    """

    _load_processor = _load_image_processor = _load_feature_extractor = _load_tokenizer = False
    _load_video_processor = False
    model: VlaModel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.model.contract is None:
            raise ContractError(
                "This network has no contract: nobody knows its units. Load it from a policy."
            )
        self.vla_processor = VlaProcessor(self.model.contract, self.model.net.backbone.tokenize)

    def __call__(  # type: ignore[override]
        self,
        frames: Mapping[str, np.ndarray] | Observation | Sequence[Observation],
        instruction: str | None = None,
        *,
        state: Mapping[str, np.ndarray] | None = None,
        embodiment: str | None = None,
        head: str | None = None,
    ) -> Any:
        """See :meth:`VlaProcessor.observation`; instead of frames also observations, one or a list."""
        if isinstance(frames, Mapping):
            if instruction is None:
                raise ObservationError("Frames need an instruction: say what the arm shall do.")
            frames = self.vla_processor.observation(frames, instruction, state=state, embodiment=embodiment)
        elif instruction is not None or state is not None or embodiment is not None:
            raise ObservationError("An Observation already has its instruction, state and embodiment.")
        return super().__call__(list(frames) if isinstance(frames, Sequence) else frames, head=head)

    def show(self, episodes: Sequence[Episode]) -> None:
        """Example episodes that the policy reads from now on; see ``vla.models.examples.show_examples``."""
        assert self.model.contract is not None
        show_examples(self.model.net, self.model.contract, episodes)

    def _sanitize_parameters(self, head: str | None = None, **unknown: Any) -> tuple[dict, dict, dict]:
        if unknown:
            raise ConfigError(f"A {TASK} pipeline takes no {sorted(unknown)}.")
        return {}, {"head": head}, {}

    def preprocess(self, input_: Observation, **_: Any) -> dict[str, Any]:
        return {"inputs": self.vla_processor([input_]), "observation": input_}

    def _forward(self, input_tensors: dict[str, Any], head: str | None = None) -> dict[str, Any]:
        inputs = dict(input_tensors["inputs"])
        inputs["state"] = inputs["state"].to(self.model.net.dtype)
        if inputs["past"] is not None:
            inputs["past"] = inputs["past"].like(inputs["state"])
        return {"chunk": self.model(head=head, **inputs), "observation": input_tensors["observation"]}

    def postprocess(self, model_outputs: dict[str, Any], **_: Any) -> ActionChunk:
        return self.vla_processor.actions(model_outputs["chunk"][0], model_outputs["observation"])


def _with_state(observation: Observation, arm: Embodiment) -> Observation:
    """The observation, with zeros where it has no state (they are masked and reach nobody)."""
    if observation.state:
        return observation
    zeros = arm.unpack_state(np.zeros(arm.state_dim, np.float32))
    return Observation(
        images=observation.images,
        state=zeros,
        instruction=observation.instruction,
        embodiment=observation.embodiment,
    )


def _directory(name: Any, kwargs: Mapping[str, Any]) -> Path:
    """The folder itself, or the hub's files for that name; refuses arguments that would be ignored."""
    known = (*_WHERE, *_IDLE, "subfolder")
    unknown = [key for key in kwargs if key not in known and not key.startswith("_")]
    if unknown:
        raise ConfigError(f"A policy has no {sorted(unknown)}: it is loaded as its contract says.")
    inner = kwargs.get("subfolder") or ""
    if Path(name).is_dir():
        return Path(name) / inner
    where = {key: kwargs[key] for key in _WHERE if kwargs.get(key) is not None}
    wanted = [f"{inner}/{file}" if inner else file for file in _FILES]
    try:
        return Path(snapshot_download(str(name), allow_patterns=wanted, **where)) / inner
    except (OSError, ValueError) as error:
        raise ContractError(
            f"No policy at {str(name)!r}, neither a folder nor on the hub: {error}"
        ) from error


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise UnknownNameError("dtype", str(dtype), ("bfloat16", "float16", "float32"))
    return found


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))


AutoConfig.register("vla", VlaConfig, exist_ok=True)
AutoModel.register(VlaConfig, VlaModel, exist_ok=True)
AutoProcessor.register(VlaConfig, VlaProcessor, exist_ok=True)
if TASK not in PIPELINE_REGISTRY.get_supported_tasks():
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=VlaPipeline, pt_model=(AutoModel,), type="multimodal"
    )
