"""The first line of a report, and what it says of precision."""

from example_run import example_run

from harness.report.footnotes import footnotes
from harness.report.header import header
from harness.results import Run


def trained_in(precisions: dict[str, str], dtype: str) -> Run:
    run = example_run(*precisions, tasks=1)
    variants = tuple(
        v.model_copy(update={"train": v.train.model_copy(update={"precision": precisions[v.name]})}) if v.train else v
        for v in run.variants
    )
    return run.model_copy(update={"variants": variants, "environment": run.environment | {"dtype": dtype}})


def test_the_header_says_in_which_precision_training_was_computed() -> None:
    assert "fp32, trained in bf16" in header(trained_in({"base": "", "lora": "bf16", "qlora": "bf16"}, "float32"))
    assert "bf16 · harness" in header(trained_in({"base": "", "lora": "bf16"}, "bfloat16"))
    mixed = header(trained_in({"base": "", "lora": "bf16", "qlora": "fp32"}, "float32"))
    assert "fp32, trained in bf16 (lora) and fp32 (qlora)" in mixed


def test_a_run_of_an_earlier_version_says_nothing_about_it() -> None:
    assert "trained in" not in header(example_run())


def test_it_is_said_whose_tokens_and_bytes_the_costs_are() -> None:
    notes = "\n".join(footnotes(trained_in({"base": "", "lora": "bf16"}, "bfloat16")))
    assert "bytes of the saved result on disk" in notes and "one random prompt of 512 tokens at a time" in notes
