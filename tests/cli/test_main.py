"""The console script: its table of contents, its exit codes, its messages."""

import subprocess
import sys
import time

import pytest

from vla.cli import main as cli
from vla.cli.main import VERBS, main
from vla.errors import DatasetError


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text and verb.summary in text for name, verb in VERBS.items())


def test_every_verb_has_a_module():
    import importlib

    for name in VERBS:
        assert callable(importlib.import_module(f"vla.cli.{name}").run)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from vla.cli.main import main; main(['--help']); "
        "print(sorted({'torch', 'numpy', 'mujoco', 'tyro', 'transformers'} & set(sys.modules)))"
    )
    start = time.perf_counter()
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - start < 5  # far below, but the machine may be busy


@pytest.mark.parametrize("verb", ["demo", "eval", "data", "run", "doctor", "report"])
def test_help_of_a_verb_does_not_import_torch(verb: str):
    code = (
        "import sys\nfrom vla.cli.main import main\n"
        f"try: main(['{verb}', '--help'])\nexcept SystemExit: pass\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_an_unknown_verb_names_the_right_one(capsys: pytest.CaptureFixture[str]):
    assert main(["evla"]) == 2
    assert "Did you mean 'eval'" in capsys.readouterr().err


def test_an_unknown_flag_names_the_right_one(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--episods", "3"])
    assert stopped.value.code == 2
    assert "--episodes" in capsys.readouterr().err


def test_our_errors_are_messages_without_traceback(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VLA_DEBUG", raising=False)
    assert main(["data", "info", "/nowhere"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("vla: There is nothing at /nowhere")
    assert "Traceback" not in text


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLA_DEBUG", "1")
    with pytest.raises(DatasetError):
        main(["data", "info", "/nowhere"])


def test_ctrl_c_says_what_is_valid(capsys, monkeypatch: pytest.MonkeyPatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: type("verb", (), {"run": interrupted}))
    assert main(["demo"]) == 130
    assert "Committed episodes are valid" in capsys.readouterr().err
