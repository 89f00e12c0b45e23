"""What runs on a GPU, done on the CPU by the same code with plain products and without graphs, against whole rows."""

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from architectures import SHAPES, random_model
from test_engine_on_gpu import GENERATED, SCORED, TEXTS, assert_equal, results

from harness.engine import slot_generation, step_graphs
from harness.engine.branch_attention import Branches, branches_plainly, runs_branches
from harness.engine.output_head import float32_product
from harness.engine.prefix_cache import Prefixes
from harness.tokens.trie import trie

TREES = [shape for shape, (_, _, trees, _) in SHAPES.items() if trees]
SLOTS = [shape for shape, (_, _, _, slots) in SHAPES.items() if slots]


def test_a_tree_is_cut_where_it_forks() -> None:
    tree = trie([(1, 2, 3, 4), (1, 2, 5, 6), (7, 8)])
    whole = Branches.of(tree, 0, len(tree.tokens), 9, torch.device("cpu"))
    tokens = torch.tensor(tree.tokens)
    rows = [tokens[whole.keys[low:high]].tolist() for low, high in itertools.pairwise(whole.key_ends)]
    assert sorted(rows) == [[1, 2, 3, 4], [1, 2, 5, 6], [7, 8]]
    assert (whole.before, whole.fed, whole.new, whole.most_keys) == (9, 8, 8, 4)
    later = Branches.of(tree, 3, 8, 9, torch.device("cpu"))
    rows = [tokens[later.keys[low:high]].tolist() for low, high in itertools.pairwise(later.key_ends)]
    assert sorted(rows) == [[1, 2, 3, 4], [1, 2, 5, 6], [7, 8]] and later.new == 5 and later.query_ends.tolist()[0] == 0


@pytest.mark.parametrize("shape", TREES)
def test_branches_give_the_plain_results(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, used = Prefixes.__init__, []

    def by_branch(self: Prefixes, model: Any) -> None:
        usual(self, model)

        def cut(*given: Any) -> Branches:
            used.append(True)
            return Branches.of(*given, device=torch.device("cpu"))

        self._cut = cut

    monkeypatch.setattr(Prefixes, "__init__", by_branch)
    model = random_model(shape)
    for requests in (SCORED, TEXTS):
        fast, runner = results(model, requests, "auto", token_budget=64)
        assert runner.scoring == "tree", runner.notes
        monkeypatch.undo()
        assert_equal(fast, results(model, requests, "plain")[0], within=1e-5)
        monkeypatch.setattr(Prefixes, "__init__", by_branch)
    assert used or shape in ("gemma2", "gemma3", "mistral")  # their windows are shorter than the check's rows


def test_a_branch_that_is_wrongly_computed_fails_the_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    prefixes = Prefixes(model)
    prefixes._cut = partial(Branches.of, device=torch.device("cpu"))
    from harness.engine import branch_attention, self_check

    assert self_check.tree_fault(model, prefixes) is None and prefixes.by_block

    def shifted(*given: Any) -> Any:
        out, sums = branches_plainly(*given)
        return out, sums + 1

    monkeypatch.setattr(branch_attention, "branches_plainly", shifted)
    assert self_check.tree_fault(model, prefixes) is None and not prefixes.by_block  # one mask is used instead


@pytest.mark.parametrize("shape", SLOTS)
def test_steps_of_fixed_shapes_give_the_plain_texts(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graphs, "_WIDTH", 8)
    monkeypatch.setattr(step_graphs, "_USES", 2)
    made: list[int] = []

    def record(work: Any) -> Any:
        made.append(1)
        return work

    monkeypatch.setattr(slot_generation, "cuda_recorder", lambda device: record)
    model = random_model(shape)
    fast, runner = results(model, GENERATED, "auto")
    assert runner.generation == "slots" and made
    assert_equal(fast, results(model, GENERATED, "plain")[0])


@pytest.mark.parametrize("fault", [RuntimeError("operation not permitted when stream is capturing"), "wrong numbers"])
def test_a_model_whose_steps_cannot_be_recorded_generates_without(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graphs, "_USES", 2)
    tried: list[int] = []

    def record(work: Any) -> Any:
        tried.append(1)
        if isinstance(fault, str):
            return lambda: work() * 0.5
        raise fault

    monkeypatch.setattr(slot_generation, "cuda_recorder", lambda device: record)
    model = random_model("llama")
    fast, _ = results(model, GENERATED, "auto")
    assert len(tried) == 1
    assert_equal(fast, results(model, GENERATED, "plain")[0])


def test_only_half_precision_on_a_gpu_runs_branches() -> None:
    config = random_model("llama").config
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert runs_branches(config, cuda, torch.bfloat16) and not runs_branches(config, cuda, torch.float32)
    assert not runs_branches(config, cpu, torch.bfloat16)
    assert step_graphs.cuda_recorder(cpu) is None


def test_the_head_of_a_cpu_multiplies_in_float32() -> None:
    hidden, weight = torch.randn(3, 8).bfloat16(), torch.randn(5, 8).bfloat16()
    assert torch.equal(float32_product(hidden, weight), hidden.float() @ weight.float().t())
