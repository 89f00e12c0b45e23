"""Models and rows of the tests on real models, and the page with their results."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetch import folder
from page import Page, Previews
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

TEMPLATES = ("smollm2", "qwen3", "llama3", "gemma3")


def _place(name: str) -> Path:
    place = folder() / name
    if not (place / "made.json").is_file():
        pytest.skip(f"real: {name} is not in {folder()}, `make real` fetches it")
    return place


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct: real weights, tokenizer and chat template."""
    return _place("SmolLM2-135M-Instruct")


@pytest.fixture(scope="session", params=TEMPLATES)
def templated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a real tokenizer and chat template; its weights are random and few, except for SmolLM2's."""
    if request.param == "smollm2":
        return _place("SmolLM2-135M-Instruct")
    tokenizer = AutoTokenizer.from_pretrained(_place(f"tokenizers/{request.param}"))
    place = tmp_path_factory.mktemp("models") / request.param
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def tokenizer(templated: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of `templated`, as transformers loads it."""
    return AutoTokenizer.from_pretrained(templated)


@pytest.fixture(scope="session")
def page() -> Page:
    """The page with the results."""
    return Page(Path(__file__).parent / "README.md")


@pytest.fixture(scope="session")
def previews(page: Page) -> Iterator[Previews]:
    """Comparisons of previews, which are counted on the page."""
    found = Previews()
    yield found
    page.write("Previews", found.table())


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test asks the Hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    yield


@pytest.fixture(scope="session")
def threads() -> str:
    """Number of threads for processes that run alone."""
    return str(len(os.sched_getaffinity(0)))
