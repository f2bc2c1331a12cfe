"""Plans and verdicts of a language model: an OpenAI-compatible endpoint, or a transformers model here."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from vla.errors import ConfigError
from vla.planning import PlanError, Scene

#: Sentences of a plan, and letters of a sentence, at most: what is longer is no plan.
MAX_STEPS, MAX_LETTERS = 20, 200
#: Asked again so often where the answer is no plan.
RETRIES = 1
#: Environment variable with the endpoint's key.
KEY_VARIABLE = "OPENAI_API_KEY"
_MAX_REPLY_BYTES = 1_000_000

_TASK = """You split what a person tells a robot arm into short instructions, one motion each, in order.
Answer with a JSON list of strings and nothing else, e.g. ["open the drawer", "press the red button"].
Name every thing in full; never write "it". Do not add what was not asked for."""


class Chat(Protocol):
    """Something that answers."""

    def answer(self, task: str, said: str, image: np.ndarray | None = None) -> str:
        """The reply to a message, with a picture if there is one.

        Args:
            task: what to do (the system message).
            said: the message.
            image: uint8 [h w 3], RGB.

        Raises:
            PlanError: there is none.
        """
        ...


def make_chat(spec: str) -> Chat:
    """``openai:MODEL@URL`` or ``local:FOLDER``."""
    kind, _, rest = spec.partition(":")
    if kind == "local":
        return LocalChat(Path(rest))
    model, at, url = rest.partition("@")
    if kind != "openai" or not (model and at and re.match(r"https?://", url)):
        raise ConfigError(f"Language model {spec!r}: expected openai:MODEL@http(s)://... or local:FOLDER.")
    return EndpointChat(model, url)


class EndpointChat:
    """``POST URL/chat/completions``, as OpenAI's service, vLLM, llama.cpp, Ollama and others take it.

    Args:
        model: its name there.
        url: up to and with ``/v1``; the key is read from ``OPENAI_API_KEY``, where that is set.
        timeout_s: of one answer.
    """

    def __init__(self, model: str, url: str, *, timeout_s: float = 30.0) -> None:
        self._model, self._url, self._timeout_s = model, url.rstrip("/"), timeout_s

    def answer(self, task: str, said: str, image: np.ndarray | None = None) -> str:
        content: Any = said
        if image is not None:
            content = [
                {"type": "text", "text": said},
                {"type": "image_url", "image_url": {"url": _png_url(image)}},
            ]
        messages = [{"role": "system", "content": task}, {"role": "user", "content": content}]
        body = json.dumps({"model": self._model, "messages": messages, "temperature": 0}).encode()
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        address = f"{self._url}/chat/completions"
        request = urllib.request.Request(address, body, headers)  # http(s), checked
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as reply:
                raw = reply.read(_MAX_REPLY_BYTES)
        except urllib.error.HTTPError as error:
            raise PlanError(
                f"{address} answered {error.code}: {error.read(300).decode(errors='replace')}"
            ) from error
        except OSError as error:
            raise PlanError(f"{address} cannot be reached: {error}. Is the endpoint running?") from error
        try:
            return str(json.loads(raw)["choices"][0]["message"]["content"])
        except (ValueError, LookupError, TypeError) as error:
            raise PlanError(f"{address} gave no chat completion: {raw[:200]!r}.") from error


class LocalChat:
    """A causal language model of transformers in a folder, with its tokenizer's chat template if it has one.

    Args:
        folder: as ``save_pretrained`` writes it.
        max_tokens: of an answer.
    """

    def __init__(self, folder: Path, *, max_tokens: int = 256) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not (folder / "config.json").is_file():
            raise ConfigError(f"No language model in {folder}: it has no config.json.")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
        self._max_tokens = max_tokens

    def answer(self, task: str, said: str, image: np.ndarray | None = None) -> str:
        if image is not None:
            raise PlanError("A local language model sees no pictures: judge with openai:MODEL@URL.")
        messages = [{"role": "system", "content": task}, {"role": "user", "content": said}]
        if self._tokenizer.chat_template:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        else:
            text = f"{task}\n\n{said}\n\n"
        tokens = self._tokenizer(text, return_tensors="pt")
        out = self._model.generate(**tokens, max_new_tokens=self._max_tokens, do_sample=False)
        return str(self._tokenizer.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))


class LanguagePlanner:
    """Asks a language model, and refuses what is no list of sentences.

    Args:
        chat: who answers.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def plan(self, text: str, scene: Scene) -> tuple[str, ...]:
        lines = [f"The person says: {text}"]
        if scene.things:
            lines.append(f"On the table: {', '.join(scene.things)}.")
        if scene.sentences:
            known = "; ".join(scene.sentences[:MAX_STEPS])
            lines.append(f"The arm understands sentences such as: {known}.")
        said, reason = "\n".join(lines), ""
        for _ in range(1 + RETRIES):
            reply = self._chat.answer(_TASK, f"{said}\n{reason}".rstrip())
            try:
                return read_plan(reply)
            except PlanError as error:
                reason = f"Your last answer was refused: {error}"
        raise PlanError(f"The language model gave no plan for {text!r}. {reason}")


def read_plan(reply: str) -> tuple[str, ...]:
    """The JSON list of sentences in an answer, whatever stands around it."""
    found = re.search(r"\[.*\]", reply, re.S)
    try:
        steps = json.loads(found[0]) if found else None
    except ValueError:
        steps = None
    if not isinstance(steps, list) or not all(isinstance(step, str) and step.strip() for step in steps):
        raise PlanError(f"{reply[:200]!r} holds no JSON list of sentences.")
    if not 1 <= len(steps) <= MAX_STEPS or max(map(len, steps)) > MAX_LETTERS:
        raise PlanError(
            f"{len(steps)} sentences: expected 1 to {MAX_STEPS} of at most {MAX_LETTERS} letters."
        )
    return tuple(" ".join(step.split()) for step in steps)


def _png_url(image: np.ndarray) -> str:
    _, png = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return f"data:image/png;base64,{base64.b64encode(png.tobytes()).decode()}"
