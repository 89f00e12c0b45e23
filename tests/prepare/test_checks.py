"""The needs of each stage are checked before training; preferences are a task, and a win rate is counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import Choose, Generate, Output, UserError
from harness.config.parse import configure
from harness.jobs import HEAD_FILE
from harness.prepare.prepare import prepare
from harness.prepare.tasks import scored_task
from harness.prompts.render import render
from harness.registry.find import find
from harness.registry.load import load_task
from harness.stats.observations import Observations
from harness.stats.paired import paired, win_rate

PAIRS = [{"prompt": f"Question {n}?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(4)]
PIPELINE = (
    "base",
    "sft=lora:data=plain.jsonl",
    "dpo=lora:stage=dpo,start=sft,data=pairs.jsonl",
    "rm=lora:stage=reward,start=sft,data=pairs.jsonl",
    "rl=lora:stage=grpo,start=sft,reward=rm,data=prompts.jsonl",
)


def put(path: str, *rows: dict[str, Any]) -> None:
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    put("pairs.jsonl", *PAIRS)
    put("same.jsonl", *({**row, "rejected": row["chosen"]} for row in PAIRS))
    put("plain.jsonl", *({"prompt": row["prompt"], "completion": row["chosen"]} for row in PAIRS))
    put("prompts.jsonl", *({"prompt": row["prompt"]} for row in PAIRS))
    Path("rewards.py").write_text("def length(prompts, completions, references):\n    return [1.0 for _ in prompts]\n")
    Path("torn.py").write_text("def length(:\n")
    return tmp_path


def checked(*variants: str, tasks: str = "preference", scores: bool = True) -> Any:
    own: dict[str, Any] = {"task_parameters": {"data": "pairs.jsonl"}} if tasks == "preference" else {}
    return prepare(configure(variants, tasks=[tasks], **own), scores=scores)


def test_a_training_run_comes_after_the_runs_that_it_needs() -> None:
    prepared = checked(*reversed(PIPELINE))
    order = [training.settings.stage for training in prepared.trainings]
    assert sorted(order) == ["dpo", "grpo", "reward", "sft"]
    assert order.index("sft") < order.index("reward") < order.index("grpo")
    assert order.index("sft") < order.index("dpo")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (["lora:stage=dpo,data=plain.jsonl"], "`stage=dpo` learns from `chosen` and `rejected`"),
        (["lora:stage=reward,data=same.jsonl"], r"the two answers of every row of `same\.jsonl` are the same"),
        (
            ["lora:stage=dpo,data=mini_gsm8k"],
            r"learns from a better and a worse answer, but rows of `mini_gsm8k` have one",
        ),
        (["lora:stage=grpo,generations=1,data=prompts.jsonl,reward=rewards.py@length"], "`generations=1` gives one"),
        (["lora:stage=dpo,packing=true,data=pairs.jsonl"], "rows of the stage `dpo` cannot be packed"),
        (["lora:stage=grpo,data=prompts.jsonl"], "needs a reward"),
        (["lora:stage=grpo,reward=rewards.py@lenght,data=prompts.jsonl"], "`rewards.py` has no function `lenght`"),
        (["lora:stage=grpo,reward=torn.py@length,data=prompts.jsonl"], "`torn.py` is not a Python file"),
        (
            ["a=lora:data=plain.jsonl", "b=lora:stage=grpo,reward=a,data=prompts.jsonl"],
            "`reward=a` is not a reward model",
        ),
        (["lora:stage=grpo,reward=./nowhere,data=prompts.jsonl"], "nowhere"),
        (["lora:stage=dpo,start=./nowhere,data=pairs.jsonl"], "nowhere"),
        (["lora:stage=dpo,start=sft,data=pairs.jsonl"], "`start=sft` is neither a trained variant nor a folder"),
        (["lora:stage=reward,monitor=mini_mmlu,data=pairs.jsonl"], "cannot be monitored by the task `mini_mmlu`"),
        (["lora:monitor=preference,data=plain.jsonl"], "choose weights by the samples that score them"),
        (["lora:patience=2,data=plain.jsonl"], "`patience` has no effect"),
        (["lora:monitor=loss,data=plain.jsonl"], "`monitor` has no effect"),
        (["lora:temperature=0.5,data=plain.jsonl"], "`temperature` has no effect in the stage `sft`"),
        (["lora:reward=rewards.py@length,data=plain.jsonl"], "`reward` has no effect in the stage `sft`"),
        (
            ["lora:stage=reward,label_smoothing=0.1,data=pairs.jsonl"],
            "`label_smoothing` has no effect in the stage `r",
        ),
        (["lora:stage=reward,beta=0.1,data=pairs.jsonl"], "`beta` has no effect in the stage `reward`"),
    ],
)
def test_impossible_training_runs_are_refused_before_training(variants: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        checked(*variants)


def test_a_shared_setting_must_have_an_effect_in_one_of_the_stages() -> None:
    own: dict[str, Any] = {"tasks": ["preference"], "task_parameters": {"data": "pairs.jsonl"}, "train": {"beta": 0.2}}
    both = prepare(configure(["lora:data=plain.jsonl", "lora:stage=dpo,data=pairs.jsonl"], **own))
    assert both.variants[1].training is not None
    assert both.variants[1].training.settings.beta == 0.2
    with pytest.raises(UserError, match="`beta` has no effect in any of the stages: sft"):
        prepare(configure(["lora:data=plain.jsonl"], **own))


def test_a_reward_model_is_not_scored_on_generated_text(folder: Path) -> None:
    variant = "rm=lora:stage=reward,data=pairs.jsonl"
    with pytest.raises(UserError, match="variant `rm` is a reward model, which generates no text: task `mini_gsm8k`"):
        checked(variant, tasks="mini_gsm8k")
    checked(variant, tasks="mini_gsm8k", scores=False)
    checked(variant, tasks="mini_mmlu")
    (folder / "given").mkdir()
    (folder / "given" / "adapter_config.json").write_text("{}")
    checked("./given", tasks="mini_gsm8k")
    (folder / "given" / HEAD_FILE).write_text("")
    with pytest.raises(UserError, match="is a reward model"):
        checked("./given", tasks="mini_gsm8k")
    with pytest.raises(UserError, match=r"`reward=./other` is not a reward model"):
        (folder / "given").rename(folder / "other")
        (folder / "other" / HEAD_FILE).unlink()
        checked("lora:stage=grpo,reward=./other,data=prompts.jsonl")


def test_training_cannot_start_from_a_delta_of_another_method(folder: Path) -> None:
    (folder / "given").mkdir()
    (folder / "given" / "method.json").write_text('{"method": "bitfit", "hyperparameters": {}}')
    with pytest.raises(UserError, match=r"`lora` cannot start from `./given`, which `bitfit` made"):
        checked("lora:start=./given,data=plain.jsonl")


# The task


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Q?", "chosen": "yes", "rejected": "no"},
        {"instruction": "Q?", "input": "", "chosen": "yes", "rejected": "no"},
        {"conversations": [{"from": "human", "value": "Q?"}], "chosen": {"from": "gpt", "value": "yes"},
         "rejected": {"from": "gpt", "value": "no"}},
        {"chosen": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "yes"}],
         "rejected": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "no"}]},
    ],
)  # fmt: skip
def test_preferences_are_read_in_every_form(row: dict[str, Any]) -> None:
    put("forms.jsonl", row)
    task = load_task(find("task", "preference"), {"data": "forms.jsonl"})
    (item,) = render("preference", task)
    assert isinstance(item.sample, Choose)
    assert (item.request.contexts, item.request.continuations) == (("Q?",), (" no", " yes"))
    tie = Output(loglikelihoods=(-1.0, -1.0), is_greedy=(False, False), tokens=2)
    from harness import acc

    assert acc.measure(tie, item.sample) == 0.0


def test_a_conversation_stays_one_and_a_row_without_a_pair_is_an_error() -> None:
    turns = [{"from": "human", "value": "A"}, {"from": "gpt", "value": "B"}, {"from": "human", "value": "C"}]
    put("long.jsonl", {"conversations": turns, "chosen": "yes", "rejected": "no"})
    (item,) = render("preference", load_task(find("task", "preference"), {"data": "long.jsonl"}))
    assert [turn["role"] for turn in item.sample.prompt] == ["user", "assistant", "user"]  # type: ignore[union-attr, index]
    with pytest.raises(UserError, match="has no `rejected`"):
        put("half.jsonl", {"prompt": "Q?", "chosen": "yes"})
        render("preference", load_task(find("task", "preference"), {"data": "half.jsonl"}))


def test_with_a_reward_model_answers_are_generated_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def ask(self: Any, question: Any) -> list[float]:
        asked.append(question)
        return [0.5]

    monkeypatch.setattr("harness.metrics.model_process.Helper.ask", ask)
    task = load_task(find("task", "preference"), {"data": "pairs.jsonl", "reward": "rm", "max_tokens": 8})
    item = render("preference", task)[0]
    assert isinstance(item.sample, Generate)
    (metric,) = task.metrics
    assert metric.measure(Output(texts=("yes",), tokens=8), item.sample) == 0.5  # type: ignore[union-attr]
    assert asked == [[["Question 0?"], [" yes"], [False]]]


def test_another_reward_model_in_the_same_folder_changes_the_digest(tmp_path: Path) -> None:
    (tmp_path / "rm").mkdir()

    def digest(weights: str) -> str:
        (tmp_path / "rm" / HEAD_FILE).write_text(weights)
        config = configure(["base"], tasks="preference", task_parameters={"data": "pairs.jsonl", "reward": "rm"})
        return scored_task(config.task_specs[0]).digest

    assert digest("first") == digest("first") != digest("second")
    asked = {"data": "pairs.jsonl", "reward": "no folder has such a name. " * 50}
    assert scored_task(configure(["base"], tasks="preference", task_parameters=asked).task_specs[0]).digest


@pytest.mark.parametrize(
    "line", ["from elsewhere import *", "import elsewhere as judge", "judge = print", "class judge: ..."]
)
def test_a_reward_function_may_be_defined_or_imported(line: str) -> None:
    Path("any.py").write_text(line)
    checked("lora:stage=grpo,reward=any.py@judge,data=prompts.jsonl")


@pytest.mark.slow  # the child imports torch
def test_a_reward_model_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    from harness import reward_by

    metric = reward_by(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"could not judge answers .* holds no reward model"):
        metric.measure(Output(texts=("yes",), tokens=1), Generate("Q?", "yes"))


# Win rates


def test_a_win_rate_counts_ties_half_and_knows_the_direction() -> None:
    a, b = Observations(np.array([1.0, 2.0, 3.0, 4.0])), Observations(np.array([1.0, 3.0, 2.0, 1.0]))

    def share(*given: Observations, **options: bool) -> float:
        found = win_rate(*given, **options)
        assert found is not None and found.value is not None and found.low is not None and found.high is not None
        assert 0 <= found.low < found.value < found.high <= 1
        return found.value

    assert share(a, b) == 0.625
    assert share(a, b, higher_is_better=False) == 0.375
    assert share(b, a) == 0.375
    good, poor = (
        Observations(np.array(rows), value=lambda sums: sums[0] / sums[1])
        for rows in ([[1.0, 2.0], [3.0, 3.0], [1.0, 9.0]], [[1.0, 3.0], [3.0, 4.0], [1.0, 8.0]])
    )
    assert share(good, poor) == pytest.approx(2 / 3), "of a corpus metric, each sample alone"
    assert win_rate(*(Observations(np.full((2, 1), n), value=lambda sums: 0.0) for n in (1.0, 2.0))) is None
    assert win_rate(*(Observations([1, 2], whole=sum) for _ in "ab")) is None


@pytest.mark.parametrize(("wins", "losses"), [(5, 0), (6, 0), (14, 4), (12, 5), (2, 9), (0, 0)])
def test_a_win_rate_of_right_and_wrong_agrees_with_the_test(wins: int, losses: int) -> None:
    a, b = (
        Observations(np.repeat([1, 0, 1], [wins, losses, 20])),
        Observations(np.repeat([0, 1, 1], [wins, losses, 20])),
    )
    for higher in (True, False):
        found, difference = win_rate(a, b, higher), paired(a, b)
        assert found is not None and difference is not None and found.low is not None and found.high is not None
        assert (difference.p < 0.05) == (not found.low <= 0.5 <= found.high)
        sign = 1 if higher else -1
        assert found.value == pytest.approx(0.5 + sign * (wins - losses) / len(a) / 2)
    assert win_rate(Observations([1.0, np.nan]), Observations([1.0, 2.0])) is None


HEADLINES = """
from harness import Generate, Metric, Task, exact_match, rougeL, task

ROWS = [{"q": f"q{n}", "a": f"Привет {n}"} for n in range(3)]
BLIND = Metric("blind", score=lambda prediction, target: 1.0)

def ask(row):
    return Generate(row["q"], row["a"], max_tokens=8)

def pay(prediction, target):
    raise AssertionError("the task's metrics run code")

@task
def blind() -> Task:
    return Task(ROWS, ask, [BLIND, exact_match])

@task
def second() -> Task:
    return Task(ROWS, ask, [rougeL, BLIND])

@task
def cut() -> Task:
    return Task(ROWS, lambda row: Generate(row["q"], row["a"], stop=("П",)), [exact_match])

@task
def code() -> Task:
    return Task(ROWS, ask, [Metric("code", score=pay)], executes_code=True)
"""


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "blind",
            "its headline `blind` gives the right answers 1.00, which is not better than 1.00 for an empty answer",
        ),
        ("cut", "its headline `exact_match` gives the right answers 0.00"),
        ("second", None),
        ("code", None),
    ],
)
def test_a_headline_for_which_a_perfect_model_is_not_best_is_refused(task: str, message: str | None) -> None:
    Path("t.py").write_text(HEADLINES)
    config = configure(["base"], tasks=[f"./t.py@{task}"], confirm_run_unsafe_code=True)
    if message is None:
        prepare(config)
        return
    prepare(config, scores=False)
    with pytest.raises(UserError, match=message) as error:
        prepare(config)
    assert f"`harness check ./t.py@{task}`" in str(error.value.hint)


def test_bleu_of_texts_without_spaces_is_told_which_tokens_to_use() -> None:
    Path("t.py").write_text(
        "from harness import Generate, Task, bleu, task\n"
        "@task\n"
        "def zh() -> Task:\n"
        "    return Task([{'q': 'Beijing'}], lambda row: Generate(row['q'], '我爱北京天安门'), [bleu])\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match=r"`bleu` gives the right answers 0\.00") as error:
        prepare(configure(["base"], tasks=["./t.py"]))
    assert "`bleu_char`" in str(error.value.hint)


def test_more_choices_than_letters_are_refused_before_anything_runs() -> None:
    Path("t.py").write_text(
        "from harness import Generate, Task, choice_letter, exact_match, task\n"
        "def ask(row):\n"
        "    return Generate(row['q'], '(A)', meta={'choices': [str(n) for n in range(row['n'])]})\n"
        "@task\n"
        "def many() -> Task:\n"
        "    rows = [{'q': 'a', 'n': 26}, {'q': 'b', 'n': 27}]\n"
        "    return Task(rows, ask, [exact_match, choice_letter])\n"
    )
    with pytest.raises(UserError, match=r"task `./t\.py`, sample 1: .* letters for 26 choices, and a sample has 27"):
        prepare(configure(["base"], tasks=["./t.py"]))
