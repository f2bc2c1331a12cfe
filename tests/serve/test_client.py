"""A remote policy is the policy: same chunks, same refusals, same records; and it outlives its connection."""

import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from websockets.sync.server import serve as plain_server

import vla.testing
from tests.serve.served import CONTRACT, PANDA, ROOT, StubPolicy, openpi, served, wait_until
from vla.control.policies import PolicySpec, check_continues, policy_facts
from vla.errors import (
    ActionError,
    ConfigError,
    ContractError,
    IncompatibleError,
    ObservationError,
    RemoteError,
    UnknownNameError,
    WireError,
)
from vla.serve.batching import MAX_EPISODES
from vla.serve.client import RemoteConfig, RemotePolicy
from vla.serve.messages import chunk_from_wire, chunk_to_wire, observation_from_wire, observation_to_wire
from vla.serve.wire import pack, unpack
from vla.types import ActionChunk, Promise


@pytest.fixture
def server():
    with served() as parts:
        yield parts


@pytest.fixture
def remote(server):
    policy = RemotePolicy(RemoteConfig(url=server[2]))
    yield policy
    policy.close()


LIGHT = """
import sys
from vla.serve.client import RemoteConfig, RemotePolicy
from vla.testing import sample_observation
policy = RemotePolicy(RemoteConfig(url=sys.argv[1]))
print(policy.act([sample_observation(policy.contract.embodiments["panda"])])[0].actions.shape)
heavy = {"torch", "transformers", "mujoco", "cv2", "scipy", "zarr", "psutil"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""


def test_a_client_acts_without_importing_torch_or_anything_else_heavy(server):
    light = LIGHT.replace("from vla.testing import sample_observation", SAMPLE)
    command = [sys.executable, "-W", "ignore", "-c", light, server[2]]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines() == ["(8, 5)", "[]"], ran.stderr


SAMPLE = """
import numpy as np
from vla.types import Observation
def sample_observation(arm):
    return Observation(images={c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in arm.cameras},
        state={f.name: np.zeros(f.size, np.float32) for f in arm.state},
        instruction="go", embodiment=arm.name)
"""


def test_it_keeps_the_contract_suite_of_policies(remote):
    vla.testing.check_policy(remote, PANDA)
    remote.check(PANDA)
    assert policy_facts(remote) == policy_facts(StubPolicy())


def test_it_refuses_what_the_policy_refuses_and_asks_nothing(server, remote):
    with pytest.raises(IncompatibleError, match="not trained on 'sawyer'"):
        remote.check(replace(PANDA, name="sawyer"))
    with pytest.raises(IncompatibleError, match=r"control rate 10 Hz, here 20"):
        remote.check(replace(PANDA, control_hz=20.0))
    seen = vla.testing.sample_observation(PANDA)
    with pytest.raises(ObservationError, match="lacks the wrist camera"):
        remote.act([replace(seen, images={"front": seen.images["front"]})])
    assert not server[0].batches


def test_a_batch_comes_back_in_order(server, remote):
    shown = [vla.testing.sample_observation(PANDA, seed) for seed in range(5)]
    shown = [replace(seen, episode=i) for i, seen in enumerate(shown)]
    for seen, chunk in zip(shown, remote.act(shown), strict=True):
        assert np.array_equal(chunk.actions, server[0]._chunk(seen).actions)
    assert server[0].batches == [5]
    assert len(server[0].episodes) == 5


def test_errors_of_the_policy_are_the_same_errors_here_and_the_session_goes_on(remote):
    seen = vla.testing.sample_observation(PANDA)
    with pytest.raises(ActionError, match="as you wish"):
        remote.act([replace(seen, instruction="refuse me")])
    with pytest.raises(RemoteError, match=r"failed .RuntimeError"):
        remote.act([replace(seen, instruction="crash")])
    assert remote.act([seen])[0].horizon == CONTRACT.horizon
    assert remote.reconnects == 0


def test_a_policy_that_cannot_continue_a_chunk_says_so_from_afar(remote):
    with pytest.raises(IncompatibleError, match="real-time chunking"):
        check_continues(remote)
    seen = replace(
        vla.testing.sample_observation(PANDA), promise=Promise(actions=np.zeros((3, 5), np.float32), frozen=1)
    )
    with pytest.raises(IncompatibleError, match="cannot continue"):
        remote.act([seen])


def test_more_episodes_than_a_client_may_have_are_refused(remote):
    seen = vla.testing.sample_observation(PANDA)
    for episode in range(MAX_EPISODES):
        remote.act([replace(seen, episode=episode)])
    with pytest.raises(ObservationError, match="reset before"):
        remote.act([replace(seen, episode=MAX_EPISODES)])
    remote.reset()
    remote.act([seen])


def test_a_restarted_server_is_found_again():
    with served() as (_, _, url):
        remote = RemotePolicy(RemoteConfig(url=url, deadline_s=10))
        before = remote.act([vla.testing.sample_observation(PANDA)])
    with served(port=int(url.rpartition(":")[2])):
        after = remote.act([vla.testing.sample_observation(PANDA)])
        remote.close()
    assert np.array_equal(before[0].actions, after[0].actions)
    assert remote.reconnects == 1


def test_a_restarted_server_with_another_policy_is_refused():
    with served() as (_, _, url):
        remote = RemotePolicy(RemoteConfig(url=url, deadline_s=10))
    other = StubPolicy(replace(CONTRACT, weights_sha256="0" * 64))
    with (
        served(other, port=int(url.rpartition(":")[2])),
        pytest.raises(ContractError, match="serves another policy"),
    ):
        remote.act([vla.testing.sample_observation(PANDA)])


def test_an_episode_of_a_policy_that_remembers_does_not_outlive_its_connection():
    seen = vla.testing.sample_observation(PANDA)
    with served(StubPolicy(remembers=True)) as (_, _, url):
        remote = RemotePolicy(RemoteConfig(url=url, deadline_s=10))
        remote.act([seen])
    with served(StubPolicy(remembers=True), port=int(url.rpartition(":")[2])):
        with pytest.raises(RemoteError, match="begin the episode again"):
            remote.act([seen])
        remote.reset()
        remote.act([seen])
        remote.close()


def test_nobody_there_is_said_within_the_deadline():
    with served() as (_, _, url):
        pass
    with pytest.raises(RemoteError, match=r"No policy server at .* within 0.2 s.*vla serve"):
        RemotePolicy(RemoteConfig(url=url, deadline_s=0.2))


def test_a_policy_that_thinks_too_long_is_not_waited_for(server):
    remote = RemotePolicy(RemoteConfig(url=server[2], deadline_s=1))
    server[0].go.clear()
    with pytest.raises(RemoteError, match=r"did not answer within 1 s"):
        remote.act([vla.testing.sample_observation(PANDA)])
    server[0].go.set()
    wait_until(lambda: server[1].metrics.sessions == 0)
    remote.reset()
    assert remote.act([vla.testing.sample_observation(PANDA)])
    remote.close()


def test_a_wrong_token_is_the_cause_that_is_named():
    with served(token="s3cret") as (_, _, url):
        with pytest.raises(RemoteError, match="HTTP 401 This server needs its token"):
            RemotePolicy(RemoteConfig(url=url, token="wrong"))
        with pytest.raises(RemoteError, match="HTTP 404"):
            RemotePolicy(RemoteConfig(url=url + "/nowhere", token="s3cret"))
        RemotePolicy(RemoteConfig(url=url, token="s3cret")).close()


@pytest.mark.parametrize(
    ("said", "error"), [(pack({"a": 1}), ContractError), (b"\xc1", WireError), ("hello", RemoteError)]
)
def test_another_server_is_no_policy_server(said, error):
    with plain_server(lambda socket: socket.send(said), "127.0.0.1", 0) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        try:
            with pytest.raises(error):
                RemotePolicy(RemoteConfig(url=f"ws://127.0.0.1:{other.socket.getsockname()[1]}"))
        finally:
            other.shutdown()
            thread.join()


def test_what_is_said_about_a_server_is_checked():
    for bad in ({"url": "http://127.0.0.1"}, {"url": "ws://127.0.0.1", "deadline_s": 0}):
        with pytest.raises(ConfigError):
            RemoteConfig(**bad)


def test_observations_and_chunks_survive_the_wire():
    promise = Promise(actions=np.ones((2, 5), np.float32), frozen=1)
    seen = replace(vla.testing.sample_observation(PANDA), time_s=1.5, episode=3, promise=promise)
    back = observation_from_wire(unpack(pack(observation_to_wire(seen))))
    for part in ("images", "state"):
        vla.testing.assert_same(getattr(seen, part), getattr(back, part), part)
    for part in ("instruction", "embodiment", "time_s", "episode"):
        assert getattr(seen, part) == getattr(back, part)
    assert back.promise is not None
    assert np.array_equal(back.promise.actions, promise.actions)
    assert back.promise.frozen == 1
    chunk = ActionChunk(
        actions=promise.actions, control_hz=10.0, info={"words": ["a"], "at": np.zeros(3), "x": np.float32(1)}
    )
    again = chunk_from_wire(unpack(pack(chunk_to_wire(chunk))))
    assert np.array_equal(again.actions, chunk.actions)
    vla.testing.assert_same(dict(chunk.info), again.info, "info")


@pytest.mark.parametrize(
    "changes",
    [
        {"time_s": float("nan")}, {"time_s": -1}, {"time_s": True}, {"episode": -1}, {"episode": 1.5},
        {"embodiment": 3}, {"images": []}, {"state": None}, {"promise": {}}, {"aux": {}},
        {"promise": {"actions": np.ones((2, 5), np.float32), "frozen": 3}},
        {"promise": {"actions": np.full((2, 5), np.inf, np.float32), "frozen": 0}},
    ],
)  # fmt: skip
def test_an_observation_with_a_wrong_part_is_refused(changes):
    message = {**observation_to_wire(vla.testing.sample_observation(PANDA)), **changes}
    with pytest.raises((ObservationError, UnknownNameError)):
        observation_from_wire(message)


def test_the_remote_policy_is_found_by_its_name(server):
    spec = PolicySpec.parse(f"remote:url={server[2]},deadline_s=5")
    assert spec.arguments == {"url": server[2], "deadline_s": 5}
    policy = spec.build()
    assert policy.act([vla.testing.sample_observation(PANDA)])
    policy.close()  # type: ignore[attr-defined]


def test_an_evaluation_through_the_server_gives_the_records_of_the_policy_in_process():
    from vla import registry
    from vla.eval.records import EpisodeKey
    from vla.eval.rollout import run_episode

    policy = registry.policy_factory("learned")()
    env = registry.suite("tabletop").make("place", "panda", image_size=CONTRACT.image_size)
    key = EpisodeKey(
        task="place", embodiment="panda", seed=3, variant="base", wording="train", ablation="none"
    )
    horizon = policy.contract.execution_horizon

    def record(driver):
        found = run_episode(env, driver, suite="tabletop", key=key, execution_horizon=horizon, max_steps=25)
        return replace(found, latency_mean_s=0.0, latency_p95_s=0.0)

    try:
        here = record(policy)
        with served(policy) as (_, _, url):
            remote = RemotePolicy(RemoteConfig(url=url))
            there = record(remote)
            remote.close()
    finally:
        env.close()
    assert here == there
    assert here.actions


@pytest.mark.parametrize(
    "message",
    [
        {"type": np.zeros(3)}, {"type": "die"}, {"type": None}, {"type": "reset", "more": 1},
        {"type": "act", "observations": {}}, {"type": "act", "observations": []},
        {"type": "act", "observations": [{}] * 65}, {"type": "open"}, {"type": "open", "embodiment": 3},
        {"type": "open", "embodiment": {**PANDA.to_json(), "control_hz": np.zeros(3)}},
        {"type": "open", "embodiment": {**PANDA.to_json(), "name": []}},
        {"type": "open", "embodiment": {**PANDA.to_json(), "state": [{}]}},
    ],
)  # fmt: skip
def test_a_typed_message_with_a_fault_is_answered_with_an_error_and_the_session_goes_on(message, server):
    with openpi(server[2]) as ask:
        answer = ask(message)
        assert answer["type"] == "error"
        assert answer["message"]
        assert ask({"type": "reset"}) == {"type": "done"}
    assert server[1].metrics.count("vla_refused_total", 'cause="failure"') == 0
    assert not server[0].batches
