"""The server says its contract first, refuses what does not fit, and keeps its clients apart."""

import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.serve.served import CONTRACT, PANDA, ROOT, StubPolicy, flat, openpi, served, wait_until
from vla.contract import PolicyContract
from vla.errors import ConfigError, RemoteError, UnknownNameError
from vla.serve.client import RemoteConfig, RemotePolicy
from vla.serve.config import ServeConfig
from vla.serve.door import MAX_FRAGMENTS
from vla.serve.server import PolicyServer
from vla.serve.wire import pack
from vla.testing import sample_observation


@pytest.fixture
def server():
    with served() as parts:
        yield parts


def test_the_contract_is_said_first_and_every_key_with_it(server):
    with openpi(server[2]) as ask:
        said = ask.metadata
    assert PolicyContract.from_json(said["contract"]).embodiments == CONTRACT.embodiments
    keys = said["keys"]["panda"]
    assert keys["observation/image"] == {
        "camera": "front", "dtype": "uint8", "shape": [64, 64, 3], "order": "RGB"
    }  # fmt: skip
    assert keys["observation/state"]["fields"][0] == ["tcp_position", 3, "m", "world"]


def test_a_fitting_observation_is_answered_with_the_chunk_of_the_policy(server):
    policy, metrics = server[0], server[1].metrics
    observation = sample_observation(PANDA)
    message = flat(
        observation__state=PANDA.pack_state(observation.state),
        observation__image=observation.images["front"],
        observation__wrist_image=observation.images["wrist"],
    )
    with openpi(server[2]) as ask:
        answer = ask(message)
    assert np.array_equal(answer["actions"], policy._chunk(observation).actions)
    assert answer["control_hz"] == 10.0
    assert "resized" not in answer
    assert metrics.count("vla_observations_total", 'protocol="openpi"') == 1


def test_a_picture_of_another_size_is_resized_and_the_answer_says_so(server):
    with openpi(server[2]) as ask:
        answer = ask(flat(observation__image=np.full((224, 224, 3), 7, np.uint8)))
        same = ask(flat())
    assert answer["resized"] == {"observation/image": [[224, 224], [64, 64]]}
    assert np.array_equal(answer["actions"], same["actions"])  # a plain picture stays what it is


image = np.zeros((64, 64, 3), np.uint8)
UNFIT = {
    "no wrist camera": (flat(observation__wrist_image=None), "without 'observation/wrist_image'"),
    "another camera": (flat(observation__top_image=image), "observation/top_image.*Known"),
    "no prompt": (flat(prompt=None), "without 'prompt'"),
    "a number for a prompt": (flat(prompt=3), "prompt.*expected the instruction"),
    "an endless prompt": (flat(prompt="a" * 5000), "at most 4096"),
    "a smaller state": (flat(observation__state=np.zeros(7, np.float32)), r"7 numbers; 'panda' has 17: tcp"),
    "a list for a state": (flat(observation__state=[0.0] * 17), "a list; expected numbers"),
    "a state of integers": (flat(observation__state=np.zeros(17, np.int32)), r"int32 \[17\]; expected"),
    "a state that is not finite": (flat(observation__state=np.full(17, np.nan, np.float32)), "not finite"),
    "a state beyond float32": (flat(observation__state=np.full(17, 1e300)), "not finite"),
    "a picture of floats": (flat(observation__image=image / 255), "float64.*expected a picture"),
    "channels first": (flat(observation__image=np.zeros((3, 64, 64), np.uint8)), r"uint8 \[3, 64, 64\]"),
    "no square": (flat(observation__image=np.zeros((48, 64, 3), np.uint8)), "48 x 64 px; expected 64 x 64"),
    "no pixels": (flat(observation__image=np.zeros((0, 0, 3), np.uint8)), "without pixels"),
    "no map": ([1, 2], "expected a map"),
    "an empty map": ({**flat(), "more": {}}, "Unknown key.*more"),
    "a map in a map in a map": ({"a": {"b": {}}}, "a/b"),
    "the same key, nested": ({**flat(), "observation": {"image": image}}, "two things under"),
    "not msgpack": (b"\xc1", "not a readable message"),
    "text": ("hello", "text message"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_by_name_and_reaches_no_policy(name: str, server):
    message, said = UNFIT[name]
    with openpi(server[2]) as ask:
        answer = ask(message)
        assert isinstance(answer, str), "an error is a text in openpi's protocol"
        with pytest.raises(ConnectionClosed, match="1008"):
            ask.socket.recv(10)
    assert re.search(said, answer), answer
    assert not server[0].batches


DECLARED = {
    "an arm it does not know": ("?embodiment=sawyer", "Unknown embodiment.*'sawyer'.*panda"),
    "another rate": ("?embodiment=panda&control_hz=20", "actions for 10.0 Hz, here '20' Hz"),
    "another word": ("?robot=panda", "Unknown query parameter 'robot'.*embodiment"),
}


@pytest.mark.parametrize("name", DECLARED)
def test_a_client_that_declares_what_does_not_fit_is_refused(name: str, server):
    query, said = DECLARED[name]
    with openpi(server[2] + "/" + query) as ask:
        answer = ask(flat())
    assert isinstance(answer, str)
    assert re.search(said, answer), answer


def test_a_client_names_its_arm_in_the_url():
    with served(embodiment=None) as (_, _, url):
        with openpi(url + "/?embodiment=panda&control_hz=10") as ask:
            assert ask(flat())["actions"].shape == (CONTRACT.horizon, PANDA.action_dim)
        with openpi(url) as ask:
            assert "say which in the URL" in ask(flat())


def test_an_arm_that_the_policy_does_not_know_cannot_be_the_default():
    with pytest.raises(UnknownNameError, match="sawyer"):
        PolicyServer(ServeConfig(embodiment="sawyer"), StubPolicy)


def test_observations_that_arrive_while_the_policy_is_busy_are_asked_together(server):
    policy, _, url = server
    policy.go.clear()
    with ThreadPoolExecutor(6) as pool:

        def ask_once(_):
            with openpi(url) as ask:
                return ask(flat())

        answers = [pool.submit(ask_once, 0)]
        wait_until(lambda: bool(policy.threads))
        answers += [pool.submit(ask_once, i) for i in range(5)]
        wait_until(lambda: server[1]._thread._inbox.qsize() == 5)
        policy.go.set()
        assert all("actions" in answer.result() for answer in answers)
    assert policy.batches == [1, 5]
    assert len(policy.threads) == 1


def test_a_refused_observation_fails_alone_in_its_batch(server):
    policy, _, url = server
    policy.go.clear()
    with ThreadPoolExecutor(4) as pool:

        def ask_once(prompt):
            with openpi(url) as ask:
                return ask(flat(prompt=prompt))

        answers = [pool.submit(ask_once, "first")]
        wait_until(lambda: bool(policy.threads))
        answers += [pool.submit(ask_once, prompt) for prompt in ("good", "refuse me", "also good")]
        wait_until(lambda: server[1]._thread._inbox.qsize() == 3)
        policy.go.set()
        said = [answer.result() for answer in answers]
    assert said[2] == "as you wish"
    assert all("actions" in said[i] for i in (0, 1, 3))


def test_a_policy_that_crashes_tells_no_secret_and_is_asked_again(server):
    with openpi(server[2]) as ask:
        answer = ask(flat(prompt="crash"))
    assert "RuntimeError" in answer
    assert "secret" not in answer
    with openpi(server[2]) as ask:
        assert "actions" in ask(flat())


def test_no_two_clients_share_an_episode_and_each_is_forgotten_with_its_client(server):
    policy, _, url = server
    with openpi(url) as one, openpi(url) as other:
        one(flat()), other(flat()), one(flat())
        assert len(policy.episodes) == 2
        assert not policy.forgotten
    wait_until(lambda: sorted(policy.forgotten) == sorted(policy.episodes))


def test_a_reset_forgets_the_episodes_of_this_client_alone(server):
    policy, _, url = server
    with openpi(url) as one, openpi(url) as other:
        one(flat()), other(flat())
        first = min(policy.episodes)
        assert one({"type": "reset"}) == {"type": "done"}
        wait_until(lambda: policy.forgotten == [first])
        one(flat())
        assert len(policy.episodes) == 3


KILLED = """
import sys, time
from websockets.sync.client import connect
socket = connect(sys.argv[1], compression=None, proxy=None)
socket.recv()
print("here", flush=True)
time.sleep(60)
"""


def test_a_killed_client_frees_its_session(server):
    process = subprocess.Popen([sys.executable, "-c", KILLED, server[2]], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"here\n"
        assert server[1].metrics.sessions == 1
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: server[1].metrics.sessions == 0)


def test_a_client_that_leaves_while_the_policy_thinks_frees_its_session(server):
    policy, parts, url = server
    policy.go.clear()
    with openpi(url) as ask:
        ask.socket.send(pack(flat()))
        wait_until(lambda: bool(policy.threads))
        ask.socket.socket.shutdown(socket.SHUT_RDWR)
    policy.go.set()
    wait_until(lambda: parts.metrics.sessions == 0)
    with openpi(url) as ask:
        assert "actions" in ask(flat())


def test_one_client_too_many_is_told_so():
    with served(max_sessions=1) as (_, _, url), openpi(url) as ask:
        with pytest.raises(ConnectionClosed, match=r"1013.*1 clients are connected"), openpi(url):
            pass
        assert "actions" in ask(flat())


def test_a_client_that_says_nothing_is_let_go():
    with (
        served(idle_s=0.1) as (_, server, url),
        openpi(url) as ask,
        pytest.raises(ConnectionClosed, match=r"idle for 0.1 s"),
    ):
        ask.socket.recv(10)
    assert server.metrics.count("vla_refused_total", 'cause="idle"') == 1


def test_a_message_that_trickles_in_is_not_waited_for_longer_than_silence():
    with served(idle_s=0.3) as (_, server, url), openpi(url) as ask:
        ask.socket.socket.sendall(b"\x82\xfe\x10\x00\0\0\0\0")  # a frame of 4096 bytes begins
        wait_until(lambda: server.metrics.sessions == 0)


def test_a_message_beyond_the_limit_closes_its_connection():
    with served(max_message_bytes=100_000) as (policy, _, url):
        with openpi(url) as ask, pytest.raises(ConnectionClosed, match="1009"):
            ask(flat(observation__image=np.zeros((224, 224, 3), np.uint8)))
        assert not policy.batches


def test_a_message_in_endless_empty_pieces_is_refused(server):
    with openpi(server[2]) as ask:
        ask.socket.send([b""] * (MAX_FRAGMENTS + 10))
        assert "pieces" in ask.socket.recv(10)


def bearer(value):
    return {"additional_headers": {"Authorization": value}}


def test_a_token_is_asked_for_in_any_of_the_forms_that_clients_know():
    with served(token="s3cret") as (_, server, url):
        for shown in ("Bearer s3cret", "Api-Key s3cret", "Basic eDpzM2NyZXQ="):
            with openpi(url, **bearer(shown)) as ask:
                assert "actions" in ask(flat())
        with openpi(url.replace("ws://", "ws://x:s3cret@")) as ask:  # how a client without headers says it
            assert "actions" in ask(flat())
        for wrong in ("Bearer s3cre", "Digest s3cret", "s3cret", "Basic !", "Bearer s3cret\u00e9"):
            with pytest.raises(InvalidStatus, match="401"), openpi(url, **bearer(wrong)):
                pass
        with pytest.raises(InvalidStatus, match="401"), openpi(url):
            pass
        assert server.metrics.count("vla_refused_total", 'cause="token"') == 6


def test_a_web_page_may_not_talk_to_the_server(server):
    with pytest.raises(InvalidStatus, match="403"), openpi(server[2], origin="http://evil.example"):
        pass


def get(url, path, headers=""):
    host, port = url.removeprefix("ws://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def test_pages_say_that_it_lives_what_it_serves_and_what_it_counted(server):
    url = server[2]
    with openpi(url) as ask:
        ask(flat())
        page = get(url, "/metrics")
    assert get(url, "/healthz").startswith("HTTP/1.1 200")
    assert get(url, "/health").endswith('{"status": "ok"}\n')
    assert '"weights_sha256"' in get(url, "/config")
    assert "\nvla_sessions 1\n" in page
    assert 'vla_observations_total{protocol="openpi"} 1\n' in page
    assert "404" in get(url, "/nowhere").splitlines()[0]


def test_health_needs_no_token_and_the_other_pages_do():
    with served(token="s3cret") as (_, _, url):
        assert "200" in get(url, "/healthz").splitlines()[0]
        for path in ("/config", "/metrics"):
            assert "401" in get(url, path).splitlines()[0]
            assert "200" in get(url, path, "Authorization: Bearer s3cret\r\n").splitlines()[0]


def test_others_may_reach_it_with_a_token_or_when_it_is_said():
    with pytest.raises(ConfigError, match="give a token"):
        ServeConfig(host="0.0.0.0")
    ServeConfig(host="0.0.0.0", token="s3cret")
    ServeConfig(host="0.0.0.0", open_to_all=True)
    ServeConfig(host="::1")


def test_a_port_that_is_taken_is_an_error_with_its_name(server):
    port = int(server[2].rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"Cannot listen on 127.0.0.1:{port}"), served(port=port):
        pass


def test_a_policy_that_cannot_tell_episodes_apart_is_not_served():
    class Alone:
        def reset(self): ...
        def act(self, observations): ...

    with pytest.raises(ConfigError, match="Alone cannot be served"):
        PolicyServer(ServeConfig(), Alone)  # type: ignore[arg-type]
    assert not [thread for thread in threading.enumerate() if thread.name == "policy" and thread.is_alive()]


TLS = Path(__file__).parent / "tls"  # made for these tests alone: nothing else trusts them


def test_with_tls_files_clients_speak_tls_and_know_whom_they_speak_to():
    with served(tls_cert=TLS / "cert.pem", tls_key=TLS / "key.pem") as (_, _, url):
        assert url.startswith("wss://")
        policy = RemotePolicy(RemoteConfig(url=url, tls_ca=TLS / "cert.pem"))
        assert policy.act([sample_observation(PANDA)])
        policy.close()
        with pytest.raises(RemoteError, match="certificate verify failed"):
            RemotePolicy(RemoteConfig(url=url))
        with pytest.raises(RemoteError, match="No policy server"):
            RemotePolicy(RemoteConfig(url=url.replace("wss", "ws"), deadline_s=0.3))


def test_tls_needs_both_files_and_they_must_belong_together():
    with pytest.raises(ConfigError, match="both files"):
        ServeConfig(tls_cert=TLS / "cert.pem")
    with pytest.raises(ConfigError, match=r"Cannot use .*cert.pem"):
        PolicyServer(ServeConfig(tls_cert=TLS / "cert.pem", tls_key=TLS / "cert.pem"), StubPolicy)


def test_hostile_messages_crash_nothing_and_reach_no_policy():
    """Those of scripts/fuzz_server.py, a few thousand of them."""
    command = [sys.executable, "scripts/fuzz_server.py", "--messages", "3000", "--seed", "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert "0 crashes, 0 reached the policy, 0 sessions left" in ran.stdout
