"""vla-eval's protocol: hello, episodes, one action an observation; the chunk is executed by the server."""

import re
import time

import cv2
import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.serve.served import CONTRACT, PANDA, served, wait_until
from vla.errors import UnknownNameError, WireError
from vla.serve.keys import MAX_SIDE
from vla.serve.pictures import decoded
from vla.serve.wire import pack, unpack


class Client:
    """Speaks as vla-eval's own ``Connection`` does."""

    def __init__(self, socket):
        self.socket, self.seq = socket, 0

    def send(self, kind, payload):
        self.seq += 1
        message = {"type": kind, "payload": payload, "seq": self.seq, "timestamp": time.time()}
        self.socket.send(pack(message, "text"))

    def ask(self, kind, payload):
        self.send(kind, payload)
        answer = unpack(self.socket.recv(10), max_containers=10_000)
        assert answer["seq"] == self.seq
        return answer["type"], answer["payload"]

    def begin(self):
        assert self.ask("hello", {"harness_version": "0.8.0", "protocol_version": 1})[0] == "hello"
        self.send("episode_start", {"task": {"name": "place"}})


@pytest.fixture
def server():
    with served() as parts:
        yield parts


@pytest.fixture
def client(server):
    with connect(server[2] + "/vla-eval", compression=None, proxy=None, close_timeout=1) as socket:
        yield Client(socket)


IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def png(image=IMAGE, **changes):
    data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    return {"__image__": True, "format": "png", "data": data, "shape": list(image.shape), **changes}


def seen(**changes):
    """An observation as a benchmark of vla-eval sends it."""
    return {
        "images": {"front": png(), "wrist": png()},
        "state": np.linspace(0, 1, PANDA.state_dim, dtype=np.float32),
        "task_description": "put the red cube in the bowl",
        **changes,
    }


def test_the_hello_says_what_the_policy_is_and_what_it_wants(client):
    kind, payload = client.ask("hello", {"harness_version": "0.8.0", "protocol_version": 1})
    assert kind == "hello"
    assert payload["protocol_version"] == 1
    assert payload["action_spec"]["gripper"] == {
        "name": "gripper", "dims": 1, "format": "absolute 1 none", "range": [-1.0, 1.0]
    }  # fmt: skip
    assert set(payload["keys"]) == {"images/front", "images/wrist", "state", "task_description", "time_s"}
    assert payload["vla"]["contract"]["weights_sha256"] == CONTRACT.weights_sha256


def test_every_observation_is_answered_with_the_next_action_of_the_chunk(server, client):
    policy = server[0]
    client.begin()
    actions = [client.ask("observation", seen())[1]["actions"] for _ in range(5)]
    assert len(policy.batches) == 3  # asked again after each two actions
    horizon = CONTRACT.execution_horizon
    for i, action in enumerate(actions):
        assert action.shape == (PANDA.action_dim,)
        assert action[0] == pytest.approx(actions[0][0] + (i % horizon) / 1000, abs=1e-6)


def test_a_new_episode_begins_with_a_new_chunk_and_forgets_the_old(server, client):
    policy = server[0]
    client.begin()
    client.ask("observation", seen())
    client.send("episode_end", {"metrics": {"success": True}})
    client.send("episode_start", {"task": {}, "mode": "live"})
    client.ask("observation", seen())
    assert policy.batches == [1, 1]
    assert len(policy.episodes) == 2
    wait_until(lambda: policy.forgotten == [min(policy.episodes)])


def test_a_raw_and_a_jpeg_picture_are_read_too(client):
    client.begin()
    raw = {"__image__": True, "format": "raw", "data": IMAGE.tobytes(), "dtype": "|u1", "shape": [64, 64, 3]}
    jpeg = {**png(), "format": "jpeg", "data": cv2.imencode(".jpg", IMAGE)[1].tobytes()}
    for picture in (raw, jpeg, IMAGE):
        assert client.ask("observation", seen(images={"front": picture, "wrist": png()}))[0] == "action"


def test_a_png_is_the_picture_it_was_made_of():
    assert np.array_equal(decoded({"front": png()}, ["front"])["front"], IMAGE)


UNFIT = {
    "no wrist camera": ({"images": {"front": png()}}, "without 'images/wrist'"),
    "one camera": ({"images": png()}, "Unknown picture"),
    "a third camera": ({"images": {"front": png(), "wrist": png(), "top": png()}}, "Unknown picture 'top'"),
    "no sentence": ({"task_description": None}, "task_description"),
    "another state": ({"state": np.zeros(8)}, "8 numbers; 'panda' has 17"),
    "more": ({"depth": 1}, "Unknown key.*depth"),
    "a damaged png": ({"images": {"front": png(data=png()["data"][:60]), "wrist": png()}}, "damaged png"),
    "a png of another size": ({"images": {"front": png(shape=[32, 32, 3]), "wrist": png()}}, "said to have"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_an_error_that_the_episode_survives(name: str, server, client):
    changes, said = UNFIT[name]
    client.begin()
    kind, payload = client.ask("observation", seen(**changes))
    assert kind == "error"
    assert re.search(said, payload["error"]), payload
    assert not server[0].batches
    assert client.ask("observation", seen())[0] == "action"


def huge_png():
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"


@pytest.mark.parametrize(
    "picture",
    [
        png(data=huge_png(), shape=[100_000, 100_000, 3]), png(format="gif"), png(format="raw"),
        png(format=np.zeros(3)), png(shape=[64, 64, np.zeros(3)]), png(dtype=np.zeros(3)),
        png(data="x"), png(data=b""), png(format="jpeg"), png(shape=[64, 64]), png(shape="x"),
        {"__image__": True, "format": "raw", "data": b"", "dtype": "|u1", "shape": [0, 64, 3]},
        {"__image__": True, "format": "raw", "data": b"", "dtype": "|O", "shape": [64, 64, 3]},
        {"__image__": True, "format": "raw", "data": b"", "dtype": "|u1", "shape": [MAX_SIDE + 1, 64, 3]},
        {"__image__": True, "format": "jpeg", "data": b"\xff\xd8\xff\xe0\0\0" * 9, "shape": [64, 64, 3]},
    ],
)  # fmt: skip
def test_pictures_that_lie_are_refused_before_they_are_decoded(picture):
    with pytest.raises(WireError):
        decoded({"front": picture}, ["front"])


def test_pictures_that_nobody_asked_for_are_not_decoded(monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(UnknownNameError, match="picture 'spare 0'"):
        decoded({f"spare {i}": png() for i in range(500)}, ["front"])


def test_what_comes_in_the_wrong_order_is_refused(server, client):
    assert "before the 'hello'" in client.ask("observation", seen())[1]["error"]
    assert "version array" in client.ask("hello", {"protocol_version": np.zeros(2)})[1]["error"]
    assert "version 2" in client.ask("hello", {"protocol_version": 2})[1]["error"]
    client.ask("hello", {"protocol_version": 1})
    assert "outside an episode" in client.ask("observation", seen())[1]["error"]
    assert not server[0].batches


@pytest.mark.parametrize(
    "message",
    [
        [], {"type": "hello"}, {"type": "die", "payload": {}, "seq": 1}, {"type": 3, "payload": {}, "seq": 1},
        {"type": "hello", "payload": [], "seq": 1}, {"type": "hello", "payload": {}, "seq": 1.5},
    ],
)  # fmt: skip
def test_a_message_without_an_envelope_ends_the_session(message, client):
    client.socket.send(msgpack.packb(message))
    assert isinstance(client.socket.recv(10), str)
    with pytest.raises(ConnectionClosed, match="1008"):
        client.socket.recv(10)


def test_a_client_that_does_not_fit_is_told_at_its_first_observation(server):
    with connect(server[2] + "/vla-eval?control_hz=20", compression=None, proxy=None) as socket:
        client = Client(socket)
        client.begin()
        kind, payload = client.ask("observation", seen())
    assert kind == "error"
    assert "actions for 10.0 Hz, here '20' Hz" in payload["error"]
