"""A run on a model whose template knows `enable_thinking`: the default is said on the screen, and is the same everywhere."""

import json
from pathlib import Path

import pytest
import tiny_models as tiny
from small_tokenizers import SWITCH, small_tokenizer

from harness.cli import main
from harness.config.parse import configure
from harness.prepare.prepare import prepare
from harness.runs.folder import load_run

TASK = """
from harness import Generate, Task, exact_match, task

ROWS = [{"q": "1 + 1?", "a": "2"}]

@task
def sums() -> Task:
    return Task(data=ROWS, train=ROWS, sample=lambda row: Generate(row["q"], row["a"], max_tokens=3), metrics=[exact_match])
"""
ASKED = "<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n"
CLOSED = "<think>\n\n</think>\n\n"


COMMAND = ["--model", "./model", "--tasks", "./x.py@sums", "--apply-chat-template", "--template-option", "style=7"]
OFF = "off=lora:rank=2,think=off"


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(TASK)
    tiny.save_tiny(Path("model"), hidden=32)
    small_tokenizer(template="{{ style | default('') }}" + SWITCH).save_pretrained("model")


@pytest.mark.slow
def test_a_run_says_what_the_default_of_a_template_is(capsys: pytest.CaptureFixture[str]) -> None:
    train = ["--steps", "1", "--train-batch-size", "1", "--lr", "0.01", "--no-timing"]
    assert main(["compare", "base", "lora=lora:rank=2", OFF, *COMMAND, *train]) == 0
    note = "base, lora: thinking follows the chat template's default: the model may begin a thought; `think=on`"
    assert note in " ".join(capsys.readouterr().out.split())
    (file,) = Path("runs").glob("*/run.json")
    run = load_run(file.parent)
    protocols = {row.name: row.scores[0].protocol for row in run.variants}
    assert [each.think for each in protocols.values()] == ["default", "default", "off"]
    assert all(each.template_options == {"style": 7} for each in protocols.values())
    assert protocols["base"].prompt_sha256 == protocols["lora"].prompt_sha256 != protocols["off"].prompt_sha256
    cards = [path.read_text() for path in file.parent.glob("adapters/*/README.md")]
    assert ["--template-option style=7 --apply-chat-template" in card for card in cards] == [True, True]


@pytest.mark.parametrize(
    ("variant", "prompt", "learned"), [("lora:rank=2", ASKED, CLOSED + "2"), (OFF, ASKED + CLOSED, "2")]
)
def test_training_learns_after_the_prompt_that_scoring_has(
    variant: str, prompt: str, learned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", variant, *COMMAND, "--preview", "1", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["prompt"], row["answer"]) == ("7" + prompt, learned + "<|im_end|>")
    made = prepare(configure([variant], model="./model", tasks=["./x.py@sums"], apply_chat_template=True))
    (item,) = made.variants[0].items["./x.py@sums"]
    assert item.request.contexts == (prompt,)


def test_a_sample_is_shown_with_the_options_of_the_template(capsys: pytest.CaptureFixture[str]) -> None:
    shown = ["show", "./x.py@sums", "--sample", "0", *COMMAND[:2], "--format", "json"]
    assert main([*shown, *COMMAND[4:]]) == 0
    assert json.loads(capsys.readouterr().out)["contexts"] == ["7" + ASKED]
    assert main([*shown, "--template-option", "style=7"]) == 2
    assert "`--template-option` needs the chat template" in capsys.readouterr().err
