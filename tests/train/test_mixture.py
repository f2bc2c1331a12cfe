"""A mixture of our store and a foreign source trains: finite losses, shares logged, everything recorded."""

import json
from dataclasses import replace

import numpy as np
import torch

from tests.data.memory import memory_source
from tests.data.worlds import ReachSuite, make_arm
from tests.train.runs import tiny_config
from vla.data.mixture import SourceConfig
from vla.data.store import EpisodeStore
from vla.eval.grid import EvalConfig
from vla.eval.groups import Group
from vla.eval.records import EpisodeKey
from vla.eval.runners import GroupRunner
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyNet
from vla.train.loop import train
from vla.train.processes import ProcessGroup
from vla.train.record import load_run_config
from vla.train.setup import batch_source, draft_contract
from vla.train.trainer import Trainer


def train_two_steps(config, sources):
    contract = draft_contract(config, sources, {})
    trainer = Trainer(
        PolicyNet(PolicyNetConfig.from_json(contract.network)),
        config,
        source=batch_source(config, sources, contract, ProcessGroup()),
        camera_roles=contract.camera_roles,
        embodiments=sorted(contract.embodiments),
        device=torch.device("cpu"),
    )
    return contract, [trainer.step(share=0.1) for _ in range(2)]


def test_a_foreign_source_without_labels_or_wrist_camera_trains_beside_ours(store):
    config = tiny_config(store)
    ours = config.data.sources[0]
    foreign = SourceConfig(path="memory", weight=3.0, action_mode="quantile")
    config = replace(config, data=replace(config.data, sources=(ours, foreign)))
    with EpisodeStore.open(store) as opened:
        contract, metrics = train_two_steps(config, [opened, memory_source()])
    assert contract.normalisation["modes"] == {"gamma": ["mean_std", "quantile"]}
    assert set(contract.embodiments) == {"alpha", "beta", "gamma"}
    assert type(contract).from_json(contract.to_json()).to_json() == contract.to_json()
    for row in metrics:
        assert np.isfinite([row["loss"], row["flow"], row["gradient_norm"]]).all()
        assert (row["windows/demos.zarr"], row["windows/memory"]) == (1.0, 3.0)


def test_a_source_without_cameras_trains_alone(store):
    config = tiny_config(store)
    config = replace(config, data=replace(config.data, sources=(SourceConfig(path="memory"),)))
    _, metrics = train_two_steps(config, [memory_source(replace(make_arm("blind"), cameras=()))])
    assert all(np.isfinite([row["loss"], row["gradient_norm"]]).all() for row in metrics)


def test_two_sources_resampled_to_one_rate_are_recorded_with_the_run(store, tmp_path):
    config = tiny_config(store, steps=2)
    again = SourceConfig(path=str(store), rename={"alpha": "gamma", "beta": "delta"}, hz=5.0)
    config = replace(config, data=replace(config.data, sources=(*config.data.sources, again)))
    policy = train(config, tmp_path / "run")
    assert load_run_config(tmp_path / "run") == config
    origin = json.loads((policy / "policy.json").read_text())["provenance"]
    assert [source["share"] for source in origin["data"]] == [0.5, 0.5]
    assert origin["data"][1]["control_hz"] == {"delta": 5.0, "gamma": 5.0}
    assert any("control rates differ" in note for note in origin["data_notes"])
    row = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert row["windows/demos.zarr#0"] + row["windows/demos.zarr#1"] == config.optim.batch_size


def test_what_an_evaluation_recorded_trains_again(tmp_path):
    path = tmp_path / "recorded.zarr"
    EpisodeStore.create(path).close()
    config = EvalConfig(
        suite="reach", policy="expert", image_size=16, record=str(path), failure_videos_per_cell=0
    )
    runner = GroupRunner(config, tmp_path, ReachSuite())
    groups = [
        Group.alone(EpisodeKey(task=task, embodiment="alpha", seed=7)) for task in ("reach", "fails", "reach")
    ]
    records = [record for group in groups for record in runner.run(group)]
    runner.close()
    assert [record.error for record in records] == [""] * 3
    with EpisodeStore.open(path) as opened:
        assert [(e.success, e.length) for e in opened.episodes] == [(r.success, r.steps) for r in records]
        assert opened.episodes[1].provenance["task"] == "fails"
    policy = train(tiny_config(path, steps=2), tmp_path / "run")
    origin = json.loads((policy / "policy.json").read_text())["provenance"]
    assert origin["data"][0]["num_episodes"] == 2
    assert any("evaluation seeds" in note for note in origin["data_notes"])
