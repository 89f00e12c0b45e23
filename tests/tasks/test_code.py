"""HumanEval and MBPP: exact prompts, verdicts from running the programs, and pass@k as its authors define it."""

import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.api import Choose, Generate, Output, Task
from harness.data.sources import rows
from harness.errors import UserError
from harness.jobs import Item
from harness.metrics import code
from harness.metrics.code import estimate, pass_at
from harness.prompts.render import Prompting, render, render_examples
from harness.registry.find import find
from harness.registry.load import load_task, task_metrics
from harness.sandbox.run import Outcome

CODE_TASKS = ("humaneval", "humaneval_instruct", "mbpp")


def of(name: str, **parameters: Any) -> Task:
    return load_task(find("task", name), parameters)


def items(name: str, **parameters: Any) -> list[Item]:
    return render(name, of(name, **parameters))


def score(sample: Any, *texts: str, k: int = 1) -> float:
    return float(pass_at(k).measure(Output(texts=texts), sample))


def test_pass_at_k_has_the_values_worked_out_by_hand() -> None:
    assert estimate(1, 1, 1) == 1.0 and estimate(1, 0, 1) == 0.0
    assert estimate(5, 2, 2) == pytest.approx(7 / 10)
    assert estimate(10, 3, 5) == pytest.approx(11 / 12)
    assert estimate(200, 1, 100) == pytest.approx(1 / 2)
    assert estimate(4, 3, 2) == 1.0  # one of any two is right


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(case: tuple[int, int, int]) -> None:
    n, c, k = case
    draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert estimate(n, c, k) == pytest.approx(sum(any(draw) for draw in draws) / len(draws))


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_product_that_the_paper_computes(case: tuple[int, int, int]) -> None:
    n, c, k = case
    product = 0.0 if n - c < k else math.prod(1 - k / i for i in range(n - c + 1, n + 1))
    assert estimate(n, c, k) == pytest.approx(1 - product, abs=1e-12)


def test_pass_at_k_of_fewer_than_k_texts_is_refused() -> None:
    sample = Generate("", "", meta={"after": ""})
    with pytest.raises(UserError, match="pass@2 needs at least 2 texts per sample, and there are 1") as caught:
        score(sample, "pass", k=2)
    assert caught.value.hint and "samples=2" in caught.value.hint
    with pytest.raises(UserError, match="there is no pass@0"):
        pass_at(0)


def test_pass_at_k_says_what_a_sample_lacks() -> None:
    with pytest.raises(UserError, match="needs `meta` with the text `after`"):
        score(Generate("def f():", ""), " pass")
    with pytest.raises(UserError, match="`pass@1` scores Generate samples"):
        score(Choose("", ["a", "b"], 0), "a")


def test_the_metric_is_found_by_its_name() -> None:
    task = Task(data=[{}], sample=lambda row: Generate("", ""), metrics=["pass@1", "pass@10", "pass@100"])
    assert [metric.name for metric in task_metrics(task)] == ["pass@1", "pass@10", "pass@100"]


def test_a_program_is_run_once_whichever_metrics_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(program: str, tests: str, given: str) -> Outcome:
        ran.append(program + tests)
        return Outcome(passed="7" in program)

    monkeypatch.setattr(code, "judge", run)
    code._judged.cache_clear()
    sample = Generate("", "", meta={"before": "<", "after": "\n~"})
    texts = ("7", "8", "7", "9")
    assert [score(sample, *texts, k=k) for k in (1, 2, 4)] == [0.5, pytest.approx(5 / 6), 1.0]
    assert ran == ["<7\n~", "<8\n~", "<9\n~"]
    code._judged.cache_clear()


@pytest.mark.parametrize(
    ("after", "rest", "tests"),
    [
        ("\nassert f(2) == 3\nassert f(1)", "\n", "assert f(2) == 3\nassert f(1)"),
        ("assert f(2) == 3", "", "assert f(2) == 3"),
        ("\n\n# tests\ndef check(g): pass\ncheck(f)", "\n\n# tests\n", "def check(g): pass\ncheck(f)"),
        ("\r\n    return x\r\n\r\nassert f(2)", "\r\n    return x\r\n\r\n", "assert f(2)"),
        (" + 1\nassert f(2) == 3", " + 1\n", "assert f(2) == 3"),
        ("[0]\nassert f(2) == 3", "[0]\n", "assert f(2) == 3"),
        (")\nassert f(2) == 3", ")\n", "assert f(2) == 3"),
        ("\n    return x\n", "\n    return x\n", ""),
        ("\nprint f(2)\n", "\nprint f(2)\n", ""),
        ("", "", ""),
    ],
)
def test_the_code_after_a_text_is_the_rest_of_the_program_and_its_tests(after: str, rest: str, tests: str) -> None:
    assert code.split(after) == (rest, tests)


def test_a_text_in_the_middle_of_a_program_is_tested() -> None:
    sample = Generate("", "", meta={"before": "def f(x):\n    y = ", "after": " + 1\n    return y\n\nassert f(2) == 3"})
    assert [score(sample, text) for text in ("x", "2", "x + 1", "3\n    return 3\n    y = 0")] == [1.0, 1.0, 0.0, 1.0]


def test_tests_that_need_the_process_of_the_program_say_so() -> None:
    after = "\nimport io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): f()\nassert out.getvalue() == 'x\\n'"
    meta = {"before": "def f():\n", "after": after}
    text = "    print('x')\n"
    assert score(Generate("", "", meta=meta), text) == 0.0
    assert score(Generate("", "", meta={**meta, "together": True}), text) == 1.0


def test_humaneval_asks_with_the_prompt_as_it_is(made_up_hub: Path) -> None:
    first = items("humaneval")[0].request
    assert first.contexts == (
        "from typing import List\n\n\ndef double_all(numbers: List[int]) -> List[int]:\n"
        '    """ Twice every number of a list.\n    >>> double_all([1, 5])\n    [2, 10]\n    """\n',
    )
    assert (first.max_tokens, first.temperature, first.samples) == (1024, 0.0, 1)
    assert first.stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def test_humaneval_puts_its_program_together_as_the_peer_does(made_up_hub: Path) -> None:
    task = of("humaneval")
    for item, row in zip(render("humaneval", task), rows(task.data), strict=True):
        program = item.sample.meta["before"] + "    pass" + item.sample.meta["after"]
        assert program == row["prompt"] + "    pass" + "\n" + row["test"] + "\n" + f"check({row['entry_point']})"


def test_humaneval_draws_many(made_up_hub: Path) -> None:
    task = of("humaneval", samples=64, temperature=0.2, top_p=0.95, k=[2, 8, 16, 32, 64])
    request = render("humaneval", task)[0].request
    assert (request.samples, request.temperature, request.top_p) == (64, 0.2, 0.95)
    assert [metric.name for metric in task_metrics(task)] == ["pass@2", "pass@8", "pass@16", "pass@32", "pass@64"]


@pytest.mark.parametrize("name", CODE_TASKS)
def test_more_is_not_asked_than_is_drawn(name: str) -> None:
    with pytest.raises(UserError, match="pass@10 needs at least 10 samples, not 5"):
        of(name, samples=5, temperature=0.2, k=[1, 10])


def test_humaneval_instruct_begins_the_answer_and_stops_at_the_blocks_end(made_up_hub: Path) -> None:
    request = items("humaneval_instruct")[1].request
    prompt = items("humaneval")[1].request.contexts[0]
    assert request.contexts == (
        f"Write a solution to the following problem and make sure that it passes the tests:\n```python\n{prompt}\n```\n"
        f"Here is the completed function:\n```python\n{prompt}\n",
    )
    assert request.stop[0] == "```" and request.stop[1:] == items("humaneval")[1].request.stop


def test_mbpp_shows_three_solved_tasks_with_the_line_ends_of_the_data(made_up_hub: Path) -> None:
    context = items("mbpp")[0].request.contexts[0]
    shots, question = context[: context.rindex("You are")], context[context.rindex("You are") :]
    assert question == (
        "You are an expert Python programmer, and here is your task: Write a python function to remove the first and last"
        ' "x" of a text. Your code should pass these tests:\n\nassert strip_x("axbxc") == "abc"\n'
        'assert strip_x("x")==""\nassert strip_x(\'a\\nb\') == "a\\nb"\n[BEGIN]\n'
    )
    assert shots.count("[BEGIN]\n") == shots.count("\n[DONE]\n\n") == 3
    assert "[BEGIN]\nimport math\r\ndef is_not_prime(n):\r\n    result = False\r\n" in shots
    assert "\r\n  return (res) \n[DONE]\n\nYou are an expert" in shots
    assert render("mbpp", of("mbpp"), Prompting(shots=0))[0].request.contexts == (question,)


def test_mbpp_trains_on_code_that_ends_as_it_is_asked_to(made_up_hub: Path) -> None:
    example = render_examples("mbpp", of("mbpp"))[0]
    assert example.completion == "def add(a, b):\r\n    return a + b\n[DONE]" and not example.append_eos


@pytest.mark.parametrize("name", CODE_TASKS)
def test_targets_pass_and_idle_bodies_fail(name: str, made_up_hub: Path) -> None:
    for item in items(name):
        assert isinstance(item.sample, Generate) and isinstance(item.sample.target, str)
        assert score(item.sample, item.sample.target) == 1.0, item.request.id
        assert score(item.sample, "    pass\n") == 0.0, item.request.id


@pytest.mark.parametrize("name", CODE_TASKS)
def test_leaving_early_earns_nothing(name: str, made_up_hub: Path) -> None:
    sample = items(name)[0].sample
    for text in ("    import os\n    os._exit(0)\n", "import os\nos._exit(0)\n", "raise SystemExit(0)\n", "quit()\n"):
        assert score(sample, text) == 0.0


def test_code_tasks_need_consent() -> None:
    assert all(of(name).executes_code for name in CODE_TASKS)


@pytest.mark.hub
@pytest.mark.usefixtures("real_rows")
def test_every_solution_of_humaneval_passes_and_none_passes_without_its_body() -> None:
    samples = [item.sample for item in items("humaneval")]
    assert len(samples) == 164
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        right = list(pool.map(lambda sample: score(sample, sample.target), samples))
        idle = list(pool.map(lambda sample: score(sample, "    pass\n"), samples))
    assert (sum(right), sum(idle)) == (164, 0)
