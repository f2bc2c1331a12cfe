"""A recipe that cannot run is one message: file, line, what is wrong, and the names that are near."""

from pathlib import Path

import pytest

from vla.cli.main import main
from vla.cli.train import load_recipe
from vla.errors import ConfigError

HEAD = "from vla.train.config import OptimConfig, TrainConfig\nimport math\n\n\n"


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("def config(:\n", 5, "invalid syntax"),
        ("def config():\n    return TrianConfig()\n", 6, r"name 'TrianConfig'.*mean 'TrainConfig'"),
        ("def config():\n    return math.sqtr(2)\n", 6, r"attribute 'sqtr'.*mean 'sqrt'"),
        ("from vla.train.config import BudgtConfig\n", 5, r"'BudgtConfig'.*mean 'BudgetConfig'"),
        ("import vla.trian\n", 5, r"No module named 'vla\.trian'"),
        ("def config():\n    return OptimConfig(lrr=1)\n", 6, r"'lrr'.*mean 'lr'"),
        ("def config():\n    return TrainConfig(device='cud')\n", 6, r"device 'cud'.*mean 'cuda'"),
        ("def config():\n    return 1 / 0\n", 6, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, line: int, message: str
) -> None:
    recipe = tmp_path / "bad.py"
    recipe.write_text(HEAD + code)
    with pytest.raises(ConfigError, match=rf"bad\.py:{line}: .*{message}"):
        load_recipe(recipe)
    assert main(["train", str(recipe)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_line_is_told_of_a_recipe_named_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.py").write_text(HEAD + "def config():\n    return OptimConfig(lrr=1)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^bad\.py:6: .*'lrr'.*mean 'lr'"):
        load_recipe(Path("bad.py"))
