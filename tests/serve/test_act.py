"""``POST /act``: json-numpy's own bytes are answered as in process; nothing else comes through that door."""

import json
import re
import socket
from base64 import b64encode
from dataclasses import replace

import json_numpy
import numpy as np
import pytest

from tests.serve.served import CONTRACT, PANDA, StubPolicy, served, wait_until
from vla.errors import WireError
from vla.serve.json_arrays import MAX_MARKS, array_to_json, loads
from vla.testing import sample_observation


@pytest.fixture
def server():
    with served() as parts:
        yield parts


SEEN = sample_observation(PANDA)


def asked(**changes):
    """A request that fits; a key that is None is left out."""
    message = {
        "full_image": SEEN.images["front"],
        "wrist_image": SEEN.images["wrist"],
        "state": PANDA.pack_state(SEEN.state),
        "instruction": SEEN.instruction,
        **changes,
    }
    return {key: value for key, value in message.items() if value is not None}


def exchange(url, data, *, length=None, path="/act", headers="", method="POST"):
    """Status and body of one request, byte by byte as it goes over the wire."""
    host, port = url.removeprefix("ws://").split(":")
    length = len(data) if length is None else length
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}\r\n"
        connection.sendall(head.encode() + data)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def post(url, message, **options):
    status, body = exchange(url, json_numpy.dumps(message).encode(), **options)
    return status, json_numpy.loads(body)


def test_a_request_of_json_numpy_is_answered_with_the_chunk_of_the_policy(server):
    policy, parts, url = server
    status, actions = post(url, asked())
    assert status == 200
    assert actions.dtype == np.float32
    assert np.array_equal(actions, policy._chunk(SEEN).actions)
    assert parts.metrics.count("vla_observations_total", 'protocol="act"') == 1
    assert parts.metrics.sessions == 0
    wait_until(lambda: set(policy.forgotten) == policy.episodes)


def test_a_text_within_the_text_is_answered_with_one(server):
    status, answer = post(server[2], {"encoded": json_numpy.dumps(asked())})
    assert status == 200
    assert json_numpy.loads(answer).shape == (CONTRACT.horizon, PANDA.action_dim)


def test_who_says_the_denoising_steps_is_told_the_rate_too(server):
    _, answer = post(server[2], asked(num_steps=CONTRACT.num_flow_steps))
    assert answer["dt_ms"] == 100.0
    assert answer["actions"].shape == (CONTRACT.horizon, PANDA.action_dim)
    status, answer = post(server[2], asked(num_steps=7))
    assert status == 400
    assert "denoising steps, here 7" in answer["message"]


def test_the_arm_is_said_in_the_url_or_as_openvla_says_it():
    with served(embodiment=None) as (_, _, url):
        assert post(url, asked(unnorm_key="panda"))[0] == 200
        assert post(url, asked(), path="/act?embodiment=panda&control_hz=10")[0] == 200
        status, answer = post(url, asked(unnorm_key="bridge_orig"))
        assert (status, answer["error"]) == (400, "UnknownNameError")
        assert "say which in the URL" in post(url, asked())[1]["message"]
        assert (
            "none in the URL"
            in post(url, asked(unnorm_key="panda"), path="/act?embodiment=ur5e")[1]["message"]
        )
        assert "20' Hz" in post(url, asked(unnorm_key="panda"), path="/act?control_hz=20")[1]["message"]


image = np.zeros((64, 64, 3), np.uint8)
UNFIT = {
    "no wrist camera": (asked(wrist_image=None), "without 'wrist_image'"),
    "openvla's only camera": (asked(full_image=None, image=image), "Unknown key.*'image'"),
    "no instruction": (asked(instruction=None), "without 'instruction'"),
    "a list for a state": (asked(state=[0.0] * 17), "a list; expected numbers"),
    "a smaller state": (asked(state=np.zeros(7, np.float32)), "7 numbers; 'panda' has 17"),
    "a state that is not finite": (asked(state=np.full(17, np.nan)), "not finite"),
    "channels first": (asked(full_image=np.zeros((3, 64, 64), np.uint8)), r"uint8 \[3, 64, 64\]"),
    "no map": ([1], "expected a map"),
    "a picture as lists": (asked(full_image=image.tolist()), "Send pictures"),
    "complex numbers": (asked(state=np.zeros(17, complex)), "dtype '<c16'"),
    "encoded with more": ({"encoded": "{}", "state": 1}, "alone in its request"),
    "encoded map": ({"encoded": {}}, "must be a text"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_by_name_and_reaches_no_policy(name: str, server):
    message, said = UNFIT[name]
    status, answer = post(server[2], message)
    assert status == 400
    assert re.search(said, answer["message"]), answer
    assert not server[0].batches


def test_a_policy_that_crashes_tells_no_secret_and_is_asked_again(server):
    status, answer = post(server[2], asked(instruction="crash"))
    assert status == 500
    assert "RuntimeError" in answer["message"]
    assert "secret" not in answer["message"]
    assert post(server[2], asked())[0] == 200


def test_a_policy_that_remembers_episodes_is_not_asked_without_one():
    with served(StubPolicy(remembers=True)) as (_, _, url):
        assert "belongs to none" in post(url, asked())[1]["message"]


def test_the_token_stands_before_the_body():
    with served(token="s3cret") as (policy, _, url):
        assert exchange(url, b"", length=1000)[0] == 401
        assert post(url, asked(), headers="Authorization: Bearer s3cret\r\n")[0] == 200
        assert policy.batches == [1]


def test_a_web_page_may_not_post(server):
    assert exchange(server[2], b"{}", headers="Origin: http://evil.example\r\n")[0] == 403


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"path": "/"}, 405), ({"path": "/healthz"}, 405), ({"path": "/nowhere"}, 404),
        ({"method": "GET", "length": 0}, 405), ({"length": 1 << 40}, 413), ({"length": "x"}, 411),
        ({"length": "-1"}, 411), ({"headers": "Content-Length: 7\r\n"}, 411),
    ],
)  # fmt: skip
def test_only_a_post_of_a_stated_size_at_its_own_path_is_taken(options, status, server):
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n" if options.get("path") == "/" else ""
    assert exchange(server[2], b"", **{"headers": upgrade, **options})[0] == status


def test_a_body_that_does_not_come_is_not_waited_for():
    with served(idle_s=0.2) as (_, server, url):
        assert exchange(url, b"{", length=100)[0] == 408
        assert server.metrics.sessions == 0


def test_a_client_that_vanishes_in_the_middle_of_its_body_leaves_nothing(server):
    host, port = server[2].removeprefix("ws://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        wait_until(lambda: server[1].metrics.sessions == 1)
    wait_until(lambda: server[1].metrics.sessions == 0)


def test_the_end_of_the_server_waits_for_no_body():
    with served(idle_s=1e6) as (_, server, url):
        host, port = url.removeprefix("ws://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        wait_until(lambda: server.metrics.sessions == 1)
    with connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def test_a_request_may_come_in_any_pieces_and_wait_to_be_told_to_go_on(server):
    host, port = server[2].removeprefix("ws://").split(":")
    body = json_numpy.dumps(asked()).encode()
    head = f"POST /act HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head.encode():
            connection.sendall(bytes([byte]))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_the_page_lists_the_keys_of_requests(server):
    keys = server[1].offer.metadata["act_keys"]["panda"]
    assert set(keys) == {"full_image", "wrist_image", "state", "instruction", "time_s"}


def test_the_only_camera_has_the_name_that_openvla_gives_it(server):
    offer = server[1].offer
    one = replace(PANDA, cameras=PANDA.cameras[:1])
    assert "image" in offer.act_keys(one).images


@pytest.mark.parametrize(
    "array", [np.zeros((2, 0)), np.arange(6, dtype="<i2").reshape(2, 3).T, np.float32(3)]
)
def test_arrays_are_written_and_read_as_json_numpy_does(array):
    ours = loads(json_numpy.dumps(array).encode())
    assert (ours.dtype, ours.tobytes()) == (array.dtype, array.tobytes())
    theirs = json_numpy.loads(json.dumps(array_to_json(np.asarray(array))))
    assert (theirs.dtype, np.asarray(theirs).tobytes()) == (array.dtype, array.tobytes())


def text(**changes):
    array = {"__numpy__": b64encode(bytes(12)).decode(), "dtype": "<f4", "shape": [3], **changes}
    return json.dumps(array).encode()


HOSTILE = {
    "nothing": b"", "no UTF-8": b'"\xff"', "cut off": text()[:-1], "more behind": b"{} {}", "NaN": b"[NaN]",
    "the same key twice": b'{"a": 1, "a": 2}', "deep nesting": b"[" * 5000, "deeper nesting": b"[" * 100_000,
    "very many lists": b"[" + b"[]," * MAX_MARKS + b"[]]", "an endless number": b"9" * 10_000,
    "objects": text(dtype="|O"), "records": text(dtype=[["a", "<f4"]]), "void": text(dtype="|V4"),
    "text": text(dtype="<U3"), "big-endian": text(dtype=">f4"), "a negative size": text(shape=[-3]),
    "sizes beyond the data": text(shape=[2**30, 2**30]), "no base64": text(__numpy__="!!!!"),
    "a number for data": text(__numpy__=3), "a further key": text(more=1), "a shape of text": text(shape="3"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_request_may_hold_is_refused(name: str):
    with pytest.raises(WireError):
        loads(HOSTILE[name])
