"""GR00T's protocol over ZeroMQ, its clients' bytes made by numpy.save and msgpack-numpy themselves."""

import io
import re

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import zmq

from tests.serve.served import CONTRACT, PANDA, ROOT, StubPolicy, served, wait_until
from vla.errors import ConfigError, WireError
from vla.serve.config import ServeConfig
from vla.serve.gr00t_wire import npy, npy_file, read, write
from vla.testing import sample_observation

SEEN = sample_observation(PANDA)
SENTENCE = "annotation.human.task_description"


def npy_encoded(item):
    """As ``MsgSerializer`` of GR00T N1.5 to N1.7."""
    if isinstance(item, np.ndarray):
        output = io.BytesIO()
        np.save(output, item, allow_pickle=False)
        return {"__ndarray_class__": True, "as_npy": output.getvalue()}
    return item


def npy_decoded(item):
    if "__ndarray_class__" in item:
        return np.load(io.BytesIO(item["as_npy"]), allow_pickle=False)
    return item


class Client:
    """Speaks as GR00T's ``PolicyClient`` does; ``nd``: with the bytes of msgpack-numpy."""

    def __init__(self, context, url, *, nd=False, token=None):
        self.socket = context.socket(zmq.REQ)
        self.socket.setsockopt(zmq.RCVTIMEO, 10_000)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(url)
        self.encode = msgpack_numpy.encode if nd else npy_encoded
        self.decode = msgpack_numpy.decode if nd else npy_decoded
        self.token = token

    def call(self, endpoint, data=None):
        request = {"endpoint": endpoint}
        if data is not None:
            request["data"] = data
        if self.token:
            request["api_token"] = self.token
        return self.ask(request)

    def ask(self, request):
        self.socket.send(msgpack.packb(request, default=self.encode))
        return msgpack.unpackb(self.socket.recv(), object_hook=self.decode)


@pytest.fixture
def connect():
    """Clients, and sockets of other kinds, that are closed when the test is over."""
    opened = []

    def made(url, *, kind=None, **options):
        opened.append(context.socket(kind) if kind else Client(context, url, **options))
        if kind:
            opened[-1].connect(url)
        return opened[-1]

    with zmq.Context() as context:
        yield made
        for each in opened:
            (each.socket if isinstance(each, Client) else each).close(linger=0)


@pytest.fixture
def server():
    with served(gr00t_port=0) as parts:
        yield parts


@pytest.fixture
def client(server, connect):
    return connect(server[1].addresses["gr00t"])


def nested(**changes):
    """What N1.6's client asks with."""
    observation = {
        "video": {name: SEEN.images[name][None, None] for name in ("front", "wrist")},
        "state": {name: value[None, None] for name, value in SEEN.state.items()},
        "language": {SENTENCE: [[SEEN.instruction]]},
        **changes,
    }
    return {"observation": observation, "options": None}


def flat():
    """What N1.5's client asks with."""
    return {
        **{f"video.{name}": SEEN.images[name][None] for name in ("front", "wrist")},
        **{f"state.{name}": value[None] for name, value in SEEN.state.items()},
        SENTENCE: [SEEN.instruction],
    }


@pytest.mark.parametrize("nd", [False, True])
def test_a_nested_request_is_answered_in_the_encoding_it_came_in(nd, server, connect):
    client = connect(server[1].addresses["gr00t"], nd=nd)
    action, info = client.call("get_action", nested())
    wanted = server[0]._chunk(SEEN).actions
    assert list(action) == [field.name for field in PANDA.action]
    assert np.array_equal(np.concatenate(list(action.values()), axis=2), wanted[None])
    assert info == {"control_hz": 10.0}
    assert server[1].metrics.count("vla_observations_total", 'protocol="gr00t"') == 1


def test_a_flat_request_is_answered_with_flat_keys(server, client):
    action = client.call("get_action", flat())
    assert list(action) == [f"action.{field.name}" for field in PANDA.action]
    assert np.array_equal(np.concatenate(list(action.values()), axis=1), server[0]._chunk(SEEN).actions)


def test_a_client_asks_what_it_has_to_send(client):
    assert client.call("ping") == {"status": "ok", "message": "Server is running"}
    said = client.call("get_modality_config")
    assert said["video"] == {
        "__ModalityConfig_class__": True,
        "as_json": {"delta_indices": [0], "modality_keys": ["front", "wrist"]},
    }
    assert said["action"]["as_json"]["delta_indices"] == list(range(CONTRACT.horizon))
    assert said["language"]["as_json"]["modality_keys"] == [SENTENCE]


def test_a_reset_forgets_this_client_and_no_other(server, client, connect):
    policy, parts, _ = server
    other = connect(parts.addresses["gr00t"])
    client.call("get_action", nested())
    other.call("get_action", nested())
    assert len(policy.episodes) == 2
    assert client.call("reset", {"options": None}) == {}
    wait_until(lambda: policy.forgotten == [min(policy.episodes)])
    assert parts.metrics.sessions == 1


def test_nobody_kills_the_server_and_it_goes_on(client):
    assert "Unknown endpoint 'kill'" in client.call("kill")["error"]
    assert client.call("ping")["status"] == "ok"


def test_a_client_says_its_arm_and_time_as_options(connect):
    with served(gr00t_port=0, embodiment=None) as (_, server, _):
        client = connect(server.addresses["gr00t"])
        said = {"embodiment": "panda", "control_hz": 10, "time_s": 0.5}
        assert len(client.call("get_action", {**nested(), "options": said})) == 2
        assert "say which" in client.call("get_action", nested())["error"]
        wrong = client.call("get_action", {**nested(), "options": {**said, "control_hz": 20}})
        assert "'20' Hz" in wrong["error"]


STATE = {name: value[None, None] for name, value in SEEN.state.items()}
UNFIT = {
    "a batch of two": (nested(state={**STATE, "tcp_yaw": np.zeros((2, 1, 1), np.float32)}), "one has 2"),
    "no time": (nested(state={**STATE, "tcp_yaw": np.zeros(1, np.float32)}), "one has none"),
    "a missing camera": (
        nested(video={"front": np.zeros((1, 1, 64, 64, 3), np.uint8)}),
        "without 'video/wrist'",
    ),
    "another group": (nested(audio={}), "Unknown group.*'audio'"),
    "a group that is none": (nested(video=3), "'video' is no map"),
    "another sentence": (nested(language={"task": [["go"]]}), "Unknown key.*language/task"),
    "a ragged sentence": (nested(language={SENTENCE: [["go"], "no", [1]]}), "one has 3"),
    "a state not finite": (nested(state={**STATE, "tcp_yaw": np.full((1, 1, 1), np.nan)}), "not finite"),
    "another option": ({**nested(), "options": {"seed": 1}}, "Unknown option 'seed'"),
    "options that are none": ({**nested(), "options": 3}, "'options' is a int"),
    "a further key": ({**nested(), "more": 1}, "expected observation, options"),
    "a flat key": ({**flat(), "front": 1}, "Unknown key of an observation 'front'"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_by_name_and_reaches_no_policy(name: str, server, client):
    data, said = UNFIT[name]
    answer = client.call("get_action", data)
    assert re.search(said, answer["error"]), answer
    assert not server[0].batches
    assert client.call("ping")["status"] == "ok"


def test_a_message_that_is_no_request_is_answered_as_such(client):
    for request in ([], {"endpoint": 3}, {"endpoint": "get_action"}, {"more": 1}, {"endpoint": ["ping"]}):
        assert "error" in client.ask(request)


def test_the_token_is_asked_for(connect):
    with served(gr00t_port=0, token="s3cret") as (_, server, _):
        url = server.addresses["gr00t"]
        assert "needs its token" in connect(url).call("ping")["error"]
        assert "needs its token" in connect(url, token="s3cre").call("get_action", nested())["error"]
        assert connect(url, token="s3cret").call("ping")["status"] == "ok"
        assert server.metrics.count("vla_refused_total", 'cause="token"') == 2


def test_frames_that_no_req_socket_sends_are_counted_and_forgotten(server, client, connect):
    dealer = connect(server[1].addresses["gr00t"], kind=zmq.DEALER)
    dealer.send_multipart([b"x"] * 1000)
    dealer.send(b"alone")
    wait_until(lambda: server[1].metrics.count("vla_refused_total", 'cause="frames"') == 2)
    assert client.call("ping")["status"] == "ok"


def test_a_silent_client_is_forgotten(connect):
    with served(gr00t_port=0, idle_s=0.05) as (policy, server, _):
        assert isinstance(connect(server.addresses["gr00t"]).call("get_action", nested()), list)
        wait_until(lambda: server.metrics.sessions == 0)
        wait_until(lambda: policy.forgotten == list(policy.episodes))


@pytest.mark.parametrize("remembers", [False, True])
def test_where_seats_are_short_the_longest_silent_goes_unless_it_has_a_memory_to_lose(remembers, connect):
    with served(StubPolicy(remembers=remembers), gr00t_port=0, max_sessions=1) as (_, server, _):
        one, other = (connect(server.addresses["gr00t"]) for _ in range(2))
        assert isinstance(one.call("get_action", nested()), list)
        answer = other.call("get_action", nested())
        assert ("try again later" in answer["error"]) if remembers else isinstance(answer, list)
        assert server.metrics.sessions == 1


def test_it_is_off_and_on_this_machine_unless_said_otherwise(server):
    assert ServeConfig().gr00t_port is None
    assert server[1].addresses["gr00t"].startswith("tcp://127.0.0.1:")
    with pytest.raises(ConfigError, match="no TLS"):
        ServeConfig(gr00t_port=0, tls_cert=ROOT, tls_key=ROOT)
    port = int(server[1].addresses["gr00t"].rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"Cannot listen on 127.0.0.1:{port}"), served(gr00t_port=port):
        pass


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((1, 1, 3, 4, 3), np.uint8),
        np.float32(3),
        np.arange(6.0).reshape(2, 3).T,
        np.zeros(0),
        np.ones(1),
    ],
)
def test_npy_files_are_read_and_written_as_numpy_does(array):
    file = io.BytesIO()
    np.save(file, array)
    ours = npy(file.getvalue())
    assert (ours.dtype, ours.shape) == (array.dtype, np.shape(array))
    assert np.array_equal(ours, array)
    whole = np.array(array, order="C")
    assert np.array_equal(np.load(io.BytesIO(npy_file(whole)), allow_pickle=False), whole)
    for style in ("npy", "nd"):
        assert read(write({"x": whole}, style))[1] == style


def file(
    header=b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
    data=bytes(12),
    magic=b"\x93NUMPY\x01\x00",
):
    header += b"\n"
    return magic + len(header).to_bytes(2, "little") + header + data


HOSTILE = {
    "nothing": b"", "a pickle": b"\x80\x04.", "cut off": file()[:-1], "a text": "x",
    "version 2": file(magic=b"\x93NUMPY\x02\x00"),
    "objects": file(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
    "records": file(b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }"),
    "code": file(b"{'descr': __import__('os'), 'fortran_order': False, 'shape': (3,), }"),
    "a size beyond the data": file(b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 9), }"),
    "many digits": file(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b",), }"),
    "a negative size": file(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }"),
    "a header beyond the end": b"\x93NUMPY\x01\x00\xff\xff{", "big-endian": file().replace(b"<f4", b">f4"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_npy_file_may_hold_is_refused(name: str):
    with pytest.raises(WireError):
        npy(HOSTILE[name])


def test_objects_of_msgpack_numpy_are_refused():
    for changes in ({b"kind": b"O"}, {b"type": "|O"}, {b"kind": b"V"}, {b"nd": False}, {b"more": 1}):
        array = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [1], b"data": bytes(4), **changes}
        with pytest.raises(WireError):
            read(msgpack.packb(array))
