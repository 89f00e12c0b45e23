"""`harness bench`: a grid of prompt lengths and batch sizes reaches the document, the screen and Markdown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import main
from harness.report.screen import screen
from harness.results import Run

GRID = ["--prompt-tokens", "8,16", "--batch-sizes", "2,1", "--new-tokens", "3", "-q"]


def test_the_grid_of_several_variants_is_measured_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], in_process: None
) -> None:
    asked = [
        "bench",
        "base",
        "lora:steps=1",
        "lora:steps=1@merged",
        "--train",
        "mini_gsm8k",
        *GRID,
        "-o",
        str(tmp_path),
    ]
    assert main([*asked, "--format", "json"]) == 0
    run = Run.model_validate_json(capsys.readouterr().out)
    for variant in run.variants:
        assert variant.inference is not None
        points = variant.inference.points
        assert [(point.prompt_tokens, point.batch_size) for point in points] == [(8, 1), (8, 2), (16, 1), (16, 2)]
        for point in points:
            in_turn = variant.name != "base"
            assert ("base_prefill" in point.raw_seconds) == in_turn
            assert point.ttft_seconds is not None and point.error is None
            assert point.ttft_seconds.low <= point.ttft_seconds.value <= point.ttft_seconds.high
            assert len(point.raw_seconds["decode"]) == 3 * variant.inference.repeats
    shown = "\n".join(line.plain for line in screen(run, width=100))
    assert "Latency" in shown and "base 8×1" in shown and "lora:steps=1 16×2" in shown and "next p99" in shown
    assert main([*asked, "--format", "md"]) == 0  # the same command shows the finished run
    text = capsys.readouterr().out
    assert "| Latency |" in text and "| base 16×2 |" in text
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    assert main(["bench", "base", "--prompt-tokens", "8", "-q", "-o", str(tmp_path), "--format", "json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert len(other["variants"][0]["inference"]["points"]) == 2  # another grid is another run


@pytest.mark.parametrize(
    ("flag", "text"),
    [("--prompt-tokens", "0"), ("--prompt-tokens", "8,x"), ("--batch-sizes", "-1"), ("--batch-sizes", "")],
)
def test_lengths_that_are_no_numbers_are_refused(flag: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "base", flag, text]) == 2
    assert f"`{flag} {text}`: expected numbers above 0" in capsys.readouterr().err
