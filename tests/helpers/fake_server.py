"""A small server with an OpenAI-compatible API that answers with a real model's numbers, and has the faults of real servers."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

Json = dict[str, Any]


@dataclass
class Quirks:
    """How a server differs from one that does everything right."""

    names: tuple[str, ...] = ("base",)
    any_name: bool = False
    """Answers for names that it does not list."""
    key: str | None = None
    completions: bool = True
    chat: bool = True
    ids: bool = True
    """Takes token ids as a prompt."""
    returns_ids: bool = True
    logprobs: bool = True
    """Of written tokens."""
    prompt_logprobs: bool = True
    echo: Literal["right", "shifted", "ignored"] = "right"
    letters: bool = True
    """Takes `logprob_token_ids`."""
    usage: bool = True
    keeps: int | None = None
    """Silently keeps only so many of the last tokens of a prompt."""
    context: int | None = None
    """Refuses longer prompts, and silently cuts the number of new tokens."""
    second_bos: int | None = None
    """Token that it puts before texts."""
    stops: int | None = None
    """Stop strings that it takes at most."""
    ignores_stops: bool = False
    ignores_limit: bool = False
    greedy: bool = False
    """Ignores `temperature`."""
    ignores_seed: bool = False
    version: str = "1.0"
    wrong: Literal["html", "cut", "list", "elsewhere", "engine", "no json"] | None = None
    """Answers every POST with something else."""
    seconds: float = 0.0
    """Time before each answer."""
    busy: list[tuple[int, str | None]] = field(default_factory=list)
    """Statuses and `Retry-After` of the next answers."""
    dies_after: int | None = None
    """Number of POSTs after which it closes every connection without an answer."""
    elsewhere: str = "http://127.0.0.2:9/v1/completions"


class FakeServer:
    """A server of one model.

    Args:
        folder: The model's folder; None: it answers no completions.
        quirks: Its faults.
        models: Folders of models by further names.
    """

    def __init__(self, folder: Path | None = None, quirks: Quirks | None = None, **models: Path) -> None:
        self.quirks = quirks or Quirks()
        self.asked: list[tuple[str, Json, dict[str, str]]] = []
        """Path, body and headers of every request."""
        self.at_once = self.most_at_once = 0
        self._folders = {"base": folder, **models}
        self._models: dict[str, Any] = {}
        self._tokenizer = AutoTokenizer.from_pretrained(folder) if folder else None
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # otherwise each answer waits 40 ms for an acknowledgement

            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                fake._get(self)

            def do_POST(self) -> None:
                fake._post(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def running(self) -> Iterator["FakeServer"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def posts(self) -> int:
        return sum(bool(body) for _, body, _ in self.asked)

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append((handler.path, {}, dict(handler.headers)))
        if handler.path == "/v1/models":
            listed = [{"id": name, "object": "model", "created": int(time.time())} for name in self.quirks.names]
            for each in listed:
                each |= {"max_model_len": self.quirks.context} if self.quirks.context else {}
            _send(handler, 200, {"object": "list", "data": listed})
        elif handler.path == "/version":
            _send(handler, 200, {"version": self.quirks.version})
        else:
            _send(handler, 404, {"detail": "Not Found"})

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        quirks = self.quirks
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.asked.append((handler.path, body, dict(handler.headers)))
        if quirks.dies_after is not None and self.posts() > quirks.dies_after:
            handler.close_connection = True
            handler.connection.close()
            return
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            refusal = quirks.busy.pop(0) if quirks.busy else None
        time.sleep(quirks.seconds)
        try:
            if refusal is not None:
                headers = {} if refusal[1] is None else {"Retry-After": refusal[1]}
                _send(handler, refusal[0], {"error": {"message": "too many requests"}}, headers)
            elif quirks.wrong is not None:
                self._send_wrong(handler)
            elif quirks.key and handler.headers.get("Authorization") != f"Bearer {quirks.key}":
                said = f"Incorrect API key provided: {handler.headers.get('Authorization')}"
                _send(handler, 401, {"error": {"message": said}})
            else:
                _send(handler, *self._answer(handler.path, body))
        finally:
            with self._lock:
                self.at_once -= 1

    def _send_wrong(self, handler: BaseHTTPRequestHandler) -> None:
        wrong = self.quirks.wrong
        if wrong == "html":
            _send_bytes(handler, 200, b"<!doctype html><title>Welcome</title>", "text/html")
        elif wrong == "no json":
            _send_bytes(handler, 502, b"\x1b[31mbad gateway", "text/plain")
        elif wrong == "cut":
            _send_bytes(handler, 200, b'{"choices": [{"text": " a', "application/json")
        elif wrong == "list":
            _send_bytes(handler, 200, b"[]", "application/json")
        elif wrong == "engine":
            _send(handler, 500, {"error": {"message": "EngineCore encountered an issue. See stack trace (above)"}})
        else:
            _send(handler, 307, {}, {"Location": self.quirks.elsewhere})

    def _answer(self, path: str, body: Json) -> tuple[int, Json]:
        quirks, name = self.quirks, body["model"]
        chat = path == "/v1/chat/completions"
        if not (chat and quirks.chat) and not (path == "/v1/completions" and quirks.completions):
            return 404, {"detail": "Not Found"}
        if name not in quirks.names and not quirks.any_name:
            return 404, {"error": {"message": f"The model `{name}` does not exist."}}
        if not chat and not isinstance(body["prompt"], str) and not quirks.ids:
            return 400, {"error": {"message": "prompt must be a string."}}
        stop = body.get("stop") or []
        stop = [stop] if isinstance(stop, str) else stop
        if quirks.stops is not None and len(stop) > quirks.stops:
            return 400, {"error": {"message": f"List should have at most {quirks.stops} items after validation"}}
        ids = self._prompt(body, chat)
        limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        if quirks.context is not None:
            if len(ids) >= quirks.context:
                said = (
                    f"This model's maximum context length is {quirks.context} tokens. However, you requested {len(ids)}"
                )
                return 400, {"error": {"message": said}}
            limit = min(limit, quirks.context - len(ids))
        if quirks.ignores_limit:
            limit += 5
        ids = ids[-quirks.keeps :] if quirks.keeps else ids
        with self._lock, torch.inference_mode():
            return 200, self._completions(
                self._model(name), body, ids, limit, [] if quirks.ignores_stops else stop, chat
            )

    def _prompt(self, body: Json, chat: bool) -> list[int]:
        prompt = body.get("prompt")
        if chat:
            prompt = "".join(f"{turn['role']}: {turn['content']}\n" for turn in body["messages"]) + "assistant:"
        if not isinstance(prompt, str):
            return list(prompt or [])
        ids: list[int] = self._tokenizer(prompt, add_special_tokens=True)["input_ids"]
        return ids if self.quirks.second_bos is None else [self.quirks.second_bos, *ids]

    def _model(self, name: str) -> Any:
        folder = self._folders.get(name) or self._folders["base"]
        if str(folder) not in self._models:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            self._models[str(folder)] = model
        return self._models[str(folder)]

    def _completions(self, model: Any, body: Json, ids: list[int], limit: int, stop: list[str], chat: bool) -> Json:
        choices, new = [], 0
        for number in range(int(body.get("n") or 1)):
            choice, count = self._choice(model, body, ids, limit, stop, chat, number)
            choices.append({"index": number, **choice})
            new += count
        usage = {"prompt_tokens": len(ids), "completion_tokens": new, "total_tokens": len(ids) + new}
        return {"model": body["model"], "choices": choices, **({"usage": usage} if self.quirks.usage else {})}

    def _choice(
        self, model: Any, body: Json, ids: list[int], limit: int, stop: list[str], chat: bool, number: int
    ) -> tuple[Json, int]:
        quirks, tokenizer = self.quirks, self._tokenizer
        temperature = 0.0 if quirks.greedy else float(body.get("temperature", 1.0))
        seed = time.monotonic_ns() if quirks.ignores_seed else (body.get("seed") or 0) * 1000 + number
        generator = torch.Generator().manual_seed(seed % 2**62)
        eos = model.generation_config.eos_token_id
        ends = set(eos if isinstance(eos, list) else [eos]) | set(body.get("stop_token_ids") or ())
        written: list[int] = []
        values: list[torch.Tensor] = []
        finish, text = "length", ""
        while len(written) < limit:
            logprobs = model(input_ids=torch.tensor([[*ids, *written]])).logits[0, -1].float().log_softmax(-1)
            token = int(logprobs.argmax())
            if temperature > 0:
                token = int(torch.multinomial((logprobs / temperature).softmax(-1), 1, generator=generator))
            values.append(logprobs)
            written.append(token)
            if token in ends:
                finish = "stop"
                break
            text = tokenizer.decode(written, skip_special_tokens=True)
            if found := [text.index(each) for each in stop if each in text]:
                finish, text = "stop", text[: min(found)]
                break
        choice: Json = {"finish_reason": finish}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if quirks.returns_ids and body.get("return_token_ids"):
            choice["token_ids"] = written
        if chat:
            return choice, len(written)
        if quirks.logprobs and body.get("logprobs") is not None:
            choice["logprobs"] = self._logprobs(model, body, ids, written, values)
        if quirks.prompt_logprobs and body.get("prompt_logprobs") is not None:
            prompt = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
            choice["prompt_logprobs"] = [None] + [
                {
                    str(each): {"logprob": float(row[each])}
                    for each in {id, *torch.topk(row, int(body["prompt_logprobs"])).indices.tolist()}
                }
                for row, id in zip(prompt[:-1], ids[1:], strict=True)
            ]
        if body.get("echo") and quirks.echo != "ignored":
            choice["text"] = tokenizer.decode(ids) + text
        return choice, len(written)

    def _logprobs(self, model: Any, body: Json, ids: list[int], written: list[int], values: list[torch.Tensor]) -> Json:
        quirks = self.quirks
        rows = list(values)
        tokens = list(written)
        if body.get("echo") and quirks.echo != "ignored":
            prompt = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
            shifted = 1 if quirks.echo == "shifted" else 0
            before = [prompt[min(place + shifted, len(ids) - 1)] for place in range(len(ids) - 1)]
            rows, tokens = [None, *before, *rows], [*ids, *written]  # type: ignore[list-item]
        own = [None if row is None else float(row[token]) for row, token in zip(rows, tokens, strict=True)]
        top = []
        for row, token in zip(rows, tokens, strict=True):
            if row is None:
                top.append(None)
                continue
            best = torch.topk(row, max(1, int(body["logprobs"]))).indices.tolist()
            shown = {*best, token}
            if quirks.letters and body.get("logprob_token_ids"):
                shown |= set(body["logprob_token_ids"])
            top.append(
                {
                    f"token_id:{id}" if body.get("return_tokens_as_token_ids") else self._tokenizer.decode([id]): float(
                        row[id]
                    )
                    for id in shown
                }
            )
        names = [
            f"token_id:{id}" if body.get("return_tokens_as_token_ids") else self._tokenizer.decode([id])
            for id in tokens
        ]
        return {"tokens": names, "token_logprobs": own, "top_logprobs": top}


def _send(handler: BaseHTTPRequestHandler, status: int, content: Json, headers: dict[str, str] | None = None) -> None:
    _send_bytes(handler, status, json.dumps(content).encode(), "application/json", headers)


def _send_bytes(
    handler: BaseHTTPRequestHandler, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None
) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(content)
