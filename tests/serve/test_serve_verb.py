"""``vla serve``: one command to a server that answers, and refusals before a policy is loaded."""

import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.serve.served import PANDA, ROOT
from vla.cli.main import main
from vla.cli.serve import read_token
from vla.errors import ConfigError
from vla.serve import server
from vla.serve.client import RemoteConfig, RemotePolicy
from vla.testing import sample_observation


def test_the_shipped_policy_is_served_until_it_is_told_to_stop(tmp_path):
    (tmp_path / "token").write_text("s3cret\n")
    command = [sys.executable, "-W", "ignore", "-m", "vla.cli.main", "serve", "--port", "0"]
    command += ["--embodiment", "panda", "--token-file", str(tmp_path / "token"), "--gr00t-port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said = "".join(process.stdout.readline() for _ in range(6))
        url = re.search(r"ws://\S+", said).group()
        with urllib.request.urlopen(url.replace("ws", "http", 1) + "/healthz", timeout=30) as page:
            assert page.status == 200
        policy = RemotePolicy(RemoteConfig(url=url, token="s3cret"))
        chunk = policy.act([sample_observation(PANDA)])[0]
        policy.close()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert chunk.actions.shape == (8, 5)
    assert re.search(r"gr00t +tcp://127.0.0.1:\d+", said)
    assert rest.endswith("stopped.\n")
    assert process.returncode == 0, errors
    assert "s3cret" not in said + rest + errors


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--policy", "expert"], "made for one simulation"),
        (["--host", "0.0.0.0"], "give a token"),
        (["--port", "70000"], "port is 70000"),
        (["--token-file", "/nowhere/token"], "Cannot read the token"),
        (["--tls-cert", "cert.pem"], "both files"),
        (["--lerobot-port", "8080", "--host", "0.0.0.0", "--open-to-all"], "this machine alone"),
        (["--gr00t-port", "-1"], "gr00t_port is -1"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(flags, said, capsys):
    assert main(["serve", *flags]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "\n", "two words", "naïve"])
def test_a_token_is_one_plain_word(text, tmp_path):
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigError, match="holds no token"):
        read_token(tmp_path / "token")


def test_a_server_of_pickles_says_so_loudly(monkeypatch, capsys):
    def refuse(*_):
        raise ConfigError("far enough")

    monkeypatch.setattr(server, "PolicyServer", refuse)
    assert main(["serve", "--lerobot-port", "0"]) == 2
    assert "lerobot's clients send PICKLES and show NO TOKEN" in capsys.readouterr().out
    assert main(["serve"]) == 2
    assert "PICKLES" not in capsys.readouterr().out
