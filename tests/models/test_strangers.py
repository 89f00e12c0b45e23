"""Folders of strangers: an adapter or a reward head that would run code, or read another folder, is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.errors import UserError
from harness.finetune.stages.reward_sources import folder_recipe
from harness.jobs import HEAD_FILE
from harness.models.artifacts import _try_patterns, load_adapter
from harness.models.reward_head import made_on
from harness.tiny import MODEL


def a_head(folder: Path, made: Any) -> Path:
    folder.mkdir(exist_ok=True)
    text = made if isinstance(made, str) else json.dumps(made)
    save_file({"weight": torch.zeros(1, 4)}, folder / HEAD_FILE, metadata={"made_on": text})
    return folder


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        (
            {"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "evil"},
            "safetensors",
            "imports a module",
        ),
        ({"peft_type": "XLORA", "adapters": {"a": "/etc"}}, "safetensors", "reads its adapters from other folders"),
        ({"peft_type": "LORA"}, "bin", "a pickled file, which can run code"),
        ([], "safetensors", "not a JSON object"),
    ],
)
def test_an_adapter_that_starts_code_is_refused(config: Any, weights: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / f"adapter_model.{weights}").write_bytes(b"")
    with pytest.raises(UserError, match=message):
        load_adapter(None, tmp_path)


def test_a_reward_head_cannot_allow_code(tmp_path: Path) -> None:
    folder = a_head(tmp_path / "rm", {"base": "x", "quant": None, "trust_remote_code": True})
    with pytest.raises(UserError, match="asks to run the code that comes with its model") as refused:
        made_on(folder)
    assert refused.value.hint is not None and "--trust-remote-code" in refused.value.hint


@pytest.mark.parametrize("made", ["[", "[" * 100_000, "[]", {"base": "x"}, {"base": "x", "quant": "evil"}])
def test_a_malformed_reward_head_is_refused(made: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no reward model"):
        made_on(a_head(tmp_path / "rm", made))


def test_the_base_of_a_reward_adapter_is_named_by_the_user_or_built_in(tmp_path: Path) -> None:
    folder = a_head(tmp_path / "rm", {"base": str(MODEL), "quant": "nf4"})
    (folder / "adapter_config.json").write_text("{}")
    assert folder_recipe(folder).base.folder == MODEL
    a_head(folder, {"base": "/somewhere/else", "quant": None})
    with pytest.raises(UserError, match="only a base that you name yourself"):
        folder_recipe(folder)
    assert folder_recipe(folder, base="tiny").base.folder == MODEL


def test_a_reward_model_of_a_users_method_needs_its_file(tmp_path: Path) -> None:
    folder = a_head(tmp_path / "rm", {"base": str(MODEL), "quant": None})
    (folder / "method.json").write_text('{"method": "/x/mine.py@mine", "hyperparameters": {}}')
    with pytest.raises(UserError, match="only code that you name yourself runs") as refused:
        folder_recipe(folder)
    assert refused.value.hint is not None and "`-T reward_code=/x/mine.py`" in refused.value.hint


def test_a_regular_expression_without_end_ends_the_child(tmp_path: Path) -> None:
    code = (
        "from harness.models.artifacts import _try_patterns; from harness.user_code import end_on_hang; from pathlib import Path\n"
        f"end_on_hang(); _try_patterns(Path({str(tmp_path)!r}), {{'target_modules': '(([a-z])+)+!'}}, ['a' * 60])"
    )
    environment = {**os.environ, "HARNESS_USER_CODE_SECONDS": "0.5"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=100)
    assert done.returncode == -signal.SIGALRM


def test_a_malformed_regular_expression_is_refused(tmp_path: Path) -> None:
    for config in ({"target_modules": "("}, {"rank_pattern": {"[": 3}}):
        with pytest.raises(UserError, match="malformed regular expression"):
            _try_patterns(tmp_path, config, ["a"])
    _try_patterns(tmp_path, {"target_modules": ["("], "exclude_modules": None}, ["a"])


def test_an_adapter_is_never_read_from_a_pickled_file(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "other.safetensors").write_bytes(b"")
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"has no adapter_model.safetensors"):
        load_adapter(torch.nn.Linear(2, 2), tmp_path)


def test_an_adapter_whose_settings_take_for_ever_ends_the_child(tmp_path: Path) -> None:
    code = (
        "from harness.models.load import Resident; from harness.jobs import *; from harness.user_code import end_on_hang\n"
        "from pathlib import Path; import time; end_on_hang()\n"
        "base = Base(Path('x'), 'cpu', 'float32')\n"
        "resident = Resident(base, lambda method: lambda model: time.sleep(100))\n"
        f"resident._adapted(None, Recipe(base, Path({str(tmp_path)!r}), method=Method('m', Path('m.py'), None, {{}})))"
    )
    environment = {**os.environ, "HARNESS_USER_CODE_SECONDS": "0.05"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=100)
    assert done.returncode == -signal.SIGALRM
