"""Planners and judges that ask a model: what goes over the wire, what is refused, and a real tiny model."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vla.errors import ConfigError
from vla.planning import PlanError, Scene, make_planner
from vla.planning.judge import said_yes
from vla.planning.language import EndpointChat, LocalChat, make_chat, read_plan


class Endpoint(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint that says what it was told to, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: list[str | int] = []
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), body))
        reply = self.server.replies.pop(0)
        self.send_response(reply if isinstance(reply, int) else 200)
        self.end_headers()
        answer = {"choices": [{"message": {"role": "assistant", "content": reply}}]}
        self.wfile.write(b"no such model" if isinstance(reply, int) else json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_endpoint_is_told_the_scene_and_gives_the_plan(endpoint: Endpoint, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    endpoint.replies = ['Sure: ["open the drawer", "put the  red cube in the drawer"]']
    scene = Scene(things=("red cube", "drawer"), sentences=("open the drawer",))
    steps = make_planner(f"openai:m1@{endpoint.url}").plan("put the cube away", scene)
    assert steps == ("open the drawer", "put the red cube in the drawer")
    [(path, key, body)] = endpoint.asked
    assert (path, key) == ("/v1/chat/completions", "Bearer secret")
    assert (body["model"], body["temperature"]) == ("m1", 0)
    said = body["messages"][1]["content"]
    assert all(part in said for part in ("put the cube away", "red cube, drawer", "open the drawer"))


def test_an_answer_that_is_no_plan_is_asked_for_once_more_then_refused(endpoint: Endpoint) -> None:
    endpoint.replies = ["I cannot", '["press the button"]', "I cannot", "[]"]
    planner = make_planner(f"openai:m@{endpoint.url}")
    assert planner.plan("do it", Scene()) == ("press the button",)
    assert "holds no JSON list" in endpoint.asked[1][2]["messages"][1]["content"]
    with pytest.raises(PlanError, match=r"no plan for 'do it'.*0 sentences"):
        planner.plan("do it", Scene())


def test_failures_of_the_endpoint_name_it(endpoint: Endpoint) -> None:
    endpoint.replies = [404]
    with pytest.raises(PlanError, match=r"/v1/chat/completions answered 404: no such model"):
        EndpointChat("m", endpoint.url).answer("", "hello")
    endpoint.server_close()
    with pytest.raises(PlanError, match=r"cannot be reached.*Is the endpoint running"):
        EndpointChat("m", endpoint.url, timeout_s=2).answer("", "hello")


def test_a_picture_goes_along_as_it_is(endpoint: Endpoint) -> None:
    endpoint.replies = ["Yes, it is."]
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 200  # red
    assert said_yes(EndpointChat("m", endpoint.url).answer("look", "done?", image))
    text, picture = endpoint.asked[0][2]["messages"][1]["content"]
    assert text == {"type": "text", "text": "done?"}
    png = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_array_equal(decoded[..., ::-1], image)


@pytest.mark.parametrize(
    "reply", ["", "no list", "[1, 2]", '[""]', "[", json.dumps(["a"] * 21), json.dumps(["a" * 201])]
)
def test_what_is_no_list_of_sentences_is_refused(reply: str) -> None:
    with pytest.raises(PlanError):
        read_plan(reply)


@pytest.mark.parametrize(
    ("reply", "yes"), [("Yes.", True), ('"yes"', True), ("**Yes** it", True), ("No, yes", False), ("", False)]
)
def test_only_a_yes_is_a_yes(reply: str, yes: bool) -> None:
    assert said_yes(reply) is yes


def test_a_local_model_answers(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["[UNK]", *"abcdefghijklmnopqrstuvwxyz[]\", .?'!:"]
    level = tokenizers.models.WordLevel({w: i for i, w in enumerate(dict.fromkeys(words))}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(level)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(tmp_path)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **size)).save_pretrained(tmp_path)
    chat = make_chat(f"local:{tmp_path}")
    assert isinstance(chat, LocalChat)
    assert isinstance(chat.answer("task", "said"), str)
    with pytest.raises(PlanError, match="sees no pictures"):
        chat.answer("task", "said", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        make_chat(f"local:{tmp_path / 'nowhere'}")
