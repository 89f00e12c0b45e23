"""Preparation of a run: errors that need no model, and the identity by which equal runs are recognised."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_tokenizers import template_folder

from harness import UserError
from harness.config.parse import configure
from harness.data import hub
from harness.prepare.prepare import Prepared, prepare
from harness.prepare.trainings import Training

CAPITALS = """
from harness import Generate, Task, exact_match, task

def ask(row):
    return Generate(f"The capital of {row['country']} is", row["city"], stop=("\\n",))

@task
def capitals(*, word: str = "") -> Task:
    return Task("rows.jsonl", ask, [exact_match], train="train.jsonl", shots_from="shots.jsonl", description=word)

@task
def untrained() -> Task:
    return Task([{"country": "Peru", "city": "Lima"}], ask, [exact_match])

@task
def dangerous() -> Task:
    return Task([{"country": "Peru", "city": "Lima"}], ask, [exact_match], executes_code=True)

@task
def broken() -> Task:
    return Task([{"land": "Peru"}], ask, [exact_match])

@task
def nowhere() -> Task:
    return Task("rwos.jsonl", ask, [exact_match])
"""


def put(path: str, *rows: dict[str, Any]) -> None:
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("x.py").write_text(CAPITALS)
    put("rows.jsonl", {"country": "France", "city": "Paris"}, {"country": "Japan", "city": "Tokyo"})
    put("shots.jsonl", {"country": "Italy", "city": "Rome"})
    put("train.jsonl", *({"country": f"C{n}", "city": f"c{n}"} for n in range(5)))
    put("pairs.jsonl", *({"question": f"Q{n}", "answer": f"a{n}"} for n in range(5)))
    return tmp_path


def prepared(*variants: str, tasks: Any = ("./x.py@capitals",), scores: bool = True, **settings: Any) -> Prepared:
    return prepare(configure(variants or ("base",), tasks=list(tasks), **settings), scores=scores)


def training(*variants: str, **settings: Any) -> Training:
    found = prepared(*(variants or ("lora",)), **settings).variants[-1].training
    assert found is not None
    return found


def test_variants_with_equal_prompts_share_their_items() -> None:
    base, lora, shots = prepared("base", "lora", "s=base:shots=1").variants
    assert base.items is lora.items and base.items is not shots.items
    name = "./x.py@capitals"
    assert base.items[name][1].request.contexts == ("The capital of Japan is",)
    assert shots.items[name][1].request.contexts == ("The capital of Italy is Rome\n\nThe capital of Japan is",)
    assert base.training is None and lora.training is not None


def test_the_embedded_default_is_prepared() -> None:
    found = prepared("base", "few=base:shots=2", "lora", tasks=("mini_mmlu", "mini_text"), limit=6)
    assert [len(items) for items in found.variants[0].items.values()] == [6, 6]
    assert [task.name for task in found.tasks] == ["mini_mmlu", "mini_text"]
    assert [each.data.tasks for each in found.trainings] == [("mini_mmlu",)]
    few = found.variants[1].items
    assert few["mini_mmlu"][0].request.contexts[0].count("Answer:") == 3
    assert few["mini_text"][0].request == found.variants[0].items["mini_text"][0].request


def test_parameters_reach_the_task() -> None:
    (row,) = prepared(task_parameters={"word": "Think. "}).variants
    assert row.items["./x.py@capitals"][0].request.contexts == ("Think. The capital of France is",)


def test_variants_train_on_the_tasks_own_train_rows_by_default() -> None:
    data = training().data
    assert (data.name, data.tasks, len(data.examples)) == ("./x.py@capitals", ("./x.py@capitals",), 5)
    assert (data.examples[0].prompt, data.examples[0].completion) == ("The capital of C0 is", " c0\n")
    assert training(train={"data": "./x.py@capitals"}).data.examples == data.examples


def test_a_task_that_is_not_scored_can_be_trained_on() -> None:
    data = training(tasks=["mini_text"], train={"data": "./x.py@capitals"}).data
    assert (data.name, data.tasks, len(data.examples)) == ("./x.py@capitals", ("./x.py@capitals",), 5)


def test_groups_of_one_task_share_its_train_rows_which_are_used_once() -> None:
    whole = training(tasks=["mini_mmlu"]).data
    kinds = sorted({item.group or "" for item in prepared(tasks=["mini_mmlu"]).variants[0].items["mini_mmlu"]})
    names = (f"mini_mmlu:{kinds[0]}", f"mini_mmlu:{kinds[1]}")
    for settings in ({}, {"train": {"data": "mini_mmlu"}}):
        data = training(tasks=names, **settings).data
        assert data.tasks == names and len(data.examples) == len(whole.examples)
    with pytest.raises(UserError, match="a train split has no groups"):
        training(tasks=names, train={"data": names[0]})


def test_a_file_is_trained_on_with_its_columns_mapped() -> None:
    data = training(train={"data": "pairs.jsonl", "columns": "prompt=question,completion=answer"}).data
    assert (data.name, data.tasks, data.examples[4].prompt, data.examples[4].completion) == (
        "pairs.jsonl",
        (),
        "Q4",
        " a4",
    )


def test_a_variant_may_name_its_own_data_and_share_of_it() -> None:
    put("mine.jsonl", {"text": "one"}, {"text": "two"}, {"text": "three"})
    own = prepared("lora", "mine=lora:data=mine.jsonl,samples=2").variants[1].training
    assert own is not None and own.data.name == "mine.jsonl" and len(own.data.examples) == 2
    again = prepared("mine=lora:data=mine.jsonl,samples=2").variants[0].training
    assert again is not None and again.data.examples == own.data.examples


def test_a_split_of_the_hub_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*args: Any, **options: Any) -> Any:
        asked.append((*args, options["split"]))
        return [{"question": "1+1", "answer": "2"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    hub._load_split.cache_clear()
    columns = {"prompt": "question", "completion": "answer"}
    for name in ("hub:o/n", "hub:o/n:main", "hub:o/n:main:test", "hub:o/n::test"):
        assert training(train={"data": name, "columns": columns}).data.examples[0].prompt == "1+1"
    hub._load_split.cache_clear()
    assert asked == [
        ("o/n", None, "train"),
        ("o/n", "main", "train"),
        ("o/n", "main", "test"),
        ("o/n", None, "test"),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no rows"),
        ('{"prompt": "a", "compl', "line 1 is not JSON"),
        ('{"question": "a", "answer": "b"}', "has the columns question, answer"),
        ('{"prompt": "a", "completion": 3}', "row 0 has int in `completion`"),
        ('{"text": ""}', "has no text in any of its 1 rows"),
    ],
)
def test_bad_training_files_are_refused(content: str, said: str) -> None:
    Path("bad.jsonl").write_text(content)
    with pytest.raises(UserError, match=said):
        training(train={"data": "bad.jsonl"})


def test_missing_training_data_is_an_error_only_if_a_variant_is_trained() -> None:
    prepared("base", tasks=["./x.py@untrained"])
    with pytest.raises(UserError, match="there is nothing to train on"):
        prepared("lora", tasks=["./x.py@untrained"])
    with pytest.raises(UserError, match="has no train split"):
        training(train={"data": "./x.py@untrained"})


def test_columns_of_a_task_are_refused() -> None:
    with pytest.raises(UserError, match="`--train-columns` needs a file"):
        training(train={"data": "./x.py@capitals", "columns": {"prompt": "country"}})


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("./x.py@broken", "uses the column `country`, which row 0 does not have"),
        ("./x.py@nowhere", "no file `rwos.jsonl`"),
        ("./x.py@dangerous", "runs code that the model generates"),
        ("./x.py@capitals:europe", "task `./x.py@capitals:europe` has no groups"),
        ("mini_mmlu:flgas", "no group `flgas`"),
    ],
)
def test_a_task_that_cannot_be_scored_is_refused(task: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        prepared(tasks=[task])
    if "dangerous" in task:
        prepared(tasks=[task], confirm_run_unsafe_code=True)


@pytest.mark.parametrize("settings", [{"limit": 0}, {"limit": -1}, {"num_fewshot": -1}, {"train": {"steps": 0}}])
def test_counts_below_one_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="should be greater than"):
        prepared(**settings)


def test_the_learning_rate_is_the_variants_then_the_flags_then_the_methods() -> None:
    assert training("lora:lr=0.5", train={"lr": 0.25}).settings.lr == 0.5
    assert training("lora", train={"lr": 0.25}).settings.lr == 0.25
    model = Path("model")
    model.mkdir()
    for name, content in {"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": ""}.items():
        (model / name).write_text(content)
    default = training("lora", model="./model").entry.options["lr"]
    assert training("lora", model="./model").settings.lr == default
    assert training("lora").settings.lr == default * 10


def test_steps_and_epochs_are_the_variants_before_the_shared_ones() -> None:
    def length(variant: str, **train: Any) -> tuple[int | None, float | None]:
        found = training(variant, train=train)
        return found.settings.steps, found.settings.epochs

    assert length("lora") == (150, None)  # the embedded model's; others have one epoch
    assert length("lora", steps=7) == (7, None)
    assert length("lora", epochs=3) == (None, 3.0)
    assert length("lora:epochs=2", steps=7) == (None, 2.0)
    assert length("lora:steps=9", epochs=3) == (9, None)
    assert length("lora:steps=9", steps=7) == (9, None)


def test_the_other_settings_are_the_variants_before_the_shared_ones() -> None:
    shared = {"batch_size": 4, "max_length": 64}
    plain, own = training("lora").settings, training("lora:batch_size=2", train=shared).settings
    assert (plain.batch_size, plain.max_length, own.batch_size, own.max_length) == (16, 1024, 2, 64)


def test_seeds_count_up_from_the_variants_own() -> None:
    def seeds(*variants: str, **settings: Any) -> list[int | None]:
        return [
            row.training.settings.seed if row.training else None for row in prepared(*variants, **settings).variants
        ]

    assert seeds("base", "lora", seeds=3) == [None, 0, 1, 2]
    assert seeds("lora:seed=5", seeds=2, seed=9) == [5, 6]
    assert seeds("lora", seed=9) == [9]


def test_variants_that_differ_only_after_training_share_one() -> None:
    assert len(prepared("lora", "lora@4bit", "lora@merged", "s=lora:shots=1").trainings) == 1
    assert len(prepared("lora", "lora:rank=4", "lora:seed=1").trainings) == 3


def test_a_chat_template_must_exist_and_its_name_be_known() -> None:
    with pytest.raises(UserError, match="unknown template `chta`") as error:
        prepared("base:template=chta")
    assert error.value.hint == "did you mean `chat`?"
    model = template_folder(None)
    with pytest.raises(UserError, match="has no chat template"):
        prepared(model="./model", apply_chat_template=True)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    (model / "chat_template.jinja").write_text(template)
    chat, plain = prepared("base", "plain=base:template=none", model="./model", apply_chat_template=True).variants
    assert chat.items["./x.py@capitals"][0].request.contexts == ("<user>The capital of France is<assistant>",)
    assert plain.items["./x.py@capitals"][0].request.contexts == ("The capital of France is",)
    put("talk.jsonl", {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]})
    assert training(model="./model", train={"data": "talk.jsonl"}).data.examples[0].prompt == "<user>hi<assistant>"


def test_an_adapter_must_hold_something_to_score() -> None:
    Path("adapter").mkdir()
    (Path("adapter") / "adapter_config.json").write_text("{}")
    (row,) = prepared("./adapter").variants
    assert row.adapter is not None and row.adapter.is_adapter and row.training is None


def test_equal_runs_have_equal_identities_and_each_change_another() -> None:
    variants = ("base", "lora", "s=base:shots=1")
    first = prepared(*variants).identity
    assert prepared(*variants).identity == first == prepared(*variants, output_dir=Path("elsewhere")).identity
    seen = {first, prepared(*variants, limit=1).identity, prepared(*variants, seed=1).identity}
    for change in (
        lambda: Path("x.py").write_text(CAPITALS + "\n# a change\n"),
        lambda: put("rows.jsonl", {"country": "France", "city": "Lyon"}, {"country": "Japan", "city": "Tokyo"}),
        lambda: put("train.jsonl", {"country": "Peru", "city": "Lima"}),
        lambda: put("shots.jsonl", {"country": "Italy", "city": "Roma"}),
    ):
        change()
        seen.add(prepared(*variants).identity)
    assert len(seen) == 7


def test_a_changed_reward_or_monitored_task_changes_the_identity() -> None:
    put("prompts.jsonl", {"prompt": "Q"})
    variants = (
        "rl=lora:stage=grpo,reward=judge.py@one,data=prompts.jsonl",
        "watched=lora:monitor=./y.py@untrained",
    )

    def identity(reward: str, task: str) -> str:
        Path("judge.py").write_text(
            f"def one(prompts, completions, references):\n    return [{reward} for _ in prompts]\n"
        )
        Path("y.py").write_text(CAPITALS + task)
        return prepared(*variants).identity

    first = identity("1.0", "")
    assert first == identity("1.0", "")
    assert len({first, identity("2.0", ""), identity("1.0", "# a change\n")}) == 3


def test_the_digest_of_training_data_is_of_its_examples() -> None:
    before = training().data.digest
    put("train.jsonl", *({"country": f"C{n}", "city": f"c{n}", "unused": n} for n in range(5)))
    assert training().data.digest == before != training("lora:samples=4").data.digest
    put("train.jsonl", {"country": "C0", "city": "other"})
    assert training().data.digest != before


# Training data


def test_a_mix_uses_the_rows_of_each_part_by_its_weight() -> None:
    data = training(
        train={"data": "./x.py@capitals*2 + pairs.jsonl*0.4", "columns": "prompt=question,completion=answer"}
    ).data
    assert data.tasks == ("./x.py@capitals",) and data.duplicates == 0
    prompts = [example.prompt for example in data.examples]
    assert prompts[:10] == [f"The capital of C{n} is" for n in range(5)] * 2
    assert len(prompts) == 12 and all(prompt.startswith("Q") for prompt in prompts[10:])
    assert training(
        "lora:data=pairs.jsonl*3 + pairs.jsonl",
        train={"columns": "prompt=question,completion=answer", "data": "pairs.jsonl"},
    )
    put("named.jsonl", {"prompt": "P", "completion": "C"})
    both = training(train={"data": "named.jsonl + pairs.jsonl", "columns": "prompt=question,completion=answer"}).data
    assert both.examples[0].prompt == "P" and both.examples[1].prompt == "Q0"
    with pytest.raises(UserError, match=r"no training file `nothing\.here`"):
        training(train={"data": "./x.py@capitals + nothing.here"})
    with pytest.raises(UserError, match="neither a task, a file") as error:
        training(train={"data": "mini_mmlu+mini_gsm8k"})
    assert error.value.hint == "put blanks around the plus sign of a mix: `a + b`"
    with pytest.raises(UserError, match="leave none of its 5 rows"):
        training(train={"data": "./x.py@capitals*0.01"})
    with pytest.raises(UserError, match="needs a file"):
        training(train={"data": "./x.py@capitals + mini_mmlu", "columns": {"prompt": "country"}})


def test_duplicate_rows_are_noted_or_left_out() -> None:
    put("copies.jsonl", {"text": "one"}, {"text": "two"}, {"text": " one"})
    found = training(train={"data": "copies.jsonl"}).data
    assert (len(found.examples), found.duplicates) == (3, 1)
    assert found.notes == ("1 of 3 training rows of copies.jsonl repeat earlier rows; `dedupe=true` leaves them out",)
    left = training("lora:dedupe=true", train={"data": "copies.jsonl*2"}).data
    assert [example.completion for example in left.examples] == ["one", "two"] * 2 and left.duplicates == 1


def test_empty_answers_are_noted_and_refused_if_there_are_no_others() -> None:
    put("some.jsonl", *({"prompt": f"Q{n}", "completion": "A" * (n > 1)} for n in range(5)))
    found = training(train={"data": "some.jsonl"}).data
    assert found.notes == (
        "2 of 5 training rows of some.jsonl have an empty answer: they teach the model to end its text at once",
    )
    put("none.jsonl", {"prompt": "Q", "completion": ""}, {"prompt": "P", "completion": " "})
    with pytest.raises(UserError, match=r"every answer of the training data `none\.jsonl` is empty"):
        training(train={"data": "none.jsonl"})
    assert not training("lora:stage=pretrain", train={"data": "none.jsonl"}).data.notes


def test_rows_are_held_out_by_share_or_by_name() -> None:
    put("valid.jsonl", {"text": "two"}, {"text": "four"})
    put("rows4.jsonl", *({"text": text} for text in ("one", "two", "three", "five")))
    share = training("lora:validation=0.25", train={"data": "rows4.jsonl"})
    assert share.validation is not None
    assert (len(share.data.examples), len(share.validation.examples)) == (3, 1)
    named = training("lora:validation=valid.jsonl,samples=4", train={"data": "rows4.jsonl"})
    assert named.validation is not None and len(named.validation.examples) == 2
    assert "are in the validation data valid.jsonl too" in named.data.notes[0]
    apart = training("lora:validation=valid.jsonl,dedupe=true", train={"data": "rows4.jsonl"})
    assert len(apart.data.examples) == 3
    mapped = {"data": "pairs.jsonl", "columns": "prompt=question,completion=answer"}
    for other in ("./x.py@capitals", "valid.jsonl"):  # neither has the columns that are mapped
        apart = training(f"lora:validation={other}", train=mapped)
        assert apart.validation is not None and apart.data.examples[0].prompt == "Q0"
    with pytest.raises(UserError, match="leaves no rows to train on, or none to hold out"):
        training("lora:validation=0.01", train={"data": "rows4.jsonl"})


def with_template() -> None:
    model = template_folder(None)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    (model / "chat_template.jinja").write_text(template)


def test_training_prompts_equal_scoring_prompts() -> None:
    with_template()
    variants = ("lora", "chat=lora:template=chat", "system=lora:template=chat,system=S", "said=lora:system=S")
    for row in prepared(*variants, model="./model").variants:
        assert row.training is not None
        learned = row.training.data.examples[0]
        asked = row.items["./x.py@capitals"][0].request.contexts[0]
        assert learned.prompt == asked.replace("France", "C0")
    trainings = prepared(*variants, "more=lora:shots=1", model="./model").trainings
    assert len(trainings) == 4 == len({each.id for each in trainings})


def test_a_monitored_task_is_prompted_as_the_variant_is() -> None:
    with_template()
    keys = ("", ",system=S", ",template=chat", ",system=S,template=chat", ",shots=1")
    asked: list[str] = []
    for own in keys:
        monitor = training(f"lora:monitor=./x.py@capitals{own}", model="./model", scores=False).monitor
        assert monitor is not None
        asked.append(monitor.items[0].request.contexts[0])
    plain = "The capital of France is"
    assert asked == [plain, f"S\n\n{plain}", f"<user>{plain}<assistant>", f"<system>S<user>{plain}<assistant>", plain]


def test_conversations_use_the_models_template_unless_it_is_turned_off() -> None:
    with_template()
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    put("talk.jsonl", {"messages": [*turns, {"role": "user", "content": "so"}, {"role": "assistant", "content": "ok"}]})
    settings = {"data": "talk.jsonl"}
    assert (
        training(model="./model", train=settings).data.examples[0].prompt == "<user>hi<assistant>yo<user>so<assistant>"
    )
    plain = training("lora:template=none,turns=all", model="./model", train=settings).data.examples
    assert [example.prompt for example in plain] == [
        "User: hi\nAssistant:",
        "User: hi\nAssistant: yo\nUser: so\nAssistant:",
    ]


def test_a_folder_of_files_is_read_file_by_file() -> None:
    Path("books").mkdir()
    for name in ("b", "a"):
        (Path("books") / f"{name}.txt").write_text(f"of {name}\n\nmore of {name}\n")
    data = training("lora:stage=pretrain", train={"data": "./books"}).data
    assert [example.completion for example in data.examples] == ["of a", "more of a", "of b", "more of b"]


def test_only_answers_and_plain_text_are_packed() -> None:
    put("pairs2.jsonl", {"prompt": "Q", "chosen": "a", "rejected": "b"})
    with pytest.raises(UserError, match="rows of the stage `dpo` cannot be packed"):
        training("lora:stage=dpo,packing=true", train={"data": "pairs2.jsonl"})
    assert training("lora:stage=pretrain,packing=true").settings.packing
