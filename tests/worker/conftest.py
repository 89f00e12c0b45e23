"""What tests of the worker share."""

import pytest
import tiny_models as tiny

from harness.jobs import Recipe


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A tiny model with a random LoRA adapter."""
    root = tmp_path_factory.mktemp("adapted")
    base = tiny.tiny_base(tiny.save_tiny(root / "llama"))
    tiny.save_random_lora(root / "adapter", base)
    return Recipe(base, root / "adapter")
