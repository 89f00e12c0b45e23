"""Hostile inputs for every reader, made by random edits of good ones, and what each reader may do with them: a `UserError`, or work.

A case is bytes. `TARGETS` has one function for each kind of input; it works in a folder of its own and raises what it finds.
Cases that failed once are kept in `tests/faults/corpus` and are tried in every run of the suite.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from example_run import example_run
from rich.console import Console
from tiny_models import save_random_lora, save_tiny, tiny_base

from harness.config.gates import parse_gate
from harness.config.mixes import parse_mix
from harness.config.parse import configure
from harness.config.variants import parse_variant
from harness.data.files import FORMATS, File
from harness.errors import UserError, is_out_of_memory
from harness.leaderboards.files import FORMATS as REPORTS
from harness.models.artifacts import load_adapter
from harness.models.load import load_base
from harness.prepare.train_data import train_data
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import Prompting
from harness.registry.recorded import recorded_method
from harness.registry.task_spec import parse_task
from harness.report.screen import print_run
from harness.runs.document import read_document
from harness.runs.reuse import find_trained
from harness.settings import STAGES, TrainSettings
from harness.worker.fit import _learned_tokens

CORPUS = Path(__file__).parents[1] / "faults" / "corpus"
CASE_SECONDS = 20
MEMORY_BYTES = 2 << 30
"""What one case may take besides what the process has."""

Target = Callable[[bytes, Path], None]


class Hangs(Exception):
    """A case took too long."""


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Ends a block that takes too long, and limits its memory."""

    def stop(*_: object) -> None:
        raise Hangs(f"more than {CASE_SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY_BYTES, before[1]))
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(CASE_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def fails(target: Target, case: bytes, folder: Path) -> str | None:
    """How a reader fails on a case; None if it reads it, refuses it with a `UserError`, or runs out of memory."""
    try:
        with limited():
            target(case, folder)
    except UserError as error:
        return None if error.message.strip() else "a UserError without words"
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/harness/" in frame.filename]
        where = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return None if is_out_of_memory(error) else f"{type(error).__name__}{where}: {str(error)[:300]}"
    return None


# The readers


def _words(case: bytes) -> str:
    return case.decode("utf-8", "surrogateescape")  # as Python decodes arguments


def read_spec(case: bytes, folder: Path) -> None:
    """A variant, a task, a mix and a gate, as typed; the canonical form of a variant reads back."""
    text, refused = _words(case), None
    for read in (parse_task, parse_mix, lambda text: parse_gate(text, ["base", "lora"], ["gsm8k", "a.b"])):
        try:
            read(text)
        except UserError as error:
            refused = error
    canonical = parse_variant(text).canonical
    again = parse_variant(canonical).canonical
    assert again == canonical, f"{canonical!r} reads back as {again!r}"
    if refused:
        raise refused


def read_yaml(case: bytes, folder: Path) -> None:
    """A `compare.yaml`."""
    path = folder / "compare.yaml"
    path.write_bytes(case)
    configure(file=path)


def read_rows(case: bytes, folder: Path) -> None:
    """A file of rows, in every format, as training data of every stage; the first byte chooses."""
    stage = list(STAGES)[case[0] % len(STAGES)] if case else "sft"
    for suffix in FORMATS:
        path = folder / f"rows{suffix}"
        path.write_bytes(case[1:])
        with contextlib.suppress(UserError):
            list(File(path).load())
            given = TrainSettings(data=str(path), stage=stage, turns="all" if case[0] % 2 else "last")
            template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", {})
            train_data(str(path), [], given, Prompting(template=template if case[0] % 3 else None), template)


def read_run(case: bytes, folder: Path) -> None:
    """A `run.json`, read and shown in every form."""
    path = folder / "run.json"
    path.write_bytes(case)
    run = read_document(path)
    print_run(run, console=Console(file=io.StringIO(), width=100))
    for render in REPORTS.values():
        render([run])


def read_adapter(case: bytes, folder: Path) -> None:
    """The settings of an adapter, and what a method and a training run record."""
    made = folder / "runs" / "run" / "adapters" / "made"
    if not (folder / "base").is_dir():
        save_tiny(folder / "base", hidden=16, layers=1)
        save_random_lora(folder / "adapter", tiny_base(folder / "base"))
        made.mkdir(parents=True)
        (made / "delta.safetensors").write_bytes(b"")
    (made / "trained.json").write_bytes(case)
    find_trained(folder / "runs", "key")
    (made / "method.json").write_bytes(case)
    with contextlib.suppress(UserError):
        recorded_method(made)
    (folder / "adapter" / "adapter_config.json").write_bytes(case)
    _learned_tokens(folder / "adapter")
    load_adapter(load_base(tiny_base(folder / "base")), folder / "adapter")


def read_template(case: bytes, folder: Path) -> None:
    """A chat template."""
    template = ChatTemplate(_words(case), {"bos_token": "<s>", "eos_token": "</s>"}, thought=("<think>", "</think>"))
    str((template.thought_state, template.variables, template.has_system_turn))
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    for tail in ([], [{"role": "assistant", "content": "so"}]):
        with contextlib.suppress(UserError):
            template.render([*messages, *tail], add_generation_prompt=not tail)
    with contextlib.suppress(UserError):
        template.for_choices.render(messages)
    template.render([messages[1], {"role": "assistant", "content": "begun"}])


TARGETS: dict[str, Target] = {
    "spec": read_spec,
    "yaml": read_yaml,
    "rows": read_rows,
    "run": read_run,
    "adapter": read_adapter,
    "template": read_template,
}


# Good inputs


def _json(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


def _tables() -> list[bytes]:
    """Parquet and Arrow files with the columns of training data."""
    days = pyarrow.array([1, 2], pyarrow.timestamp("s"))
    table = pyarrow.table({"prompt": ["1 + 1 =", "2"], "completion": [" 2", None], "label": [1, 0], "day": days})
    features = {"label": {"_type": "ClassLabel", "names": ["bad", "good"]}, "prompt": {"_type": "Value"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(table, parquet)
    with pyarrow.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    return [parquet.getvalue(), arrow.getvalue()]


def seeds(target: str) -> list[bytes]:
    """Good inputs of a reader."""
    if target == "spec":
        return [
            b"base",
            b"base:shots=5",
            b"mine=lora:rank=8,alpha=16,lr=1e-3@merged@4bit",
            b"qlora@merged",
            b"peft:type=VERA,r=256",
            b"lora:target_modules=q_proj+v_proj,data=gsm8k*3 + rows.jsonl",
            b"lora:stage=grpo,reward=reward.py@short,generations=4,temperature=0.7",
            b"./x.py@rslora:rank=8@4bit",
            b"owner/adapter@rev@4bit",
            b"full:schedule=staged,rates=1+0.1,warmup=0.1,validation=0.1,monitor=loss",
            b"base:system='a,b=c',think=64,template=chatml",
            b"mmlu:anatomy+virology",
            b"lora.gsm8k < 0.9 * base.gsm8k - 0.01",
            b"hub:owner/name:config:split",
        ]
    if target == "yaml":
        return [
            b"model: tiny\ntasks: [mini_mmlu, mini_gsm8k]\nlimit: 20\nvariants:\n  base:\n  mine: {method: lora, rank: 8}\n",
            b"seed: 1\ntrain:\n  lr: 1e-5\n  steps: 5\n  columns: {prompt: question}\nvariants:\n  a: lora:rank=2@4bit\n"
            b"  b: {adapter: ./x, shots: 2}\n",
            b"base: &a {method: lora}\nvariants: {x: *a, y: *a}\nfail_if: ['x.mini_mmlu < y.mini_mmlu']\nbaseline: x\n",
            b"device: cpu\ndtype: float32\nnumerics: lm-eval\nengine: plain\nnum_fewshot: 2\nseeds: 3\ntune_lr: 3\nno_timing: true\n",
        ]
    if target == "rows":
        rows: list[dict[str, Any]] = [
            {"prompt": "1 + 1 =", "completion": " 2"},
            {"text": "a page"},
            {"prompt": "q", "chosen": "good", "rejected": "bad"},
            {"prompt": "q", "completion": "a", "label": True},
            {"instruction": "add", "input": "1 1", "output": "2", "system": "be brief"},
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "so"}]},
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "so"}]},
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
                    },
                    {"role": "tool", "content": "3"},
                    {"role": "assistant", "content": "three"},
                ],
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            },
            {"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": []},
        ]
        lines = [b"\n".join(_json(row, row)) for row in rows]
        delimited = [b'prompt,completion\n1 + 1 =,2\n"a\nb","c""d"\n', b"text\tlabel\na\t1\nb\t0\n", b"plain\ntext\n"]
        return [bytes([index]) + each for index, each in enumerate([*lines, *_json(rows), *delimited, *_tables()])]
    if target == "run":
        return [
            example_run("base", "lora", tasks=2).to_json().encode(),
            example_run("base", "lora", "qlora", "full", tasks=3, fail="qlora").to_json().encode(),
        ]
    if target == "adapter":
        lora = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "bias": "none"}
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        full = {
            **lora,
            "target_modules": targets,
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {},
            "lora_dropout": 0.0,
        }
        record = {"train_key": "key", "trained": {"steps": 2, "train_seconds": 1.0}}
        return _json(
            {**full, "rank_pattern": {}, "base_model_name_or_path": "x", "inference_mode": True},
            full,
            {**lora, "target_modules": "all-linear", "use_dora": True, "modules_to_save": ["lm_head"]},
            {"peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 4, "token_dim": 16},
            {"peft_type": "ADALORA", "task_type": "CAUSAL_LM", "target_modules": targets, "total_step": 5, "init_r": 4},
            {
                "peft_type": "IA3",
                "task_type": "CAUSAL_LM",
                "target_modules": targets,
                "feedforward_modules": ["up_proj"],
            },
            {"method": "lora", "hyperparameters": {"rank": 8}},
            {"method": "bitfit", "hyperparameters": {}},
            record,
        )
    return [
        b"{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
        b"{% if add_generation_prompt %}<|assistant|>{% endif %}",
        b"{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        b"{% for m in messages %}[INST] {{ m['content'] | trim }} [/INST]{% endfor %}",
        b"{% macro say(m) -%}{{ m.role + ': ' ~ m.content }}{%- endmacro %}{% set ns = namespace(n=0) %}"
        b"{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ say(m) }}{{ '\\n' if not loop.last }}{% endfor %}"
        b"{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}",
        b"{% for m in messages if m.role != 'tool' %}{{ m | tojson(indent=2) }}{{ strftime_now('%d') }}{% endfor %}",
    ]


# Random edits

_PIECES: dict[str, Sequence[bytes]] = {
    "spec": [
        b":",
        b"=",
        b",",
        b"@",
        b"+",
        b"*",
        b"'",
        b'"',
        b"\\",
        b"..",
        b"/",
        b"~",
        b"@4bit",
        b"@merged",
        b"lr=",
        b"rank=",
    ],
    "yaml": [
        b": ",
        b"\n  ",
        b"- ",
        b"*a",
        b"&a ",
        b"!!python/object:os.system ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"? ",
        b"| ",
        b"<<: ",
    ],
    "rows": [
        b'"',
        b"\n",
        b",",
        b"\t",
        b"\r",
        b"{",
        b"[",
        b"null",
        b'"messages"',
        b'"label"',
        b"\\ud83d",
        b"\xef\xbb\xbf",
    ],
    "template": [
        b"{{",
        b"}}",
        b"{%",
        b"%}",
        b"{#",
        b"| ",
        b"loop",
        b"self",
        b"namespace()",
        b".__class__",
        b"range(9**9)",
    ],
}
_NASTY = [
    *(b"\0", b"\xff", b"\xed\xa0\x80", "\u202e".encode(), "é\u0301🙂".encode(), b"-1", b"1e999", b"NaN", b"9" * 5000),
    *(b"0", b"-0", b"1_000", b" ", b"true", b"null", b"../../etc/passwd", b"/dev/null", b"%s", b"{}", b"[" * 200),
]
_VALUES: list[Any] = [
    *(None, True, 0, -1, 1, 10**30, -(10**30), 0.5, float("nan"), float("inf"), "", "x", "0", "\x1b[31m", "\u202e"),
    *([], {}, [None], [[]], {"": None}, {"a": {"b": {}}}, "é" * 300, "../x", "a.b.c", "[", "(a+)+$", [1, "a", None]),
]


def cases(target: str, chance: random.Random) -> Iterator[bytes]:
    """Endless random cases of a reader."""
    good, pieces = seeds(target), [*_PIECES.get(target, ()), *_NASTY]
    structured = target in ("run", "adapter")
    while True:
        case = chance.choice(good)
        if structured and chance.random() < 0.9:
            yield _changed_json(case, chance)
            continue
        first, case = (case[:1], case[1:]) if target == "rows" else (b"", case)
        if target == "rows" and chance.random() < 0.5 and case[:1] in b"{[":
            case = b"\n".join(_changed_json(line, chance) for line in case.split(b"\n") if line)
        for _ in range(chance.choice([1, 1, 2, 3, 8])):
            case = _edited(case, chance, pieces, good)
        yield (first and bytes([chance.randrange(42)])) + case


def _edited(case: bytes, chance: random.Random, pieces: Sequence[bytes], good: Sequence[bytes]) -> bytes:
    start = chance.randrange(len(case) + 1)
    end = min(len(case), start + chance.choice([0, 1, 1, 2, 5, 20]))
    middle = chance.choice(
        [
            b"",
            chance.choice(pieces),
            bytes([chance.randrange(256)]),
            case[start:end] * chance.choice([2, 3, 50]),
            case[end : end + 20],
            chance.choice(good)[: chance.randrange(1, 60)],
        ]
    )
    return case[: max(start, len(case) // 9)] if chance.random() < 0.02 else case[:start] + middle + case[end:]


def _changed_json(case: bytes, chance: random.Random) -> bytes:
    """A JSON text with some values, keys or entries replaced, removed or repeated."""
    try:
        document = json.loads(case)
    except ValueError:
        return case
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        holders = list(_holders(document))
        if not holders:
            break
        holder = chance.choice(holders)
        place = chance.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        what = chance.randrange(5)
        if what == 0:
            del holder[place]
        elif what == 1 and isinstance(holder, dict):
            holder[chance.choice(["", "evil", "name", "r", "\x00", "type"])] = holder.pop(place)
        elif what == 2 and isinstance(holder, list):
            holder.append(holder[place])
        elif what == 3:
            holder[place] = [holder[place]]
        else:
            other = chance.choice(holders)
            own = [other[key] for key in other] if isinstance(other, dict) else other
            holder[place] = chance.choice([*_VALUES, *(each for each in own if not isinstance(each, dict | list))])
    return json.dumps(document).encode()


def _holders(value: Any) -> Iterator[Any]:
    """The objects and lists of a document that have entries."""
    if isinstance(value, dict | list) and value:
        yield value
        for each in value.values() if isinstance(value, dict) else value:
            yield from _holders(each)


def quiet() -> None:
    """Has libraries say nothing about hostile inputs."""
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
