"""A policy that is elsewhere: reconnects, keeps deadlines, says what went wrong. Needs no torch.

    policy = RemotePolicy("ws://127.0.0.1:8000")
    chunk = policy.act([observation])[0]

The server says its contract first; what does not fit is refused here, before anything is sent.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vla.contract import PolicyContract
from vla.embodiment import Embodiment
from vla.errors import (
    ActionError,
    ConfigError,
    ContractError,
    IncompatibleError,
    MissingExtraError,
    ObservationError,
    RemoteError,
    VlaError,
    WireError,
)
from vla.serve.line import Line
from vla.serve.messages import VERSION, chunk_from_wire, observation_to_wire
from vla.serve.wire import pack, unpack
from vla.types import ActionChunk, Observation

try:
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
except ImportError as _error:
    raise MissingExtraError("websockets", "serve", "A remote policy") from _error

#: Bytes and containers of the largest answer: contracts of many arms, chunks of many observations.
_MAX_ANSWER, _MAX_CONTAINERS = 64 << 20, 100_000
#: First pause before another try, s; each is twice the last, up to the longest.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0

#: Errors of the server that are the same errors here.
_SAME = {
    kind.__name__: kind for kind in (ActionError, ConfigError, ContractError, ObservationError, WireError)
}


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """How to talk to a server.

    Args:
        url: ``ws://host:port``, or ``wss://`` for TLS.
        token: what the server asks for; empty: nothing.
        tls_ca: certificate of the authority that signed the server's, where the system does not know it.
        deadline_s: longest wait for an answer, with every try to reach the server again.
    """

    url: str
    token: str = ""
    tls_ca: Path | None = None
    deadline_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("ws://", "wss://")):
            raise ConfigError(f"A policy server has a URL like ws://127.0.0.1:8000, got {self.url!r}.")
        if not self.deadline_s > 0:
            raise ConfigError(f"deadline_s is {self.deadline_s}; expected above 0.")


class RemotePolicy:
    """A policy served by ``vla serve``, as if it were here; connects when it is made.

    A lost connection is opened again and the question asked again, with growing pauses until the deadline;
    not so in the middle of an episode of a policy that remembers, since a new connection remembers nothing.

    Raises:
        RemoteError: no server, no answer within the deadline, or a server that refuses; with the cause.
        ContractError: what answers is no policy server of this version.
    """

    def __init__(self, config: RemoteConfig) -> None:
        self.config = config
        self.contract: PolicyContract
        self.head = ""
        self.trained_as: dict[str, str] = {}
        self.reconnects = 0
        self._line: Line | None = None
        self._metadata: dict[str, Any] = {}
        self._under_way = False
        self._reach(self._deadline())

    def check(self, embodiment: Embodiment) -> Embodiment:
        """The training embodiment that fits, in the server's word, or :class:`IncompatibleError`."""
        answer = self._ask({"type": "open", "embodiment": embodiment.to_json()}, "opened")
        return self.contract.embodiments[answer["trained_as"]]

    def check_continues(self) -> None:
        """Raise :class:`IncompatibleError` unless the served policy can continue a chunk."""
        if not self._metadata["continues"]:
            raise IncompatibleError(
                f"the policy at {self.config.url}", "real-time chunking", ["it cannot continue a chunk"]
            )

    def reset(self) -> None:
        """A new episode begins; what an earlier connection remembered went with it."""
        self._under_way = False
        if self._line is not None:
            self._ask({"type": "reset"}, "done")

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """One chunk an observation, in the units of its embodiment.

        Raises:
            ObservationError: one does not fit the contract; nothing was sent.
            RemoteError: no answer within the deadline, or the policy failed; the server goes on.
        """
        if not observations:
            return []
        for observation in observations:
            name = self.trained_as.get(observation.embodiment, observation.embodiment)
            self.contract.check_observation(observation, trained_as=name)
        asked = {"type": "act", "observations": [observation_to_wire(each) for each in observations]}
        answer = self._ask(asked, "chunks")
        self._under_way = True
        chunks = [chunk_from_wire(chunk) for chunk in answer["chunks"]]
        if len(chunks) != len(observations):
            raise RemoteError(
                f"{self.config.url} answered {len(observations)} observations with {len(chunks)} chunks."
            )
        return chunks

    def close(self) -> None:
        """Leave; asking again connects again."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _deadline(self) -> float:
        return time.monotonic() + self.config.deadline_s

    def _ask(self, message: dict[str, Any], expected: str) -> dict[str, Any]:
        data, deadline = pack(message), self._deadline()
        while True:
            line = self._line or self._reach(deadline)
            try:
                line.send(data, deadline)
                answer = unpack(_bytes(line.receive(deadline)), max_containers=_MAX_CONTAINERS)
            except (ConnectionClosed, OSError) as error:
                self.close()
                if isinstance(error, TimeoutError):  # an answer that comes later would be to another question
                    raise RemoteError(
                        f"{self.config.url} did not answer within {self.config.deadline_s:g} s."
                    ) from error
                self._lost(error)
                continue
            except BaseException:  # an answer that cannot be read, or Ctrl-C: nobody knows what comes next
                self.close()
                raise
            if isinstance(answer, dict) and answer.get("type") == expected:
                return answer
            _raise(self.config.url, answer)

    def _lost(self, error: Exception) -> None:
        """Refuse to go on where a new connection would answer something else than the old one."""
        if (
            isinstance(error, ConnectionClosed)
            and error.rcvd is not None
            and error.rcvd.code in (1007, 1008, 1009)
        ):
            raise RemoteError(f"{self.config.url} closed the connection: {error.rcvd.reason}.") from error
        if self._under_way and self._metadata["remembers"]:
            raise RemoteError(
                f"The connection to {self.config.url} was lost in the middle of an episode ({error}), and "
                "the policy remembers: reset() and begin the episode again."
            ) from error

    def _reach(self, deadline: float) -> Line:
        """Connect, and hear the contract; tries again until the deadline where trying can help."""
        pause_s, url = _FIRST_PAUSE_S, self.config.url
        while True:
            try:
                line = self._open(deadline)
                try:
                    self._hear(_bytes(line.receive(deadline)))
                except BaseException:
                    line.close()
                    raise
                self._line = line
                return line
            except InvalidStatus as error:
                said = (error.response.body or b"").decode(errors="replace").strip()
                raise RemoteError(f"{url} refused: HTTP {error.response.status_code} {said:.200}") from error
            except (InvalidURI, ssl.SSLCertVerificationError) as error:
                raise RemoteError(f"{url}: {error}.") from error
            except (ConnectionClosed, InvalidHandshake, OSError, EOFError) as error:
                if time.monotonic() + pause_s >= deadline:
                    raise RemoteError(
                        f"No policy server at {url} within {self.config.deadline_s:g} s: "
                        f"{error or type(error).__name__}. Start one with 'vla serve'."
                    ) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _open(self, deadline: float) -> Line:
        secure = self.config.url.startswith("wss")
        return Line(
            self.config.url,
            headers=[("Authorization", f"Bearer {self.config.token}")] if self.config.token else [],
            tls=ssl.create_default_context(cafile=self.config.tls_ca) if secure else None,
            max_size=_MAX_ANSWER,
            deadline=deadline,
        )

    def _hear(self, data: bytes) -> None:
        """Read what the server says first; after a reconnect it must be the same policy."""
        url, metadata = self.config.url, unpack(data, max_containers=_MAX_CONTAINERS)
        if (
            not isinstance(metadata, dict)
            or metadata.get("protocol") != VERSION
            or "contract" not in metadata
        ):
            raise ContractError(
                f"{url} is no 'vla serve' of protocol version {VERSION}: it sent no contract."
            )
        contract = PolicyContract.from_json(metadata["contract"])
        if self._metadata:
            self.reconnects += 1
            same = ("contract", "head", "trained_as")
            if any(metadata[key] != self._metadata[key] for key in same):
                raise ContractError(
                    f"{url} serves another policy since the connection was lost (weights "
                    f"{contract.weights_sha256[:12]}, before {self.contract.weights_sha256[:12]})."
                )
        self.contract, self._metadata = contract, metadata
        self.head, self.trained_as = metadata["head"], metadata["trained_as"]


def _bytes(answer: bytes | str) -> bytes:
    if isinstance(answer, str):
        raise RemoteError(f"The policy server refused: {answer}")
    return answer


def _raise(url: str, answer: object) -> NoReturn:
    """The server's error as the error it was."""
    if not isinstance(answer, dict) or answer.get("type") != "error":
        raise WireError(f"{url} answered something else than it was asked: {answer!s:.200}.")
    kind, text = answer.get("error"), str(answer.get("message"))
    if kind == IncompatibleError.__name__:
        raise IncompatibleError(f"the policy at {url}", "this client", answer.get("reasons") or [text])
    error: type[VlaError] = _SAME.get(str(kind), RemoteError)
    raise error(f"{url}: {text}")
