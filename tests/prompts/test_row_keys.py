"""The table of columns and keys says what the readers of training rows do."""

import re
from pathlib import Path

import pytest

from harness import UserError
from harness.prompts.columns import FORMATS
from harness.prompts.row_keys import KEYS
from harness.prompts.training_rows import read_rows
from harness.prompts.turns import _READ, CALLING, ROLES

PAGE = (Path(__file__).parents[2] / "finetune" / "README.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n### Columns and keys")[2].partition("\n## ")[0]


def declared(of: str, fate: str) -> set[str]:
    keys = [key for key in KEYS if key.of == of and key.fate == fate and not key.is_rest]
    return {name for key in keys for name in key.names.split()}


def test_the_page_has_the_declared_table() -> None:
    table = [line for line in re.findall(r"^\| .*\|$", SECTION, re.MULTILINE) if line.startswith(("| `", "| every"))]
    assert table == [key.line() for key in KEYS], "write the lines that are asserted here into the page"


def test_the_page_lists_every_role() -> None:
    roles = SECTION[SECTION.index("Roles are read") :]
    assert set(re.findall(r"`(\w+)`", roles)) == {name for names in ROLES.values() for name in names} | {*CALLING}


def test_the_columns_that_formats_read_are_declared_as_read() -> None:
    read = {name for format in FORMATS for ours in format.ours for name in format.names.get(ours, (ours,))}
    assert declared("row", "read") == read | {"preferred_output", "non_preferred_output"}
    assert declared("turn", "read") == {key for keys in _READ.values() for key in keys}


@pytest.mark.parametrize("column", sorted(declared("row", "refused")))
def test_refused_columns_are_refused_with_content_only(column: str) -> None:
    row = {"prompt": "q", "completion": "a"}
    with pytest.raises(UserError, match=f"row 1 .*in `{column}`"):
        read_rows("x", [row, {**row, column: True}])
    for nothing in (None, [], "", float("nan")):
        assert read_rows("x", [{**row, column: nothing}]).notes == []


@pytest.mark.parametrize("column", sorted(declared("row", "not used")))
def test_columns_that_are_not_used_are_counted(column: str) -> None:
    row = {"prompt": "q", "completion": "a"}
    assert read_rows("x", [{**row, column: "y"}, row]).notes == [f"columns of x not used: `{column}` (1 row)"]
