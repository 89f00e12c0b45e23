"""Templates of new files: the smallest task and the smallest method that work.

Example:
    >>> write("task", "capitals", Path("/tmp"))  # doctest: +SKIP
    PosixPath('/tmp/capitals.py')
"""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Literal

from harness.errors import UserError
from harness.settings import RESERVED_KEYS
from harness.storage import writing

TASK = '''"""{name}: the skill that it measures.

Dataset: address of the rows (how many), MIT licence.
Paper: authors and title.
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

SampleKind = Literal["generate", "choose", "text"]

_PROMPT = """f"The capital of {row['country']} is"""
KINDS: dict[SampleKind, dict[str, str]] = {
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
"""The three types of sample: the model generates a text, chooses among answers, or is scored on a text."""

METHOD = '''"""{name}: the parameters that it trains, and the paper that describes it."""

from peft import LoraConfig, get_peft_model
from torch.nn import Module

from harness import method


@method(lr=2e-4, parameters="rank * (in + out) for each linear layer")
def {name}(model: Module, *, rank: int = 16, alpha: int | None = None) -> Module:
    """One line that `harness ls methods` shows."""
    config = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, use_rslora=True, target_modules="all-linear")
    return get_peft_model(model, config)
'''


def write(kind: Literal["task", "method"], name: str, folder: Path, sample: SampleKind = "generate") -> Path:
    """Writes `NAME.py` and returns its path.

    Args:
        kind: Whether to write a task or a method.
        name: Name of the function and of the file.
        folder: Folder of the new file.
        sample: Type of a task's samples.

    Raises:
        UserError: The name is not allowed, the file exists already, or the folder cannot be written.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name in (*RESERVED_KEYS, "base", "task", "method"):
        raise UserError(
            f"`{name}` cannot be the name of a {kind}",
            hint="use letters, digits and `_`, but no keyword of Python and no reserved name of harness (such as `base`, `lr`)",
        )
    path = folder / f"{name}.py"
    with writing(path, hint="run the command in a folder that can be written"):
        try:
            file = path.open("x", encoding="utf-8")
        except FileExistsError:
            raise UserError(f"`{path}` exists already", hint="choose another name, or move the file") from None
        with file:
            file.write(TASK.format(name=name, **KINDS[sample]) if kind == "task" else METHOD.format(name=name))
    return path
