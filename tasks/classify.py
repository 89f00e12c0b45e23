r"""classify: classification of any labelled dataset, by the likelihood of each label after the text.

Dataset: https://huggingface.co/datasets/stanfordnlp/sst2 (validation 872 rows, train 67,349) unless `data` names
another, unknown licence.
Paper: Socher et al., "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank", EMNLP 2013
(SST-2).
Protocol: our own. `data` and `train` are files or `hub:OWNER/NAME:CONFIG:SPLIT`; `text` and `label` are columns. The
labels are `labels` in the given order, or by default the different values of the column, sorted. `names` gives the
names of integer labels (the first is `0`). In `prompt`, `{text}` is the text and any other `{column}` is that column;
`\n` is a line end. The values are scikit-learn's: accuracy; macro F1, precision and recall over the labels that occur;
MCC; AUC, which with two labels is that of the second, and with more labels the mean of each against the rest, by share
of the likelihood.
Chance: 1 / number of labels; AUC 0.5; MCC 0.

Example:
    Text: a gorgeous , witty , seductive movie .
    Label: positive
"""

import re
from collections.abc import Sequence
from typing import Any

from harness import Choose, Row, Task, UserError, acc, label_metrics, rows, task

SST2 = "hub:stanfordnlp/sst2:default:validation"


@task
def classify(
    *,
    data: str = SST2,
    train: str | None = None,
    text: str = "text",
    label: str = "label",
    labels: Sequence[str] = (),
    names: Sequence[str] = (),
    prompt: str = "Text: {text}\nLabel:",
    group: str | None = None,
) -> Task:
    """Classification of any labelled dataset: accuracy, macro F1, precision and recall, MCC, AUC."""
    if data == SST2:
        text, names, train = "sentence", ("negative", "positive"), train or "hub:stanfordnlp/sst2:default:train"
    names = [name.strip() for name in names]
    known = [name.strip() for name in labels] or names or _labels([data, *([train] if train else [])], label)
    place = {name: index for index, name in enumerate(known)}
    for index, name in enumerate(known):
        if not name or place[name] != index:
            raise UserError(
                f"the label `{name}` is empty, or given twice", hint="spaces at the ends of a label are ignored"
            )
    if len(known) < 2:
        raise UserError(
            f"{len(known)} labels in the column `{label}` of `{data}`", hint="give all labels with `labels`"
        )
    template = prompt.replace("\\n", "\n").replace("{text}", "{" + text + "}")

    def sample(row: Row) -> Choose:
        name = _name(row[label], label, names)
        if name not in place:
            shown = ", ".join(known[:20]) + ", …" * (len(known) > 20)
            raise UserError(f"the column `{label}` is `{name}`, which is not among the labels", hint=f"labels: {shown}")
        return Choose(re.sub(r"\{(.+?)\}", lambda column: str(row[column[1]]), template), known, place[name])

    metrics = [acc, *label_metrics(len(known))]
    return Task(data, sample, metrics, train=train, shots_from=train, group=group)


def _labels(splits: Sequence[str], column: str) -> list[str]:
    """Returns the different values of the column, sorted; numbers in numerical order."""
    spellings: dict[str, str] = {}
    for split in splits:
        types: dict[type, str] = {}
        for index, row in enumerate(rows(split)):
            if column not in row:
                hint = "name it with `label`; the columns are: " + ", ".join(row)
                raise UserError(f"`{split}` has no column `{column}`", hint)
            try:
                name = _name(row[column], column, ())
            except UserError as error:
                raise UserError(f"`{split}`, row {index}: {error.message}", error.hint) from None
            types.setdefault(type(row[column]), f"{row[column]!r} in row {index}")
            if len(types) > 1:
                raise UserError(
                    f"`{split}`: the column `{column}` has labels of several types: {', '.join(types.values())}",
                    hint="make them one type in the data, or give `labels`, which are compared as texts",
                )
            if spellings.setdefault(name, str(row[column])) != str(row[column]):
                raise UserError(
                    f"`{split}`, row {index}: {spellings[name]!r} and {str(row[column])!r} differ only by spaces",
                    hint="make them one label in the data, or give `labels`, which ignores spaces",
                )
    for name in spellings:
        if name.endswith(".0") and name.removesuffix(".0") in spellings:
            raise UserError(
                f"the column `{column}` has the labels `{name}` and `{name.removesuffix('.0')}`",
                hint="write them in one way in all splits",
            )
    return sorted(spellings, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))


def _name(value: Any, column: str, names: Sequence[str]) -> str:
    """Returns the name of the label in a cell."""
    name = "" if value is None or value != value else str(value).strip()  # NaN differs from itself
    if not name:
        raise UserError(f"the column `{column}` has no label", hint="remove the rows without a label")
    if not names or name in names:
        return name
    if not name.isdecimal() or int(name) >= len(names):
        hidden = "; -1 marks a split whose labels are hidden" if name == "-1" else ""
        raise UserError(
            f"the label {name} of the column `{column}` is out of range", hint=f"{len(names)} `names` are given{hidden}"
        )
    return names[int(name)].strip()
