"""A run says which texts the chat template could not show in a system turn."""

from pathlib import Path

import pytest
import tiny_models as tiny

from harness.comparison.prompt_notes import prompt_notes
from harness.config.parse import configure
from harness.prepare.prepare import prepare

TASKS = """
from harness import Generate, Task, exact_match, task

@task
def told() -> Task:
    return Task([{"q": "1+1?"}], lambda row: Generate(row["q"], "2"), [exact_match], description="Add.")

@task
def bare() -> Task:
    return Task([{"q": "1+1?"}], lambda row: Generate(row["q"], "2"), [exact_match])

@task
def turns() -> Task:
    system = {"role": "system", "content": "Add."}
    return Task(
        [{"q": "1+1?"}], lambda row: Generate([system, {"role": "user", "content": row["q"]}], "2"), [exact_match]
    )
"""
GEMMA = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}"
CHATML = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "variant", "tasks", "expected"),
    [
        (GEMMA, "base", ["told", "bare"], "the description of ./x.py@told"),
        (GEMMA, "base:system=S", ["bare"], "the system prompt"),
        (GEMMA, "base:system=S", ["told"], "the system prompt and the description of ./x.py@told"),
        (GEMMA, "base", ["turns"], "the system turn of ./x.py@turns"),
        (GEMMA, "base", ["bare"], None),
        (GEMMA, "base:template=none", ["told"], None),
        (CHATML, "base", ["told"], None),
    ],
)
def test_moved_texts_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, variant: str, tasks: list[str], expected: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(TASKS)
    tiny.tiny_tokenizer().save_pretrained("model")
    for name, content in {"config.json": "{}", "chat_template.jinja": template}.items():
        (Path("model") / name).write_text(content)
    Path("model/model.safetensors").touch()
    config = configure(
        (variant,), model="./model", tasks=[f"./x.py@{name}" for name in tasks], apply_chat_template=True
    )
    prepared = prepare(config)
    notes = prompt_notes(prepared, prepared.variants)
    start = "the chat template has no system turn: the first user turn begins with "
    assert notes == ([] if expected is None else [start + expected])
