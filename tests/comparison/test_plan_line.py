"""The plan of a run in one line."""

import pytest

from harness.comparison.dry_run import Purpose, describe
from harness.config.parse import configure
from harness.prepare.prepare import prepare


@pytest.mark.parametrize(
    ("purpose", "no_timing", "line"),
    [
        ("compare", False, "train lora on mini_gsm8k; score 2 variants × 1 task; time each"),
        ("compare", True, "train lora on mini_gsm8k; score 2 variants × 1 task"),
        ("train", False, "train lora on mini_gsm8k"),
        ("bench", True, "train lora on mini_gsm8k; time each"),
    ],
)
def test_the_line_names_what_is_done_and_nothing_else(purpose: Purpose, no_timing: bool, line: str) -> None:
    prepared = prepare(configure(["base", "lora"], tasks=["mini_gsm8k"], limit=1, no_timing=no_timing))
    assert describe(prepared, purpose) == line
