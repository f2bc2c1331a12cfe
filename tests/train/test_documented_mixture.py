"""The recipe of a mixture in docs/datasets.md trains as it stands there."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.data.worlds import make_arm, make_episode
from vla.cli.main import main
from vla.data.exporting import export_lerobot
from vla.data.store import EpisodeStore
from vla.embodiment import Field

DOCUMENT = Path(__file__).parents[2] / "docs/datasets.md"


def documented_recipe() -> str:
    (recipe,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return recipe


def joint_arm():
    """Five joints moved to absolute angles at 20 Hz, one camera of another size."""
    arm = make_arm("my_arm", image_size=96, wrist=False, joints=5)
    joints = Field(
        name="joints", size=5, unit="rad", frame="joint", mode="absolute", low=(-3.0,) * 5, high=(3.0,) * 5,
        slot="arm0.joint_position",
    )  # fmt: skip
    return replace(arm, control_hz=20.0, action=(joints, arm.action[-1]))


def twice_as_fast(episode):
    steps = [
        replace(step, observation=replace(step.observation, time_s=step.observation.time_s / 2))
        for step in episode.steps
    ]
    return replace(episode, steps=tuple(steps))


def write_sources(folder, rng):
    arms = [make_arm("panda"), make_arm("ur5e")]
    with EpisodeStore.create(folder / "runs/demos", embodiments=arms) as store:
        for arm in arms * 2:
            store.append(make_episode(rng, arm))
    with EpisodeStore.create(folder / "joints.zarr", embodiments=[joint_arm()]) as store:
        for _ in range(2):
            store.append(twice_as_fast(make_episode(rng, joint_arm(), length=24)))
        export_lerobot(store, folder / "data/my_lerobot")


def test_the_documented_mixture_trains_as_it_stands(tmp_path, monkeypatch, capsys):
    write_sources(tmp_path, np.random.default_rng(1))
    (tmp_path / "my_mix.py").write_text(documented_recipe())
    monkeypatch.chdir(tmp_path)
    small = ["--budget.steps", "2", "--model.width", "32", "--num-processes", "1", "--device", "cpu"]
    assert main(["train", "my_mix.py", "--out", "runs/mix", *small, "--log-every", "1"]) == 0
    rows = [json.loads(line) for line in Path("runs/mix/metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert np.isfinite(row["loss"])
        assert row["windows/demos"] + row["windows/my_lerobot"] == 32
        assert abs(row["windows/demos"] - 32 * 2 / 3) < 1
    said = capsys.readouterr().out
    for note in ("no wrist camera (masked)", "resampled from 20 to 10 Hz", "from 96x96 to 64x64"):
        assert note in said
    contract = json.loads(Path("runs/mix/policy/policy.json").read_text())
    assert set(contract["embodiments"]) == {"panda", "ur5e", "my_arm"}
    assert contract["normalisation"]["modes"] == {"my_arm": ["mean_std", "quantile"]}
