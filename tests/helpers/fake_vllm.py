"""A vLLM without vLLM: an "interpreter" that describes one, and serves a model's own greedy texts, as vLLM's server does.

`fake_vllm` writes a program for `HARNESS_VLLM` and the answers that it gives. Run by `harness.serving.vllm_server`, this file is
that program: standard library alone, so that it starts in a tenth of a second. It refuses what vLLM 0.32 refuses.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DESCRIPTION = {
    "found": True,
    "vllm": "0.32.0",
    "for_cpu": True,
    "torch": "2.13.0+cpu",
    "transformers": "5.19.0",
    "architectures": ["LlamaForCausalLM", "Qwen3ForCausalLM", "GPT2LMHeadModel"],
}


def fake_vllm(folder: Path, answers: dict[str, Any] | None = None, **behaviour: Any) -> Path:
    """Writes the program.

    Args:
        folder: Receives the program, its answers and its record.
        answers: By folder of a model or adapter: by prompt, ids with commas: `ids`, `logprobs` and `pieces` of its greedy text.
        **behaviour: `description`: another one; `fails`: text with which it ends at once; `taken`: number of starts at which it
            finds the port taken; `dies_after`: texts that it answers before it dies; `shifts`: log-probabilities that are wrong;
            `silent`: it never listens.
    """
    folder.mkdir(exist_ok=True)
    folder = folder.absolute()
    folder.mkdir(exist_ok=True)
    (folder / "fake.json").write_text(json.dumps({"answers": answers or {}, **behaviour}))
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{Path(__file__).absolute()}" "{folder}" "$@"\n')
    program.chmod(0o755)
    return program


def answers_of(model: Any, tokenizer: Any, prompts: Iterable[tuple[int, ...]], tokens: int) -> dict[str, Any]:
    """The model's greedy continuations of some prompts, which no end token ends."""
    import torch

    from harness.engine.oracle import forward

    found = {}
    with torch.inference_mode():
        for prompt in set(prompts):
            ids: list[int] = []
            values = []
            for _ in range(tokens):
                row = forward(model, [*prompt, *ids])[-1].float().log_softmax(-1)
                ids.append(int(row.argmax()))
                values.append(float(row[ids[-1]]))
            pieces = [tokenizer.decode([id]) for id in ids]
            found[",".join(map(str, prompt))] = {"ids": ids, "logprobs": values, "pieces": pieces}
    return found


def starts(folder: Path) -> list[dict[str, Any]]:
    """The command line and the variables of each start."""
    record = folder / "starts.jsonl"
    return [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []


def asked(folder: Path) -> list[dict[str, Any]]:
    """The bodies of all requests."""
    record = folder / "asked.jsonl"
    return [json.loads(line) for line in record.read_text().splitlines()] if record.is_file() else []


def _serve(folder: Path, options: list[str], fake: dict[str, Any]) -> None:
    engine = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    )  # outlives a killed front end
    record = {"options": options, "variables": dict(os.environ), "processes": [os.getpid(), engine.pid]}
    record["blocked"] = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    with (folder / "starts.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    if fake.get("fails"):
        engine.kill()
        sys.exit(f"INFO begins\nValueError: {fake['fails']}\nINFO ends")
    if fake.get("taken", 0) >= len(starts(folder)):
        engine.kill()
        sys.exit("OSError: [Errno 98] Address already in use")
    if fake.get("silent"):
        threading.Event().wait()
    lock, served = threading.Lock(), [0]

    def option(name: str) -> str:
        return options[options.index(f"--{name}") + 1]

    names = {option("served-model-name"): option("model")}
    if "--lora-modules" in options:
        given = options[options.index("--lora-modules") + 1 :]
        plain = [each for each in given if "=" in each and "," not in each]  # as vLLM tells them apart
        names |= dict(each.split("=", 1) for each in plain)
        names |= {each["name"]: each["path"] for each in map(json.loads, set(given) - set(plain))}
    most_stops = int(os.environ.get("VLLM_MAX_STOP_STRINGS", "4"))

    def answer(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        prompt, limit, stop = body["prompt"], body["max_tokens"], body.get("stop") or []
        if body["model"] not in names:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        if len(stop) > most_stops:
            return 400, {"error": {"message": f"List should have at most {most_stops} items after validation"}}
        room = int(option("max-model-len")) - len(prompt)
        if room <= 0:
            return 400, {"error": {"message": "maximum context length is exceeded"}}
        found = fake["answers"][names[body["model"]]][",".join(map(str, prompt))]
        ids: list[int] = []
        finish, text = "length", ""
        for id, piece in zip(found["ids"][: min(limit, room)], found["pieces"], strict=False):
            ids.append(id)
            text += piece
            if id in body.get("stop_token_ids", ()) or any(each in text for each in stop):
                finish = "stop"
                break
        values = [value + fake.get("shifts", 0.0) for value in found["logprobs"][: len(ids)]]
        choice = {"text": text, "finish_reason": finish, "token_ids": ids}
        choice |= {"logprobs": {"token_logprobs": values}} if body.get("logprobs") is not None else {}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(ids)}}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": name} for name in names]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.headers.get("Authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
                self._send(401, {"error": "Unauthorized"})
                return
            with lock:
                served[0] += "logprobs" not in body
                with (folder / "asked.jsonl").open("a") as file:
                    file.write(json.dumps(body) + "\n")
                if served[0] > fake.get("dies_after", 1 << 30):
                    print("RuntimeError: EngineCore failed", flush=True)
                    os._exit(1)
            self._send(*answer(body))

        def _send(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    ThreadingHTTPServer(("127.0.0.1", int(option("port"))), Handler).serve_forever()


def main() -> None:
    folder, kind, what, *options = sys.argv[1:]
    fake = json.loads((Path(folder) / "fake.json").read_text())
    if kind == "-c":
        assert "find_spec" in what
        print(json.dumps(fake.get("description", DESCRIPTION)))
    else:
        assert (kind, what) == ("-m", "vllm.entrypoints.openai.api_server")
        _serve(Path(folder), options, fake)


if __name__ == "__main__":
    main()
