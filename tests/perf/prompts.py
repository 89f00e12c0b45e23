"""Writes the questions for both sides, as text: real rows of the Hub's MMLU, GSM8K and WikiText.

python prompts.py FOLDER '{"mmlu": {"kind": "mmlu", "count": 10, "tokenizer": "FOLDER/s8k"}, …}'
"""

import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from harness import acc
from harness.api import Choose, Generate, Row, Task
from harness.data.sources import hub, rows
from harness.jobs import Request
from harness.prompts.render import Prompting, render
from harness.tasks.gsm8k import gsm8k
from harness.tasks.mmlu import mmlu

SUBJECTS = ("abstract_algebra", "college_medicine", "computer_security", "human_aging")
"""Subjects with at least a hundred questions each, from short to long ones."""
WINDOW = 1024
LONGEST = 256
CONTEXT = 2048


def letters(count: int, tokenizer: Any, shots: int = 5) -> list[Request]:
    """MMLU, 5-shot: `count` questions of each of the four subjects."""
    items = render("mmlu", mmlu(), Prompting(shots=shots), groups=SUBJECTS, limit=count * len(SUBJECTS))
    return [item.request for item in items]


def endings(count: int, tokenizer: Any, shots: int = 0) -> list[Request]:
    """Questions of HellaSwag's shape: about 65 tokens and four endings of about 28, made of sentences from GSM8K."""
    made = list(_stories(count + shots, tokenizer))
    task = Task(data=made[shots:], shots=shots, shots_from=made[:shots], sample=_story, metrics=[acc])
    return [item.request for item in render("stories", task)]


def texts(count: int, tokenizer: Any, shared: bool = False) -> list[Request]:
    """GSM8K, greedy, 8 examples: each text ends after as many tokens as its true answer has.

    The examples of each question are those that the task draws, as lm-evaluation-harness does; with `shared`, those of
    `--shared-shots`, the same for all.
    """
    made = []
    for item in render("gsm8k", gsm8k(), Prompting(shots=8, shared_shots=shared), limit=2 * count):
        assert isinstance(item.sample, Generate)
        answer = tokenizer(f" {item.sample.target}")["input_ids"]
        prompt = tokenizer(item.request.contexts[0])["input_ids"]
        if len(prompt) + LONGEST <= CONTEXT:  # each side would cut a longer prompt to its own limit
            made.append(replace(item.request, max_tokens=min(LONGEST, len(answer))))
    return made[:count]


def pages(count: int, tokenizer: Any) -> list[Request]:
    """Pages of WikiText with 200 to 2,000 words, in windows of 1,024 tokens."""
    found = [page for page in _pages() if 200 <= len(page.split()) <= 2000]
    return [Request(str(number), "text", ("",), (page,)) for number, page in enumerate(found[:count])]


def long_rows(count: int, tokenizer: Any) -> list[Request]:
    """Rows of 1,024 tokens that share nothing, with four letters as choices."""
    ids = tokenizer("\n".join(_pages()))["input_ids"]
    cut = [tokenizer.decode(ids[at * WINDOW : (at + 1) * WINDOW - 2]).rstrip() for at in range(count)]
    return [Request(str(n), "choose", (text,), (" A", " B", " C", " D")) for n, text in enumerate(cut)]


def sums(count: int, tokenizer: Any) -> list[Request]:
    """Short questions after one long prefix, to measure the cost of a question itself."""
    draw = random.Random(0)

    def line(number: int) -> str:
        return f"Question {number}: what is {draw.randrange(1000)} + {draw.randrange(1000)}?\nAnswer:"

    prefix = "".join(f"{line(number)} A\n\n" for number in range(5))
    return [Request(str(n), "choose", (prefix + line(n + 5),), (" A", " B", " C", " D")) for n in range(count)]


KINDS: dict[str, Callable[..., list[Request]]] = {
    "mmlu": letters,
    "hellaswag": endings,
    "gsm8k-own": texts,
    "gsm8k-shared": partial(texts, shared=True),
    "wikitext": pages,
    "memory": long_rows,
    "growth": sums,
}


def _story(row: Row) -> Choose:
    return Choose(row["context"], row["endings"], row["answer"])


def _stories(count: int, tokenizer: Any) -> Iterator[Row]:
    draw = random.Random(0)
    sentences = []
    for row in rows(hub("openai/gsm8k", "main", split="train")):
        found = re.split(r"(?<=[.?!])\s+", row["question"])
        sizes = [len(ids) for ids in tokenizer(found)["input_ids"]]
        sentences += [s for s, size in zip(found, sizes, strict=True) if 18 <= size <= 60]
        if len(sentences) > 8 * count + 100:
            break
    at = 0
    for number in range(count):
        context = sentences[at]
        while len(tokenizer(context)["input_ids"]) < 52:
            at += 1
            context += " " + sentences[at]
        right = number % 4
        ends = [draw.choice(sentences) for _ in range(4)]
        ends[right] = sentences[at + 1]
        at += 2
        yield {"context": context, "endings": ends, "answer": right}


def _pages() -> Iterator[str]:
    data = hub("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", split="test")
    return (row["page"] for row in rows(data))


def _write_lora_tasks(folder: Path, count: int) -> None:
    """Writes the same four subjects as tasks of both sides, for whole processes."""
    dev, test = (rows(hub("cais/mmlu", "all", split=split)) for split in ("dev", "test"))
    folder.mkdir(parents=True, exist_ok=True)
    source = [_HARNESS_TASKS]
    for subject in SUBJECTS:
        for split, data, most in (("dev", dev, 5), ("test", test, count)):
            chosen = [dict(row) for row in data if row["subject"] == subject][:most]
            lines = "".join(json.dumps(row) + "\n" for row in chosen)
            (folder / f"{subject}.{split}.jsonl").write_text(lines, encoding="utf-8")
        (folder / f"{subject}.yaml").write_text(_PEER_TASK.format(subject=subject, folder=folder), encoding="utf-8")
        source.append(f"@task\ndef {subject}() -> Task:\n    return _subject({subject!r})\n")
    (folder / "subjects.py").write_text("\n\n".join(source), encoding="utf-8")


_HARNESS_TASKS = '''"""Four subjects of MMLU."""
from pathlib import Path
from harness import Choose, Task, acc, task

HERE = Path(__file__).parent

def _question(row):
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
    return Choose("\\n".join([row["question"].strip(), *lines, "Answer:"]), "ABCD", row["answer"])

def _subject(name):
    return Task(data=HERE / f"{name}.test.jsonl", shots=5, shots_from=HERE / f"{name}.dev.jsonl",
                description=f"About {name}.\\n\\n", sample=_question, metrics=[acc])
'''
_PEER_TASK = """task: {subject}
dataset_path: json
dataset_kwargs:
  data_files:
    dev: {folder}/{subject}.dev.jsonl
    test: {folder}/{subject}.test.jsonl
test_split: test
fewshot_split: dev
num_fewshot: 5
fewshot_config:
  sampler: first_n
output_type: multiple_choice
description: "About {subject}.\\n\\n"
doc_to_text: "{{{{question.strip()}}}}\\nA. {{{{choices[0]}}}}\\nB. {{{{choices[1]}}}}\\nC. {{{{choices[2]}}}}\\nD. {{{{choices[3]}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list:
  - metric: acc
"""

if __name__ == "__main__":
    where = Path(sys.argv[1])
    for name, row in json.loads(sys.argv[2]).items():
        if row["kind"] == "lora":
            _write_lora_tasks(where / name, row["count"])
            continue
        tokenizer = AutoTokenizer.from_pretrained(row["tokenizer"])
        options = {"shots": row["shots"]} if "shots" in row else {}
        requests = KINDS[row["kind"]](row["count"], tokenizer, **options)
        (where / f"{name}.json").write_text(json.dumps([vars(request) for request in requests]), encoding="utf-8")
