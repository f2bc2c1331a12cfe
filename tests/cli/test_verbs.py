"""Each verb through the real parser and the real package, small."""

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from vla.cli import doctor, run
from vla.cli.flags import policy_spec
from vla.cli.main import main
from vla.cli.train import read_flags
from vla.contract import CONTRACT_FILE
from vla.data.generate import GenerationReport
from vla.errors import CheckpointError, ConfigError
from vla.interfaces import Cell
from vla.provenance import usable_cores
from vla_policies.learned import SHIPPED

ROOT = Path(__file__).parents[2]
RECIPE = """
from vla.train.config import DataConfig, GenerationConfig, TrainConfig


def config():
    return TrainConfig(name="tiny", data=DataConfig(generate=GenerationConfig()))
"""


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "demos"
    flags = "--tasks pick --arms panda --episodes 2 --workers 1 --image-size 32 --quiet --out"
    assert main(["demo", *flags.split(), str(out)]) == 0
    return out


# --- demo and data


def test_demo_makes_what_was_asked(demos: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "info", str(demos)]) == 0
    text = capsys.readouterr().out
    assert "2 (2 successful)" in text
    assert "pick / panda" in text


def test_verify_finds_a_whole_store_whole(demos: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "verify", str(demos)]) == 0
    assert "all whole" in capsys.readouterr().out


def test_verify_finds_damage(demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(demos, copy)
    chunk = max(
        (p for p in copy.rglob("*") if p.is_file() and "frames" in p.parts), key=lambda p: p.stat().st_size
    )
    content = bytearray(chunk.read_bytes())
    content[100] ^= 0xFF
    chunk.write_bytes(content)
    assert main(["data", "verify", str(copy)]) == 1
    assert "faults" in capsys.readouterr().out


def test_stats_have_a_row_for_every_entry(demos: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["data", "stats", str(demos)]) == 0
    text = capsys.readouterr().out
    assert text.count("action tcp_position_delta[") == 3
    assert "m/step" in text


@pytest.mark.parametrize(
    ("flags", "hint"),
    [("--arms pnda", "'panda'"), ("--embodiments pnda", "'panda'"), ("--tasks pik", "'pick'")],
)
def test_unknown_arms_and_tasks_name_the_right_one(flags: str, hint: str, tmp_path: Path, capsys):
    assert main(["demo", *flags.split(), "--out", str(tmp_path / "x")]) == 2
    assert f"Did you mean {hint}" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


# --- train


def test_a_recipe_becomes_flags(tmp_path: Path):
    recipe = tmp_path / "tiny.py"
    recipe.write_text(RECIPE)
    arguments = ["--optim.lr", "0.5", "--data.generate.tasks", "pick", "push", "--out", "here", "--resume"]
    config, out, resume, dry_run = read_flags(recipe, arguments)
    assert config.optim.lr == 0.5
    assert config.data.generate.tasks == ("pick", "push")
    assert (out, resume, dry_run) == (Path("here"), True, False)


def test_dry_run_prints_the_resolved_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "tiny.py"
    recipe.write_text(RECIPE)
    assert main(["train", str(recipe), "--dry-run", "--seed", "7"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 7


def test_dry_run_opens_the_data(demos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "tiny.py"
    recipe.write_text(RECIPE)
    assert main(["train", str(recipe), "--dry-run"]) == 0
    assert "not there yet, training would make it first: outputs" in capsys.readouterr().err
    head = "from vla.data.mixture import SourceConfig\n"
    found = f"DataConfig(sources=(SourceConfig(path={str(demos)!r}),), image_size=32)"
    recipe.write_text(head + RECIPE.replace("DataConfig(generate=GenerationConfig())", found))
    assert main(["train", str(recipe), "--dry-run", "--data.control-hz", "5"]) == 0
    said = capsys.readouterr().err
    assert "demos: 2 episodes" in said
    assert "resampled from 10 to 5 Hz" in said
    assert "control_hz=None keeps the rate" in said
    assert main(["train", str(recipe), "--dry-run", "--data.image-size", "64"]) == 2
    assert "image_size is 64" in capsys.readouterr().err


def test_a_wrong_setting_names_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "tiny.py"
    recipe.write_text(RECIPE)
    with pytest.raises(SystemExit):
        main(["train", str(recipe), "--optm.lr", "1"])
    assert "--optim.lr" in capsys.readouterr().err


def test_a_missing_recipe_lists_those_that_exist(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ConfigError, match=r"configs/quick\.py"):
        read_flags(Path("configs/quik.py"), [])


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path):
    (tmp_path / "x.py").write_text("a = 1\n")
    with pytest.raises(ConfigError, match="no function config"):
        read_flags(tmp_path / "x.py", [])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_recipe_resolves_and_survives_json(path: Path):
    from vla.train.config import TrainConfig

    config, *_ = read_flags(path, [])
    assert TrainConfig.from_json(config.to_json()) == config


# --- eval, report and run


def test_eval_writes_records_and_report_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = f"eval --policy expert --tasks pick --arms panda --workers 0 --quiet --out {tmp_path}".split()
    assert main([*arguments, "--episodes", "1"]) == 0
    assert "n=1" in capsys.readouterr().out
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert main(["report", str(tmp_path)]) == 0
    assert "report:" in capsys.readouterr().out


def test_run_follows_a_sentence_and_films_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    video = tmp_path / "run.mp4"
    sentence = "put the red cube in the blue bowl"
    assert main(["run", sentence, "--policy", "expert", "--headless", "--out", str(video)]) == 0
    assert "success" in capsys.readouterr().out
    assert video.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--robot", "sim:pnda", "pick up the red cube"], "Did you mean 'panda'"),
        (["--robot", "ur:1", "pick up the red cube"], "Did you mean 'ur5e'"),
        (["bake a cake"], "verb"),
    ],
)
def test_run_says_what_it_cannot_do(arguments: list[str], message: str, tmp_path: Path, capsys):
    assert (
        main(["run", "--policy", "expert", "--headless", "--out", str(tmp_path / "x.mp4"), *arguments]) == 2
    )
    assert message in capsys.readouterr().err


def test_policies_are_named_or_lie_somewhere(tmp_path: Path):
    assert policy_spec("default") == "learned"
    assert policy_spec("expert") == "expert"
    assert policy_spec(str(tmp_path)) == f"learned:{tmp_path}"
    assert policy_spec("default", "flow") == "learned,head=flow"
    assert policy_spec(str(tmp_path), "flow") == f"learned:{tmp_path},head=flow"
    with pytest.raises(CheckpointError, match="default, expert"):
        policy_spec("runs/nowhere")


def test_a_head_is_chosen_among_those_of_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    heads = json.loads((SHIPPED / CONTRACT_FILE).read_text())["heads"]
    where = f"--workers 0 --quiet --out {tmp_path}"
    flags = f"eval --tasks pick --arms panda --episodes 1 --audit off {where}".split()
    assert main([*flags, "--head", "nonesuch"]) == 2
    message = capsys.readouterr().err
    assert all(head in message for head in heads)
    assert main([*flags, "--policy", "expert", "--head", heads[0]]) == 2
    assert "argument of policy 'expert'" in capsys.readouterr().err
    assert main([*flags, "--head", heads[-1]]) == 0
    record = json.loads((tmp_path / "records.jsonl").read_text())
    (session,) = json.loads((tmp_path / "provenance.json").read_text())["sessions"]
    assert record["head"] == session["policy"]["head"] == heads[-1]
    assert f"learned,head={heads[-1]}" in (tmp_path / "report.html").read_text()


def test_a_sentence_becomes_a_file_name():
    assert run.slug("Put the red cube, please!") == "put-the-red-cube-please"
    assert run.slug("...") == "run"


# --- doctor


def test_doctor_finds_this_machine_fit(capsys: pytest.CaptureFixture[str]):
    assert main(["doctor", "--json"]) == 0
    rows = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"python", "cores", "memory", "renderer", "gpu", "suites", "shipped policy"} <= set(rows)
    assert "64x64 in" in rows["renderer"]["found"]


def test_doctor_says_how_to_mend_a_missing_renderer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUJOCO_GL", "egll")
    finding = doctor._renderer()
    assert finding.status == "fail"
    assert "apt-get install libegl1" in finding.mend


def test_doctor_fails_where_something_must_be_mended(monkeypatch: pytest.MonkeyPatch, capsys):
    broken = doctor.Finding(check="x", status="fail", found="nothing", mend="get one")
    monkeypatch.setattr(doctor, "examine", lambda: iter([broken]))
    assert main(["doctor"]) == 1
    assert "-> get one" in capsys.readouterr().out


def test_doctor_keeps_the_developers_extra_from_users_and_calls_others_optional(
    monkeypatch: pytest.MonkeyPatch,
):
    def nothing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", nothing)
    rows = {finding.check: finding for finding in doctor._extras()}
    assert "extra dev" not in rows
    assert "extra fast" in rows
    assert all(finding.status == "note" and "pip install" in finding.mend for finding in rows.values())


def test_usable_cores_are_counted():
    assert 0 < usable_cores() <= 4096


def test_arms_that_a_suite_keeps_out_of_training_are_demonstrated_only_by_name_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    asked: list[set[str]] = []

    def generate(suite: str, cells: Sequence[Cell], *_: object, **__: object) -> GenerationReport:
        asked.append({cell.embodiment for cell in cells})
        return GenerationReport(path=tmp_path, cells=(), wall_s=0.0)

    monkeypatch.setattr("vla.data.generate.generate", generate)
    assert main(["demo", "--tasks", "pick"]) == 0
    assert asked[-1] == {"panda", "ur5e", "xarm7", "so101", "gen3"}
    assert "keeps iiwa14 out of training: none unless it is named" in capsys.readouterr().out
    assert main(["demo", "--tasks", "pick", "--arms", "iiwa14"]) == 0
    assert asked[-1] == {"iiwa14"}
    assert "with these demonstrations it is no new arm" in capsys.readouterr().out
    assert main(["demo", "--tasks", "pick", "--arms", "panda"]) == 0
    assert "note" not in capsys.readouterr().out
