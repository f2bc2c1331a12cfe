"""A policy with the shipped contract and no network, that counts what reaches it, and clients to ask it."""

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from websockets.sync.client import connect

from vla.contract import PolicyContract
from vla.errors import ActionError, ContractError
from vla.files import read_json
from vla.serve.config import ServeConfig
from vla.serve.server import PolicyServer, serving
from vla.serve.wire import pack, unpack
from vla.types import ActionChunk

ROOT = Path(__file__).parents[2]
CONTRACT = PolicyContract.from_json(
    read_json(ROOT / "policies/vla_policies/pretrained/tabletop/policy.json", ContractError, "")
)
PANDA = CONTRACT.embodiments["panda"]


class StubPolicy:
    """Answers with the mean of the state; remembers which episodes it was asked about.

    "refuse me" and "crash" are instructions it takes literally. Every question waits for ``go``.
    """

    head = "flow"

    def __init__(self, contract=CONTRACT, *, remembers=False):
        self.contract, self.remembers, self.trained_as = contract, remembers, {}
        self.batches: list[int] = []
        self.episodes: set[int] = set()
        self.forgotten: list[int] = []
        self.threads: set[int] = set()
        self.go = threading.Event()
        self.go.set()

    def check(self, embodiment):
        return self.contract.check(embodiment)

    def reset(self):
        raise AssertionError("one client's reset is not everybody's")

    def forget(self, episodes):
        self.forgotten += episodes

    def act(self, observations):
        self.threads.add(threading.get_ident())
        self.go.wait(10)
        said = [observation.instruction for observation in observations]
        if "crash" in said:
            raise RuntimeError("secret of the house")
        if "refuse me" in said:
            raise ActionError("as you wish")
        self.batches.append(len(observations))
        self.episodes |= {observation.episode for observation in observations}
        return [self._chunk(observation) for observation in observations]

    def _chunk(self, observation):
        arm = self.contract.embodiments[observation.embodiment]
        value = np.float32(arm.pack_state(observation.state).mean() / 100)
        value += np.float32(np.mean([image.mean() for image in observation.images.values()]) / 1e5)
        actions = np.full((self.contract.horizon, arm.action_dim), value, np.float32)
        actions += np.arange(self.contract.horizon, dtype=np.float32)[:, None] / 1000
        return ActionChunk(
            actions=actions, control_hz=arm.control_hz, info={"unknown_words": (), "head": self.head}
        )


@contextmanager
def served(policy=None, **config):
    """(policy, its server, address) for as long as the block lasts."""
    policy = policy or StubPolicy()
    server = PolicyServer(ServeConfig(**{"port": 0, "embodiment": "panda", **config}), lambda: policy)
    with serving(server) as url:
        yield policy, server, url


@contextmanager
def openpi(url, **options):
    """A client of openpi's protocol: a function from message to answer; ``.metadata``, ``.socket``."""
    options = {"compression": None, "max_size": None, "proxy": None, "close_timeout": 1, **options}
    with connect(url, **options) as socket:

        def ask(message):
            socket.send(message if isinstance(message, bytes | str) else pack(message))
            answer = socket.recv(10)
            return answer if isinstance(answer, str) else unpack(answer, max_containers=10_000)

        ask.metadata = unpack(socket.recv(10), max_containers=10_000)
        ask.socket = socket
        yield ask


def flat(**changes):
    """A message of openpi's that fits; a key that is None is left out."""
    image = np.full((64, 64, 3), 7, np.uint8)
    message = {
        "observation/image": image,
        "observation/wrist_image": image,
        "observation/state": np.linspace(0, 1, PANDA.state_dim, dtype=np.float32),
        "prompt": "pick up the red cube",
    }
    message.update({key.replace("__", "/"): value for key, value in changes.items()})
    return {key: value for key, value in message.items() if value is not None}


def wait_until(true: Callable[[], bool], *, timeout_s=10.0):
    """Return once it is true; the test fails when it does not become so."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.005)
