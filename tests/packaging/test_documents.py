"""What the documents say to type works: Python blocks run, `vla` lines parse, links lead somewhere."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "envs/README.md", "policies/README.md", "CONTRIBUTING.md")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)


def command_lines(document: str, program: str) -> list[str]:
    text = "\n".join(blocks(document, "bash"))
    return [line for line in text.splitlines() if line.split(" ")[0] == program]


PYTHON = [(d, i, code) for d in DOCUMENTS for i, code in enumerate(blocks(d, "python"))]
VLA = [line for d in DOCUMENTS for line in command_lines(d, "vla")]


@pytest.mark.parametrize(("document", "index", "code"), PYTHON, ids=lambda v: str(v)[:20])
def test_python_blocks_run(document: str, index: int, code: str, tmp_path: Path):
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=tmp_path, env=quiet, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_the_readme_example_is_short():
    (code,) = blocks("README.md", "python")
    _, _, after_imports = code.partition("\n\n")
    assert len(after_imports.strip().splitlines()) <= 12


class _ParsedError(Exception):
    """The flags were understood."""


def _parse_only(*arguments):
    from vla.cli import flags

    flags.parse(*arguments)
    raise _ParsedError


@pytest.mark.parametrize("line", VLA)
def test_vla_lines_parse(line: str, monkeypatch: pytest.MonkeyPatch):
    """With the real parsers, up to the point where work would begin."""
    from vla.cli import flags
    from vla.cli.console import Console
    from vla.cli.data import ACTIONS
    from vla.cli.demo import Demo
    from vla.cli.doctor import Doctor
    from vla.cli.eval.judge import Eval
    from vla.cli.report import Report
    from vla.cli.run import Run
    from vla.cli.serve import Serve
    from vla.cli.train import read_flags

    _, verb, *arguments = shlex.split(line, comments=True)
    if verb == "train":
        monkeypatch.chdir(ROOT)
        read_flags(Path(arguments[0]), arguments[1:])
        return
    if verb == "data":
        module = importlib.import_module(f"vla.cli.data.{ACTIONS[arguments[0]].module}")
        monkeypatch.setattr(module, "parse", _parse_only)
        with pytest.raises(_ParsedError):
            getattr(module, f"run_{arguments[0]}")(arguments[1:])
        return
    parsers = {
        "demo": Demo,
        "doctor": Doctor,
        "eval": Eval,
        "report": Report,
        "run": Run,
        "serve": Serve,
        "console": Console,
    }
    flags.parse(parsers[verb], verb, arguments)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scripts_that_are_named_exist(document: str):
    for name in re.findall(r"(?:\./|python |bash )((?:scripts|\.ci)/[\w.]+)", (ROOT / document).read_text()):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    for link in links:
        assert ((ROOT / document).parent / link).exists(), link


def test_the_results_table_is_what_the_result_files_say():
    command = [sys.executable, str(ROOT / "scripts/update_readme_results.py"), "--check"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
