"""The generation benchmarks: prompts, stop strings, token limits and verdicts equal those of lm-evaluation-harness.

`goldens/generation.json` was written by lm-evaluation-harness 0.4.13 from the made-up rows. It holds, for every task, a digest
of the prompts with their stop strings and token limits, and the verdicts on unusual answers.
"""

import hashlib
import json
from pathlib import Path

import pytest

from harness import Generate, Metric, Output, UserError, choice_letter, matching
from harness.prompts.render import Prompting, render, render_examples
from harness.registry.find import find
from harness.registry.load import load_task

GOLDENS = json.loads((Path(__file__).parents[1] / "goldens" / "generation.json").read_text(encoding="utf-8"))


def load(name, **parameters):
    """Loads a built-in task; the choices of GPQA have the order of the golden file of lm-evaluation-harness."""
    return load_task(find("task", name), {"order": "lm-eval", **parameters} if name.startswith("gpqa") else parameters)


def items_of(spec, shots=None):
    name, _, group = spec.partition(":")
    return render(name, load(name), Prompting(shots=shots), groups=[group] if group else [])


@pytest.fixture(autouse=True)
def _rows(made_up_hub):
    """Reads rows from `tests/hub`, unless a test changes that."""


@pytest.mark.parametrize("key", GOLDENS["prompts_sha256"])
def test_prompts_are_those_of_lm_evaluation_harness_to_the_byte(key):
    spec, _, shots = key.partition("@")
    items = items_of(spec, None if shots == "default" else int(shots))
    asked = [[*item.request.contexts, list(item.request.stop), item.request.max_tokens] for item in items]
    assert hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest() == GOLDENS["prompts_sha256"][key]


def test_a_prompt_of_gsm8k_in_full():
    assert items_of("gsm8k", 2)[1].request.contexts == (
        "Question: Mina has 4 boxes of 6 pens. How many pens has she?\nAnswer: She has 4*6=<<4*6=24>>24 pens.\n#### 24\n\n"
        "Question: A ferry takes 120 cars a day. How many in a week?\nAnswer: A week has 7 days.\n120*7=<<120*7=840>>840 cars.\n"
        "#### 840\n\n"
        "Question: Ravi saves $1,500 a year. How much in 2 years?\n\nAnswer:",
    )


def test_a_prompt_of_mmlu_pro_in_full():
    assert items_of("mmlu_pro:law", 1)[0].request.contexts == (
        "The following are multiple choice questions (with answers) about law. Think step by step and then finish your answer"
        ' with "the answer is (X)" where X is the correct letter choice.\n'
        "Question:\nCase 0: a promise without a seal, “given” at noon, is\nOptions:\nA. void\nB. binding\nC. a deed\nD. a tort\n"
        "E. a lien\nF. theft\nG. fraud\nH. moot\nI. stayed\nJ. barred\n"
        "Answer: Let's think step by step. It is barred. The answer is (J).\n\n"
        "Question:\nA landlord who keeps the deposit\nwithout a reason  \nOptions:\nA. may be sued\nB. owns it\nC. is\nan agent\n"
        "D. none\nAnswer: Let's think step by step.",
    )


@pytest.mark.parametrize("spec", GOLDENS["verdicts"])
def test_verdicts_on_odd_texts_are_those_of_lm_evaluation_harness(spec):
    golden, items = GOLDENS["verdicts"][spec], items_of(spec, 0)
    metrics = {metric.name: metric for metric in load(spec.partition(":")[0]).metrics}
    for row, text, *verdicts in golden["rows"]:
        output = Output(texts=(text,))
        ours = [metrics[name].measure(output, items[row].sample) for name in golden["metrics"]]
        assert ours == verdicts, f"{text!r} for {items[row].sample.target!r}"


def test_each_golden_knows_right_and_wrong():
    for golden in GOLDENS["verdicts"].values():
        assert all(0 < sum(column) < len(column) for column in list(zip(*golden["rows"], strict=True))[2:])


@pytest.mark.hub
def test_all_prompts_of_the_real_gsm8k_are_those_of_lm_evaluation_harness(real_rows):
    for name, shots, digest in (
        ("gsm8k", None, "84119a05b6c77e92415182c7963444e153dd2df04e05e238744f26b105c0a8b6"),
        ("gsm8k", 8, "c8fbfed204356e93abcbf17ddec967570574374d203a139857e94278f99f31dc"),
        ("gsm8k_cot", None, "9a08edd9368fad0c8e3a7d85f65d607fcbc6566b30b3ef3e479a4d6c11eaf204"),
    ):
        items = items_of(name, shots)
        assert len(items) == 1319
        text = "\0".join(item.request.contexts[0] for item in items)
        assert hashlib.sha256(text.encode()).hexdigest() == digest, f"{name} with {shots} shots"


@pytest.mark.hub
def test_the_real_gsm8k_draws_the_train_rows_that_lm_evaluation_harness_draws(real_rows):
    task = load("gsm8k")
    train = task.shots_from.load()
    drawn = [[6374, 3610, 957, 61, 742], [7462, 6610, 4769, 286, 5501], [5677, 687, 806, 6279, 2905]]
    for item, places in zip(render("gsm8k", task, limit=3), drawn, strict=True):
        shots = "".join(f"Question: {train[p]['question']}\nAnswer: {train[p]['answer']}\n\n" for p in places)
        assert item.request.contexts[0].startswith(shots)


# Behaviour of our own


@pytest.mark.parametrize("name", ["gsm8k_cot", "gsm8k_cot_zeroshot"])
def test_training_on_chains_of_thought_teaches_the_answer_that_strict_reads(name):
    task = load(name)
    example = render_examples(name, task)[4]
    assert example.completion == " 1250*4=5000 kg. The answer is 5,000.Q:"
    for item in items_of(name, 0):
        assert [metric.measure(Output(texts=(item.sample.target[0],)), item.sample) for metric in task.metrics] == [
            1.0,
            1.0,
        ]


def test_a_row_of_triviaqa_is_never_its_own_solved_example():
    shared = items_of("triviaqa", 11)[1].request.contexts[0]
    assert shared.count("Which metal is liquid") == 1


def test_mmlu_pro_takes_the_letter_or_the_worked_answer_as_target():
    [sample] = [
        item.sample for item in items_of("mmlu_pro:math", 0) if item.sample.prompt.startswith("Question:\nWhat")
    ]
    assert sample.target == ["The answer is (B).", "B"]


def test_more_shots_than_a_category_has_are_refused():
    with pytest.raises(UserError, match="5 solved examples in group `math`, but 6 shots"):
        items_of("mmlu_pro:math", 6)


def test_gpqa_thinks_for_as_many_tokens_as_are_asked():
    task = load("gpqa_diamond_cot", max_tokens=2048)
    assert {item.request.max_tokens for item in render("gpqa_diamond_cot", task)} == {2048}


def test_gpqa_supports_two_orders_of_its_choices():
    ours = [item.sample.meta["choices"] for item in render("gpqa", load("gpqa_main_cot", order="question"))]
    theirs = [item.sample.meta["choices"] for item in render("gpqa", load("gpqa_main_cot"))]
    assert ours != theirs and [sorted(choices) for choices in ours] == [sorted(choices) for choices in theirs]
    with pytest.raises(UserError, match="unknown order of choices `random`"):
        load("gpqa_main_cot", order="random")


def test_gpqa_has_the_same_order_with_and_without_chains_of_thought():
    cot = items_of("gpqa_main_cot", 0)
    for item, thinking in zip(items_of("gpqa_main", 0), cot, strict=True):
        assert item.request.contexts[0].removesuffix("Answer:") == thinking.request.contexts[0].removesuffix(
            "Let's think step by step: "
        )


def score(function, text, target):
    return Metric("m", score=function).measure(Output(texts=(text,)), Generate("", target))


def test_matching_takes_the_first_or_the_last_match_or_the_whole_text():
    assert score(matching(r"\d+"), "7 then 8", "7") == 1.0
    assert score(matching(r"\d+", take="last"), "7 then 8", "8") == 1.0
    assert score(matching(), "  A. b ", "a. B") == 1.0
    assert score(matching(r"\d+"), "none", "7") == 0.0


def test_matching_keeps_case_and_punctuation_on_request():
    assert score(matching(case=True), "Yes", "yes") == 0.0
    assert score(matching(punctuation=False), "Y.M.C.A.", "ymca") == 1.0
    assert score(matching(ignore=[r"\s*kg$"]), "12 kg", "12") == 1.0


def test_matching_takes_the_best_of_several_targets():
    assert score(matching(), "hg", ["Mercury", "Hg"]) == 1.0


def test_an_invalid_pattern_is_refused_when_the_task_is_loaded():
    with pytest.raises(UserError, match=r"`\(` is not a regular expression"):
        matching("(")
    with pytest.raises(UserError, match="takes no `frist` match") as error:
        matching("x", take="frist")
    assert error.value.hint == "did you mean `first`?"


def test_a_choice_letter_needs_the_choices():
    with pytest.raises(UserError, match="`meta` with `choices`"):
        choice_letter.measure(Output(texts=("(B)",)), Generate("", "(B)"))


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("I weigh (A), then (B)", 1),
        ("Paris, surely", 1),
        ("Rome? No: Paris!", 1),
        ("Paris? No: Rome!", 0),
        ("My choice: B", 1),
        ("b", 0),
        ("", 0),
    ],
)
def test_a_choice_letter_is_bracketed_or_spelt_out_or_after_a_colon(text, right):
    sample = Generate("", "(B)", meta={"choices": ["Rome", "Paris"]})
    assert choice_letter.measure(Output(texts=(text,)), sample) == right
