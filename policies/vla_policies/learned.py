"""Policies trained by this package, run from their directory: weights and contract, nothing to choose."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vla.contract import CONTRACT_FILE, PolicyContract
from vla.data.plausibility import unfamiliar_entries
from vla.embodiment import Embodiment
from vla.errors import ConfigError, ContractError, IncompatibleError, ObservationError, UnknownNameError
from vla.export.engine import OnnxEngine, has_export
from vla.export.manifest import FOLDER, Manifest
from vla.models.examples import show_examples
from vla.models.heads.guidance import Continuation, soft_mask
from vla.models.heads.history import Past
from vla.models.policy_net import PolicyInputs, PolicyNet, denoiser
from vla.models.reuse import build_reuse
from vla.models.saving import load_policy
from vla.spaces import ACTION_DIM, STATE_DIM
from vla.transforms import actions_from_slots, actions_in_slots, stack_images, state_in_slots
from vla.types import ActionChunk, Episode, Observation
from vla_policies.memory import EpisodeMemory, Moment

ENGINES = ("torch", "onnx", "onnx-int8")
SHIPPED = Path(__file__).parent / "pretrained" / "tabletop"


class LearnedPolicy:
    """A network behind the policy protocol.

    Args:
        net, contract: as loaded together from a policy directory.
        head: which action head decides (None: the contract's default).
        trained_as: embodiment name -> name of the training embodiment whose conventions it shares; each
            must be checked with :meth:`check` before it moves anything real.
        exported: runs instead of the network, which then only splits instructions into words.
        generator: draws the flow head's starting noise (None: starts from zero, deterministic).
    """

    def __init__(
        self,
        net: PolicyNet,
        contract: PolicyContract,
        *,
        head: str | None = None,
        trained_as: Mapping[str, str] | None = None,
        generator: torch.Generator | None = None,
        exported: OnnxEngine | None = None,
    ) -> None:
        self.net, self.contract, self.generator, self.exported = net, contract, generator, exported
        self.head = head or contract.heads[0]
        if self.head not in contract.heads:
            raise UnknownNameError("action head of this policy", self.head, contract.heads)
        if exported is not None and exported.manifest.head != self.head:
            raise ConfigError(
                f"The export runs the head {exported.manifest.head!r}, not {self.head!r}: export that one "
                f"with 'vla export POLICY --head {self.head} --out DIR', or run it with engine=torch."
            )
        small = exported is not None and exported.precision == "int8"
        self.engine = "torch" if exported is None else "onnx-int8" if small else "onnx"
        self.trained_as = dict(trained_as or {})
        for name in self.trained_as.values():
            if name not in contract.embodiments:
                raise UnknownNameError("training embodiment", name, contract.embodiments)
        self._normalizer = contract.normalizer()
        self._ids = {name: i for i, name in enumerate(sorted(contract.embodiments))}
        self._device = next(net.parameters()).device
        spares = net.config.reuse and exported is None
        self.reuse = build_reuse(net.backbone, net.config.keep) if spares else None
        self._memory = EpisodeMemory(net.config.history, contract.execution_horizon)

    @property
    def remembers(self) -> bool:
        """Whether an answer depends on what was seen before in the same episode."""
        return self.net.config.history > 0

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        head: str | None = None,
        *,
        trained_as: Mapping[str, str] | None = None,
        device: str = "cpu",
        engine: str | None = None,
        export: str | Path | None = None,
        threads: int = 1,
    ) -> LearnedPolicy:
        """From a policy directory or a run directory; ``None`` or ``"default"``: the shipped policy.

        Args:
            engine: ``torch``, ``onnx`` or ``onnx-int8``. None: ``onnx`` on a CPU where an export of this head
                and ONNX Runtime are there, else ``torch``.
            export: the folder of the export; None: ``onnx`` beside the weights.
            threads: of either engine on a CPU; more wait for one another longer than a small net computes.

        Raises:
            ContractError: no policy, or an export of other weights.
            ConfigError: an export of another head, or on another device than a CPU.
        """
        directory = SHIPPED if path in (None, "default") else Path(str(path))
        if path not in (None, "default") and not (directory / CONTRACT_FILE).is_file():
            inner = directory / "policy"
            directory = inner if (inner / CONTRACT_FILE).is_file() else directory
        elif directory == SHIPPED and not (directory / CONTRACT_FILE).is_file():
            raise ContractError(
                f"The shipped policy is not in this installation ({directory}). "
                "Train one with 'vla train configs/quick.py' and give its directory."
            )
        if device == "cpu":
            torch.set_num_threads(threads)
        net, contract = load_policy(directory, device)
        folder = directory / FOLDER if export is None else Path(export)
        exported = _exported(folder, contract, head or contract.heads[0], device, engine, threads)
        return cls(net, contract, head=head, trained_as=trained_as, exported=exported)

    def check(self, embodiment: Embodiment) -> Embodiment:
        """The training embodiment that fits, or :class:`IncompatibleError` with every reason."""
        return self.contract.check(embodiment, trained_as=self.trained_as.get(embodiment.name))

    def check_continues(self) -> None:
        """Raise :class:`IncompatibleError` unless chunks can continue one (real-time chunking)."""
        denoiser(self.net, self.head)
        if self.exported is not None:
            raise IncompatibleError(
                "an exported policy",
                "real-time chunking",
                ["its graph has no gradient to be guided by: run the network, with engine=torch"],
            )

    def reset(self) -> None:
        """A new episode begins: forget the last one's states, actions and patches."""
        self._memory.reset()
        if self.reuse is not None:
            self.reuse.reset()

    def forget(self, episodes: Collection[int]) -> None:
        """These episodes ended (by ``Observation.episode``); the others go on."""
        self._memory.forget(episodes)
        if self.reuse is not None:
            self.reuse.forget(episodes)

    def show(self, episodes: Sequence[Episode]) -> None:
        """Example episodes that a policy trained with ``model.examples`` reads from now on (none: forget).

        Raises:
            ConfigError: the policy reads none, or an export runs in its place.
        """
        if self.exported is not None:
            raise ConfigError("An export reads no examples: run this policy with engine=torch.")
        show_examples(self.net, self.contract, episodes)

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk each, in units of its embodiment and never clipped (that is the safety envelope's part).

        ``info``: ``target_position`` and ``goal_position`` (m, world: where the net thinks they are; absent
        for an arm without tool position), ``unknown_words``, ``unfamiliar`` (names of state entries far
        outside the statistics), ``head``, ``engine``, ``latency_s`` (of the whole batch), ``reused`` (share
        of the batch's patches or frames; only where the policy reuses any).
        """
        if not observations:
            return []
        began = time.perf_counter()
        arms = [self._arm(observation) for observation in observations]
        tokens = self.net.backbone.tokenize([observation.instruction for observation in observations])
        counted = (0, 0) if self.reuse is None else (self.reuse.asked, self.reuse.looked)
        chunks, located = self._infer(observations, arms, tokens.ids, tokens.mask)
        latency_s = time.perf_counter() - began
        reused = {}
        if self.reuse is not None:
            asked, looked = self.reuse.asked - counted[0], self.reuse.looked - counted[1]
            reused = {"reused": 1 - looked / asked}
        return [
            ActionChunk(
                actions=_kept(actions_from_slots(chunk, arm, self._normalizer), observation),
                control_hz=arm.control_hz,
                info={
                    **_world_positions(observation, arm, location),
                    "unknown_words": unknown,
                    "head": self.head,
                    "engine": self.engine,
                    "unfamiliar": self._unfamiliar(observation, arm),
                    "latency_s": latency_s,
                    **reused,
                },
            )
            for observation, arm, chunk, location, unknown in zip(
                observations, arms, chunks, located, tokens.unknown, strict=True
            )
        ]

    def _unfamiliar(self, observation: Observation, arm: Embodiment) -> tuple[str, ...]:
        packed = arm.pack_state(observation.state)
        return unfamiliar_entries(arm, self._normalizer.statistics[arm.name], packed)

    def _arm(self, observation: Observation) -> Embodiment:
        name = self.trained_as.get(observation.embodiment, observation.embodiment)
        if name not in self.contract.embodiments:
            known = ", ".join(sorted(self.contract.embodiments))
            raise IncompatibleError(
                "policy",
                repr(observation.embodiment),
                [f"not trained on it, only on: {known}; if one of those fits, say so (trained_as=)"],
            )
        self.contract.check_observation(observation, trained_as=name)
        return self.contract.embodiments[name]

    def _past(self, observations: Sequence[Observation], arms: Sequence[Embodiment]) -> Past | None:
        """Earlier moments of each episode, as far as they go back; None for a policy without history."""
        length = self.net.config.history
        if not length:
            return None
        if len({observation.episode for observation in observations}) < len(observations):
            raise ObservationError(
                "This policy remembers each episode: give Observation.episode, another number for each "
                f"of the {len(observations)} served at once."
            )
        state = np.zeros((len(arms), length, STATE_DIM), np.float32)
        action = np.zeros((len(arms), length, ACTION_DIM), np.float32)
        there = np.zeros((len(arms), length), bool)
        for row, (observation, arm) in enumerate(zip(observations, arms, strict=True)):
            found = self._memory.before(observation.episode, observation.time_s, arm.control_hz)
            for k, moment in enumerate(found):
                if moment is not None:
                    state[row, k], action[row, k], there[row, k] = moment.state, moment.action, True
        there_BK = torch.from_numpy(there).to(self._device)
        states, actions = (
            torch.from_numpy(x).to(device=self._device, dtype=self.net.dtype) for x in (state, action)
        )
        return Past(state=states, action=actions, there=there_BK)

    def _plan(self, observations: Sequence[Observation], arms: Sequence[Embodiment]) -> Continuation | None:
        """What the chunks shall continue; None where there is nothing."""
        if not any(observation.promise for observation in observations):
            return None
        self.check_continues()
        index, horizon = list(self.net.config.action_index), self.net.config.horizon
        actions = np.zeros((len(arms), horizon, len(index)), np.float32)
        weight = np.zeros((len(arms), horizon), np.float32)
        for row, (observation, arm) in enumerate(zip(observations, arms, strict=True)):
            if observation.promise is not None:
                known = observation.promise.actions[:horizon]
                actions[row, : len(known)] = actions_in_slots(known, arm, self._normalizer)[0][:, index]
                weight[row] = soft_mask(horizon, len(known), min(observation.promise.frozen, len(known)))
        actions_BHA, weight_BH = (
            torch.from_numpy(x).to(device=self._device, dtype=self.net.dtype) for x in (actions, weight)
        )
        return Continuation(actions_BHA, weight_BH)

    @torch.inference_mode()
    def _infer(
        self,
        observations: Sequence[Observation],
        arms: Sequence[Embodiment],
        ids: np.ndarray,
        mask: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Normalised chunks [B H ACTION_DIM], and target and goal relative to the tool [B 2 3], m."""
        pairs = list(zip(observations, arms, strict=True))
        roles, size = self.contract.camera_roles, self.contract.image_size
        pictures = [stack_images(o, arm, roles, size) for o, arm in pairs]
        seen = np.stack([there for _, there in pictures])
        states = [state_in_slots(o, arm, self._normalizer) for o, arm in pairs]

        def tensor(value: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(value)).to(self._device)

        inputs = PolicyInputs(
            images=tensor(np.stack([images for images, _ in pictures])),
            image_mask=None if seen.all() else tensor(seen),
            token_ids=tensor(ids),
            token_mask=tensor(mask),
            embodiment_id=tensor(np.array([self._ids[arm.name] for arm in arms], np.int64)),
            state=tensor(np.stack([state for state, _ in states])).to(self.net.dtype),
            state_mask=tensor(np.stack([there for _, there in states])),
            past=self._past(observations, arms),
        )
        if self.reuse is not None:
            self.reuse.episodes = tuple(observation.episode for observation in observations)
        plan = self._plan(observations, arms)
        if self.exported is not None:
            chunk, location_dm = self.exported.sample(inputs, self.generator)
        else:
            chunk, location_dm = self.net.sample(
                inputs,
                head=self.head,
                num_steps=self.contract.num_flow_steps,
                generator=self.generator,
                reuse=self.reuse,
                plan=plan,
            )
        first = chunk[:, 0].float().cpu().numpy()
        for observation, (state, _), action in zip(observations, states, first, strict=True):
            self._memory.add(observation.episode, Moment(observation.time_s, state, action))
        return chunk.float().cpu().numpy(), location_dm.float().cpu().numpy() / 10


def _exported(
    folder: Path, contract: PolicyContract, head: str, device: str, engine: str | None, threads: int
) -> OnnxEngine | None:
    """What runs instead of the network, if anything; see :meth:`LearnedPolicy.load`."""
    if engine is not None and engine not in ENGINES:
        raise UnknownNameError("engine", engine, ENGINES)
    if engine is None:
        there = device == "cpu" and has_export(folder) and Manifest.load(folder, contract).head == head
        engine = "onnx" if there else "torch"
    if engine == "torch":
        return None
    if device != "cpu":
        raise ConfigError(f"The engine {engine!r} runs on a CPU, not on {device!r}: use engine=torch there.")
    precision = "int8" if engine == "onnx-int8" else "float32"
    return OnnxEngine.load(folder, contract, precision=precision, threads=threads)


def _kept(actions: np.ndarray, observation: Observation) -> np.ndarray:
    """The chunk with its frozen actions exactly as promised, not rounded on their way through the network."""
    if observation.promise is not None:
        frozen = observation.promise.frozen
        actions[:frozen] = observation.promise.actions[:frozen]
    return actions


def _world_positions(
    observation: Observation, arm: Embodiment, location: np.ndarray
) -> dict[str, np.ndarray]:
    for member in arm.state:
        if member.slot == "arm0.tcp_position" and member.size == 3 and member.frame == "world":
            tool = np.asarray(observation.state[member.name], np.float32)
            return {"target_position": tool + location[0], "goal_position": tool + location[1]}
    return {}


def make(
    path: str | Path | None = None,
    head: str | None = None,
    trained_as: Mapping[str, str] | None = None,
    engine: str | None = None,
    export: str | Path | None = None,
    threads: int = 1,
) -> LearnedPolicy:
    """The registered factory of ``learned`` policies; see :meth:`LearnedPolicy.load`."""
    return LearnedPolicy.load(
        path, head, trained_as=trained_as, engine=engine, export=export, threads=int(threads)
    )
