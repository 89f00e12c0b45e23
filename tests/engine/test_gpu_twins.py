"""What runs on a GPU, done on the CPU by the same code with plain products and without graphs, against whole rows."""

import gc
import itertools
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_models as tiny
import torch
from architectures import SHAPES, random_model
from test_engine_on_gpu import GENERATED, SCORED, TEXTS, assert_equal, results

from harness.engine import runner as runners
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


@pytest.mark.parametrize(
    "fault",
    [RuntimeError("operation not permitted when stream is capturing"), RuntimeError("out of memory"), "wrong numbers"],
)
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
    fast, runner = results(model, GENERATED, "auto")
    assert len(tried) == 1 and not runner.notes
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


class Cuda:
    """What a recorder calls of torch, noted in order; `fault` is raised at the end of a recording."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Exception | None = None) -> None:
        self.calls: list[Any] = []
        self.mode = 0

        def mode(wanted: Any) -> None:
            self.mode = wanted
            self.calls.append(wanted)

        def end() -> None:
            self.calls.append("end")
            if fault is not None:
                raise fault

        stream = SimpleNamespace(wait_stream=lambda other: None)
        graph = SimpleNamespace(
            capture_begin=lambda pool: self.calls.append("begin"),
            capture_end=end,
            replay=lambda: self.calls.append("replay"),
        )
        fakes = {
            "graph_pool_handle": lambda: (0, 7), "Stream": lambda device: self.calls.append("stream") or stream,
            "current_stream": lambda device: stream, "stream": lambda stream: nullcontext(),
            "synchronize": lambda device: None, "CUDAGraph": lambda: graph,
            "get_sync_debug_mode": lambda: self.mode, "set_sync_debug_mode": mode,
        }  # fmt: skip
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *given: self.calls.append(given), raising=False)
        record = step_graphs.cuda_recorder(torch.device("cuda:1"))
        assert record is not None
        self.record = record


def test_steps_are_recorded_on_one_stream_and_nothing_is_collected_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)
    collects: list[bool] = []

    def work() -> torch.Tensor:
        collects.append(gc.isenabled())
        return torch.ones(2)

    for _ in range(2):
        assert torch.equal(cuda.record(work)(), torch.ones(2))
    once = ["error", 0, "begin", "end", "replay"]
    assert cuda.calls == ["stream", *once, *once]
    assert collects == [True, False, True, False] and gc.isenabled()


def test_a_step_that_waits_for_the_gpu_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch)

    def waits() -> torch.Tensor:
        assert cuda.mode == "error"
        raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        cuda.record(waits)
    assert cuda.calls == ["stream", "error", 0]


def test_after_a_recording_that_failed_the_allocator_is_told_that_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(monkeypatch, RuntimeError("operation failed due to a previous error during capture"))
    with pytest.raises(RuntimeError, match="previous error"):
        cuda.record(lambda: torch.ones(2))
    assert cuda.calls[-3:] == ["begin", "end", (1, (0, 7))] and gc.isenabled()


def test_memory_that_torch_keeps_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, found in {"mem_get_info": (5, 80), "memory_reserved": 60, "memory_allocated": 20}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, found=found: found)
    assert runners.free_bytes(torch.device("cuda:1")) == 45


def test_slots_fit_into_memory_where_an_earlier_runner_has_made_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("llama")
    faults: dict[str, str | None] = {}
    monkeypatch.setattr(runners, "free_bytes", lambda device: 1 << 20)
    pack: Any = SimpleNamespace(items=[SimpleNamespace(prompt=(5, 6), request=SimpleNamespace(limit=500))])
    found = []
    for _ in range(2):
        settings: dict[str, Any] = {"numerics": "fp32", "token_budget": 256, "max_rows": None, "seed": 0}
        runner = runners.Runner(model, tiny.tiny_tokenizer(), engine="auto", faults=faults, **settings)
        assert runner.generation == "slots"
        found.append(runner._slots_that_fit(pack))
    assert found[0] == found[1] < runner._slots
