"""lerobot's gRPC service: Python's own pickles of its messages are read without running anything in them.

The real ``RobotClient`` is run by scripts/interop.py; it needs a Python of its own.
"""

import importlib.util
import os
import pickle
import sys
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest

from tests.serve.served import CONTRACT, PANDA, ROOT, served
from vla.errors import ConfigError, IncompatibleError, WireError
from vla.robots.actions import joint_embodiment
from vla.serve.config import ServeConfig
from vla.serve.lerobot_wire import Entries, bytes_field, fields_of
from vla.serve.pickled import MAX_OPCODES, ForeignClassError, read, timed_actions
from vla.testing import sample_observation

HELPERS = "lerobot.async_inference.helpers"


@dataclass
class RemotePolicyConfig:
    policy_type: str
    pretrained_name_or_path: str
    lerobot_features: dict[str, Any]
    actions_per_chunk: int
    device: str = "cpu"
    rename_map: dict[str, str] = field(default_factory=dict)


@dataclass
class TimedObservation:
    timestamp: float
    timestep: int
    observation: dict[str, Any]
    must_go: bool = False


@dataclass
class TimedAction:
    timestamp: float
    timestep: int
    action: Any


@pytest.fixture(autouse=True)
def lerobot_module(monkeypatch):
    """A module of lerobot's name, so that ``pickle`` writes, and reads, what the real client does."""
    module = ModuleType(HELPERS)
    for part in (RemotePolicyConfig, TimedObservation, TimedAction):
        monkeypatch.setattr(part, "__module__", HELPERS)
        setattr(module, part.__name__, part)
    for name in ("lerobot", "lerobot.async_inference"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, HELPERS, module)


SEEN = sample_observation(PANDA)
ENTRIES = [f.name if f.size == 1 else f"{f.name}.{i}" for f in PANDA.state for i in range(f.size)]


def config(names=ENTRIES, cameras=("front", "wrist"), path="vla?embodiment=panda", **changes):
    features = {"observation.state": {"dtype": "float32", "shape": (len(names),), "names": list(names)}}
    for name in cameras:
        features[f"observation.images.{name}"] = {"dtype": "image", "shape": (64, 64, 3), "names": ["height"]}
    return RemotePolicyConfig("act", path, features, **{"actions_per_chunk": 8, **changes})


def seen(step=0, *, must_go=False, **changes):
    numbers = dict(zip(ENTRIES, map(float, PANDA.pack_state(SEEN.state)), strict=True))
    observation = {**numbers, **SEEN.images, "task": SEEN.instruction, **changes}
    return TimedObservation(1.5, step, observation, must_go)


class Client:
    """Calls as lerobot's ``RobotClient`` does: its four methods, its pieces of 2 MB."""

    def __init__(self, channel):
        self.channel = channel

    def call(self, method, request=b""):
        return self.channel.unary_unary(f"/transport.AsyncInference/{method}")(request, timeout=10)

    def begin(self, policy):
        self.call("Ready")
        self.call("SendPolicyInstructions", bytes_field(1, pickle.dumps(policy)))

    def see(self, observation, size=1 << 21):
        data = observation if isinstance(observation, bytes) else pickle.dumps(observation)
        whole = [data[at : at + size] for at in range(0, len(data), size)]
        states = [3 if i == len(whole) - 1 else 1 if i == 0 else 2 for i in range(len(whole))]
        pieces = [bytes([8, state]) + bytes_field(2, part) for state, part in zip(states, whole, strict=True)]
        self.channel.stream_unary("/transport.AsyncInference/SendObservations")(iter(pieces), timeout=10)

    def actions(self):
        answer = fields_of(self.call("GetActions"))
        return pickle.loads(answer[1]) if answer else None


@pytest.fixture
def server():
    with served(lerobot_port=0) as parts:
        yield parts


@pytest.fixture
def client(server):
    with grpc.insecure_channel(server[1].addresses["lerobot"]) as channel:
        yield Client(channel)


@pytest.mark.parametrize("size", [1 << 21, 1000])
def test_an_observation_is_answered_with_the_timed_actions_of_the_policy(size, server, client):
    client.begin(config())
    client.see(seen(step=7), size)
    actions = client.actions()
    wanted = server[0]._chunk(SEEN).actions
    assert [action.timestep for action in actions] == list(range(7, 7 + CONTRACT.horizon))
    assert [action.timestamp for action in actions] == pytest.approx([1.5 + i / 10 for i in range(8)])
    assert np.array_equal(np.stack([action.action.numpy() for action in actions]), wanted)
    assert server[1].metrics.count("vla_observations_total", 'protocol="lerobot"') == 1


def test_a_client_gets_no_more_actions_than_it_wants(client):
    client.begin(config(actions_per_chunk=3))
    client.see(seen())
    assert len(client.actions()) == 3


def test_a_step_that_was_answered_is_answered_again_only_when_it_must(server, client):
    client.begin(config())
    for observation in (seen(4), seen(4), seen(3)):
        client.see(observation)
        if server[0].batches == []:
            assert client.actions()
    client.see(seen(4, must_go=True))
    assert client.actions()
    assert server[0].batches == [1, 1]


def test_a_chunk_goes_on_after_the_action_that_came_before_its_observation(client):
    client.begin(config())
    for step, steps in ((0, range(0, 8)), (3, range(4, 12))):
        client.see(seen(step))
        assert [action.timestep for action in client.actions()] == list(steps)


def test_ready_begins_a_new_episode_and_the_end_of_the_server_forgets_it(client, server):
    policy = server[0]
    for _ in range(2):
        client.begin(config())
        client.see(seen())
        assert client.actions()
    assert len(policy.episodes) == 2
    assert policy.forgotten == [min(policy.episodes)]


UNFIT = {
    "another arm": (config(path="vla?embodiment=sawyer"), "Unknown embodiment.*sawyer"),
    "another rate": (config(path="vla?embodiment=panda&control_hz=30"), "'30' Hz"),
    "other entries": (config(names=["a.pos"]), r"state entries \[.*here \['a.pos'\]"),
    "another camera": (
        config(cameras=("front", "top")),
        r"cameras \['front', 'wrist'\], here \['front', 'top'\]",
    ),
    "degrees for a tool": (config(path="vla?units=degrees"), "units=degrees is for state"),
    "unknown units": (config(path="vla?units=inches"), "known are 'own'"),
    "renamed cameras": (config(rename_map={"a": "b"}), "rename_map is not followed"),
    "no actions": (config(actions_per_chunk=0), "a number from 1"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_robot_that_does_not_fit_is_refused_with_the_reason(name, client):
    policy, said = UNFIT[name]
    with pytest.raises(grpc.RpcError, match=f"(?s)INVALID_ARGUMENT.*{said}"):
        client.begin(policy)


WRONG = {
    "a missing entry": ({"gripper_opening": None}, "NoneType; expected a finite number"),
    "a state that is not finite": ({ENTRIES[0]: float("nan")}, "expected a finite number"),
    "an array for an entry": ({ENTRIES[0]: np.zeros(3)}, "ndarray; expected a finite number"),
    "channels first": ({"front": np.zeros((3, 64, 64), np.uint8)}, r"uint8 \[3, 64, 64\]"),
    "another camera": ({"top": np.zeros((64, 64, 3), np.uint8)}, "Unknown key.*images/top"),
    "no task": ({"task": None}, "expected the instruction"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_observation_that_does_not_fit_is_refused_and_reaches_no_policy(name, server, client):
    changes, said = WRONG[name]
    client.begin(config())
    with pytest.raises(grpc.RpcError, match=f"(?s)INVALID_ARGUMENT.*{said}"):
        client.see(seen(**changes))
    assert not server[0].batches


def test_nothing_is_taken_before_the_client_has_said_what_it_is(client):
    with pytest.raises(grpc.RpcError, match="SendPolicyInstructions first"):
        client.see(seen())
    with pytest.raises(grpc.RpcError, match="SendPolicyInstructions first"):
        client.call("GetActions")


def test_an_observation_that_does_not_end_or_is_too_large_is_refused():
    with (
        served(lerobot_port=0, max_message_bytes=100_000) as (_, server, _),
        grpc.insecure_channel(server.addresses["lerobot"]) as channel,
    ):
        client = Client(channel)
        client.begin(config())
        send = channel.stream_unary("/transport.AsyncInference/SendObservations")
        with pytest.raises(grpc.RpcError, match="does not end"):
            send(iter([b"\x08\x01\x12\x01x"]), timeout=10)
        with pytest.raises(grpc.RpcError, match="without its place"):
            send(iter([b"\x12\x01x"]), timeout=10)
        with pytest.raises(grpc.RpcError, match="more than 100000 bytes"):
            client.see(seen(front=np.zeros((2048, 64, 3), np.uint8)), 50_000)


def test_it_is_off_and_for_this_machine_alone():
    assert ServeConfig().lerobot_port is None
    with pytest.raises(ConfigError, match="this machine alone"):
        ServeConfig(lerobot_port=8080, host="0.0.0.0", open_to_all=True)
    with pytest.raises(ConfigError, match="cannot show a token"):
        ServeConfig(lerobot_port=8080, token="s3cret")


class Evil:
    """What runs a command where it is unpickled."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


HOSTILE = {
    "a command": pickle.dumps(Evil((os.system, ("touch /tmp/never",)))),
    "code": pickle.dumps(Evil((eval, ("1",)))),
    "a class of numpy's": pickle.dumps(np.random.default_rng(0)),
    "another class of lerobot's": None,
    "a module's attribute": b"\x80\x04\x8c\x05numpy\x8c\x06memmap\x93.",
    "a command inside": pickle.dumps({"observation": Evil((os.system, ("x",)))}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_names_anything_else_is_refused_counted_and_runs_nothing(name, server, client):
    data = HOSTILE[name] or pickle.dumps(TimedAction(0.0, 0, 0))
    with pytest.raises(ForeignClassError, match="calls nothing"):
        read(data, "TimedObservation")
    client.begin(config())
    with pytest.raises(grpc.RpcError, match="ForeignClassError"):
        client.see(data)
    assert server[1].metrics.count("vla_refused_total", 'cause="ForeignClassError"') == 1


DAMAGED = {
    "nothing": b"", "cut off": pickle.dumps(seen())[:-1], "no pickle": b"\xff" * 9,
    "protocol 2": pickle.dumps({}, protocol=2), "protocol 0": pickle.dumps({}, protocol=0),
    "something else": pickle.dumps({"timestep": 1}), "another object": pickle.dumps(config()),
    "objects in an array": pickle.dumps(replace(seen(), observation={"x": np.array([None])})),
    "text in an array": pickle.dumps(replace(seen(), observation={"x": np.array(["x"])})),
    "a list in a list in ...": b"\x80\x04" + b"]" * 2000 + b".",
    "many opcodes": b"\x80\x04" + b"N0" * MAX_OPCODES + b"N.",
    "an endless number": b"\x80\x04\x8b\xff\xff\xff\x7f.", "a stack that is empty": b"\x80\x04\x86.",
    "a memo that is empty": b"\x80\x04h\x07.", "a memo of four billion": b"\x80\x04N\x72\xff\xff\xff\xff.",
    "a list twice": b"\x80\x04]\x94h\x00\x86.", "a persistent object": b"\x80\x04N\x51.",
    "an extension": b"\x80\x04\x82\x01.", "a map of numbers": pickle.dumps({1: 2}),
    "a called class": b"\x80\x04\x8c\x1flerobot.async_inference.helpers\x8c\x10TimedObservation\x93)R.",
    "an object filled twice": pickle.dumps(seen())[:-1] + b"}b.", "a mark below": b"\x80\x04N(0.",
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_pickle_that_lerobot_would_not_write_is_refused(name):
    with pytest.raises(WireError):
        read(DAMAGED[name], "TimedObservation")


@pytest.mark.parametrize("protocol", [4, 5])
def test_pickles_are_read_as_python_does(protocol):
    image = SEEN.images["front"]
    values = {
        "a": image,
        "b": image[:, ::-1],
        "c": np.asfortranarray(image),
        "d": np.float32(2),
        "e": 1.0,
        "f": "x",
    }
    back = read(pickle.dumps(TimedObservation(1.5, 3, values), protocol=protocol), "TimedObservation")
    assert (back["timestamp"], back["timestep"], back["must_go"]) == (1.5, 3, False)
    for key, value in values.items():
        assert np.array_equal(back["observation"][key], value)


def test_actions_are_pickled_as_what_the_client_unpickles():
    rows = np.array([[0.1, -2.0], [3.0, 1e-8]], np.float32)
    back = pickle.loads(timed_actions(rows, [1.0, 2.0], 5))
    assert [(action.timestamp, action.timestep) for action in back] == [(1.0, 5), (2.0, 6)]
    assert np.array_equal(np.stack([action.action.numpy() for action in back]), rows)


def test_the_module_that_reads_pickles_cannot_unpickle():
    spec = importlib.util.find_spec("vla.serve.pickled")
    source = (ROOT / "vla/serve/pickled.py").read_text()
    assert spec is not None
    assert "import pickle\n" not in source
    assert "loads(" not in source


def test_joints_in_degrees_are_told_as_such_and_turned_back():
    two = np.full(5, 2.0)
    whole = joint_embodiment("so101", -two, two, 0 * two, control_hz=30.0)
    arm = replace(
        whole, state=tuple(f for f in whole.state if f.name in ("joint_position", "gripper_opening"))
    )
    joints = [f"{name}.pos" for name in ("shoulder_pan", "lift", "elbow", "wrist", "roll", "gripper")]
    features = {"observation.state": {"names": joints}}
    entries = Entries.declared(arm, features, (), "degrees")
    message = entries.message({**dict.fromkeys(joints, 90.0), "task": "go"})
    assert message["state"] == pytest.approx([np.pi / 2] * 5 + [0.9])
    actions = entries.actions(np.float32([[np.pi / 2] * 5 + [-1.0], [0.0] * 5 + [1.0]]))
    assert actions == pytest.approx(np.array([[90.0] * 5 + [100.0], [0.0] * 6]), abs=1e-5)
    with pytest.raises(IncompatibleError, match=r"its state is .*tcp_position"):
        Entries.declared(whole, features, (), "degrees")
    with pytest.raises(IncompatibleError, match=r"gripper.pos, here"):
        Entries.declared(arm, {"observation.state": {"names": joints[::-1]}}, (), "degrees")


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05x", b"\xff" * 12, b"\x0d\0\0\0\0", b"\x08"])
def test_protobuf_that_is_damaged_is_refused(message):
    with pytest.raises(WireError):
        fields_of(message)


def test_protobuf_of_any_size_is_read_as_written():
    for size in (0, 1, 127, 128, 20_000):
        assert fields_of(bytes_field(1, bytes(size))) == {1: bytes(size)}


def test_a_policy_that_crashes_ends_the_call_alone(client):
    client.begin(config())
    client.see(seen(task="crash"))
    with pytest.raises(grpc.RpcError, match="RuntimeError") as caught:
        client.actions()
    assert "secret" not in str(caught.value)
    client.see(seen(1))
    assert client.actions()
