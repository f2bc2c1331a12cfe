"""Our policies and arms inside inspect-robots: conformant, compatible, and run by its own evaluation."""

from dataclasses import replace

import inspect_robots as ir
import numpy as np
import pytest
from inspect_robots.compat import check_compatibility
from inspect_robots.conformance import assert_embodiment_conformant, check_embodiment

from tests.serve.served import PANDA, served
from vla.errors import ConfigError, IncompatibleError
from vla.serve.inspection import InspectPolicy, InspectSim, action_space


@pytest.fixture(scope="module")
def sim():
    made = InspectSim()
    yield made
    made.close()


@pytest.fixture
def policy():
    with served() as (_, _, url):
        made = InspectPolicy(f"remote:url={url}")
        yield made
        made._policy.close()  # type: ignore[attr-defined]


def test_the_simulated_arm_is_conformant_without_an_issue(sim):
    assert_embodiment_conformant(sim.info)
    assert not check_embodiment(sim.info).issues
    assert isinstance(sim, ir.Embodiment)


def test_the_policy_fits_the_arm_it_was_trained_on(sim, policy):
    assert isinstance(policy, ir.Policy)
    report = check_compatibility(policy, sim)
    assert not report.issues


def test_the_meaning_of_every_number_is_written_down(sim):
    semantics = sim.info.action_space.semantics
    assert semantics.control_mode == "eef_delta_pose"
    assert semantics.dim_labels == (
        "tcp_position_delta[0]", "tcp_position_delta[1]", "tcp_position_delta[2]", "tcp_yaw_delta", "gripper"
    )  # fmt: skip
    assert "positive closes the gripper" in sim.info.docs


def test_an_evaluation_of_inspect_robots_runs_to_its_end(sim, policy, tmp_path):
    scenes = [ir.Scene(id=f"seed-{seed}", instruction="", init_seed=seed) for seed in (3, 4)]
    task = ir.Task(name="place", scenes=scenes, scorer="success_at_end", max_steps=6)
    (log,) = ir.eval(task, policy, sim, log_dir=str(tmp_path), store_actions=False)
    assert log.status == "success"
    assert len(log.samples) == 2


def test_the_same_seed_gives_the_same_episode(sim):
    scene = ir.Scene(id="x", instruction="", init_seed=5)
    first, again = sim.reset(scene), sim.reset(scene)
    assert np.array_equal(first.images["front"], again.images["front"])
    assert first.instruction == again.instruction


def test_an_arm_that_the_policy_does_not_know_is_refused():
    with served() as (_, _, url), pytest.raises(IncompatibleError, match=r"trained on .*panda"):
        InspectPolicy(f"remote:url={url}", arm="sawyer")


def test_an_action_without_a_word_is_refused():
    strange = replace(PANDA, action=(replace(PANDA.action[2], unit="V"),))
    with pytest.raises(ConfigError, match="no word for actions of 'V'"):
        action_space(strange)
