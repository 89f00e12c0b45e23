"""Files to start from: the smallest task and the smallest method that work.

Example:
    >>> write("task", "capitals", Path("/tmp"))  # doctest: +SKIP
    PosixPath('/tmp/capitals.py')
"""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Literal

from harness.api import RESERVED_KEYS
from harness.errors import UserError

TASK = '''"""{name}: what it measures.

Dataset: where the rows come from (how many), MIT licence.
Paper: who made it.
Protocol: the prompt, the solved examples, and how an answer is judged.

Example:
    The capital of France is Paris
"""

from harness import {imports}

ROWS = [
    {{"country": "France", "city": "Paris"}},
    {{"country": "Japan", "city": "Tokyo"}},
    {{"country": "Kenya", "city": "Nairobi"}},
]


@task
def {name}() -> Task:
    """One line that `harness ls tasks` shows."""
    return Task(
        data=ROWS,  # or hub("owner/name", split="test"), or the path of a .jsonl, .csv or .parquet file
        sample={sample},
        metrics=[{metric}],
    )
'''

Kind = Literal["generate", "choose", "text"]

_PROMPT = """f"The capital of {row['country']} is"""
KINDS: dict[Kind, dict[str, str]] = {
    "generate": {
        "imports": "Generate, Task, exact_match, task",
        "sample": f"""lambda row: Generate({_PROMPT}", row["city"], stop=("\\n",), max_tokens=8)""",
        "metric": "exact_match",
    },
    "choose": {
        "imports": "Choose, Task, acc, task",
        "sample": f"""lambda row: Choose({_PROMPT}", [each["city"] for each in ROWS], ROWS.index(row))""",
        "metric": "acc",
    },
    "text": {
        "imports": "Task, Text, byte_ppl, task",
        "sample": f"""lambda row: Text({_PROMPT} {{row['city']}}.")""",
        "metric": "byte_ppl",
    },
}
"""The three types of sample: what the model writes, which choice it finds likeliest, how likely it finds a text."""

METHOD = '''"""{name}: what it trains, and the paper it comes from."""

from peft import LoraConfig, get_peft_model
from torch.nn import Module

from harness import method


@method(lr=2e-4, parameters="rank * (in + out) for each linear layer")
def {name}(model: Module, *, rank: int = 16, alpha: int | None = None) -> Module:
    """One line that `harness ls methods` shows."""
    config = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, use_rslora=True, target_modules="all-linear")
    return get_peft_model(model, config)
'''


def write(kind: Literal["task", "method"], name: str, folder: Path, sample: Kind = "generate") -> Path:
    """Writes `NAME.py` into `folder` and gives its path.

    Args:
        kind: What to write.
        name: Of the function and the file.
        folder: Where to.
        sample: What a task's samples are.

    Raises:
        UserError: The name cannot be a function's, or the file is there already.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name in (*RESERVED_KEYS, "base", "task", "method"):
        raise UserError(f"`{name}` cannot name a {kind}", hint="letters, digits and `_`, and no word of Python or ours")
    path = folder / f"{name}.py"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TASK.format(name=name, **KINDS[sample]) if kind == "task" else METHOD.format(name=name))
    except FileExistsError:
        raise UserError(f"`{path}` is there already", hint="choose another name, or move it away") from None
    except OSError as error:
        raise UserError(f"could not write `{path}`: {error.strerror}") from error
    return path
