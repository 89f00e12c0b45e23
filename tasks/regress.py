r"""regress: a number for each text, written by the model.

Dataset: https://huggingface.co/datasets/nyu-mll/glue (config `stsb`: validation 1,500 rows, train 5,749) unless `data` names
another, unknown licence.
Paper: Cer et al., "SemEval-2017 Task 1: Semantic Textual Similarity", SemEval 2017 (STS-B).
Protocol: our own, greedy, one line. `data` and `train` are files or `hub:OWNER/NAME:CONFIG:SPLIT`; `target` is the column of
the number. In `prompt`, `{column}` is that column of the row, `\n` a line end. The model's number is the `first` of its line, or
the `last` (`number=last`); lines without one are left out of MAE, RMSE, MSE and Pearson's r, and `parsed` says how many have
one. Targets are written with six decimals at most, where that keeps them.

Example:
    A man is playing a harp.
    A man is playing a keyboard.
    Similarity from 0 to 5: 1.5
"""

import math
import re
from typing import Literal

from harness import Generate, Row, Task, UserError, mae, mse, parsed, pearson, rmse, rows, task

STSB = "hub:nyu-mll/glue:stsb:validation"


@task
def regress(
    *,
    data: str = STSB,
    train: str | None = None,
    target: str = "label",
    prompt: str = "{sentence1}\n{sentence2}\nSimilarity from 0 to 5:",
    number: Literal["first", "last"] = "first",
    max_tokens: int = 16,
) -> Task:
    """A number for each text: MAE, RMSE, MSE, Pearson's r, and how many outputs are numbers."""
    if data == STSB:
        train = train or "hub:nyu-mll/glue:stsb:train"
    template = prompt.replace("\\n", "\n")
    center = _center(data, target)

    def sample(row: Row) -> Generate:
        return Generate(
            re.sub(r"\{(.+?)\}", lambda column: str(row[column[1]]), template),
            _written(_number(row[target], target)),
            stop=("\n",),
            max_tokens=max_tokens,
            meta={"number": number, "center": center},
        )

    return Task(data, sample, [mae, rmse, mse, pearson, parsed], train=train, shots_from=train)


def _center(data: str, column: str) -> float:
    """A middle target: sums of squares around it keep their digits."""
    numbers = []
    for index, row in enumerate(rows(data)):
        if column not in row:
            raise UserError(
                f"`{data}` has no column `{column}`", hint="name it with `target`; there are " + ", ".join(row)
            )
        try:
            numbers.append(_number(row[column], column))
        except UserError as error:
            raise UserError(f"row {index} of `{data}`: {error.message}", error.hint) from None
    return sorted(numbers)[len(numbers) // 2] if numbers else 0.0


def _number(value: object, column: str) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"the column `{column}` is {value!r}, not a finite number", hint="leave out or mend such rows")
    return number


def _written(number: float) -> str:
    """As short as six decimals allow: a float of 32 bits that says 3.8 is 3.799999952."""
    rounded = round(number, 6)
    kept = rounded if math.isclose(rounded, number, rel_tol=1e-6) else number
    return str(int(kept)) if kept.is_integer() else str(kept)
