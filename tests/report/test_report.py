"""The screen: correct numbers and sentences, complete cells at any width, with and without a terminal."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from example_run import COSTS, TASKS, example_run
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from harness.report import numbers
from harness.report.costs import measures, training_time_ratio
from harness.report.footnotes import footnotes
from harness.report.scores import ranks, titles
from harness.report.screen import LONGEST_NAME, name_lines, print_run, screen, stdout_console
from harness.report.summary import front_of, summary
from harness.report.tables import cost, quality
from harness.results import Overlap, Run, SharedSample
from harness.stats.ratios import Ratio


def shown(run: Run, width: int = 120, **options: Path) -> str:
    return "\n".join(line.plain for line in screen(run, width=width, **options))


def changed(run: Run, name: str, /, **fields: object) -> Run:
    """Returns the run with fields of one variant replaced."""
    variants = [v.model_copy(update=fields) if v.name == name else v for v in run.variants]
    return run.model_copy(update={"variants": tuple(variants)})


# Numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.00082, "0.82 ms"), (0.0182, "18.2 ms"), (0.35, "350 ms"), (0.9996, "1.0 s"), (1.24, "1.2 s"),
     (59.97, "1m 00s"), (124, "2m 04s"), (3725, "1h 02m")],
)  # fmt: skip
def test_seconds_are_shown_in_a_natural_unit(value: float | None, text: str) -> None:
    assert numbers.seconds(value) == text


@settings(deadline=None)  # a busy machine may be slow
@given(st.floats(0, 1e5))
def test_a_shown_time_reads_back_as_the_same_time(value: float) -> None:
    def read(text: str) -> float:
        units = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
        if text.endswith(" ms") or text.endswith(" s"):
            number, unit = text.split()
            return float(number) * units[unit]
        return sum(float(part[:-1]) * units[part[-1]] for part in text.split())

    assert read(numbers.seconds(value)) == pytest.approx(value, rel=0.06, abs=6e-6)


def test_bytes_in_memory_are_binary_and_on_disk_decimal() -> None:
    assert numbers.memory(8_482_560_410) == "7.9 GiB"
    assert numbers.file_size(40_400_000) == "40.4 MB"
    assert numbers.memory(1024**3 - 1) == "1.0 GiB"
    assert numbers.count(851_968) == "852.0 k"


def test_a_peak_below_16_mebibytes_shows_only_that_limit() -> None:
    assert numbers.peak(16 * 1024**2 - 1) == "<16 MiB"
    assert numbers.peak(16 * 1024**2) == "16.0 MiB"
    assert numbers.peak(None) == "-"


def test_proportions_are_shown_in_points_and_other_metrics_on_their_own_scale() -> None:
    assert numbers.Scale.of("acc", [0.324, 1.0]).value(0.324) == "32.4"
    assert numbers.Scale.of("bleu", [0.4]).value(0.4) == "0.4"
    assert numbers.Scale.of("word_ppl", [18.2]).value(18.2) == "18.20"
    assert numbers.Scale.of("bits_per_byte", [0.93]).value(0.93) == "0.930"
    assert numbers.Scale.of("length", [0.5, 212.0]).value(0.5) == "0.50"


def test_a_difference_never_rounds_to_minus_zero() -> None:
    assert numbers.Scale.of("acc", [0.5]).difference(-0.0001, -0.01, 0.0098) == "+0.0 ±1.0"


def test_foreign_text_cannot_move_the_cursor() -> None:
    assert numbers.one_line("\n\x1b[2Jout of memory\ntraceback") == "[2Jout of memory"


# Tables


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("names", [("base", "lora", "qlora"), ("base", "lora", "qlora", "full")])
def test_every_line_fits_the_width_and_no_cell_is_truncated(names: tuple[str, ...], width: int) -> None:
    run = example_run(*names, fail="full")
    lines = shown(run, width, folder=Path("runs/x")).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)
    for table in (quality(run), cost(run)):
        for row in table.rows:
            assert all(cell.text in "\n".join(lines) for cell in row.cells)


def test_every_block_repeats_the_variants_and_has_whole_tasks() -> None:
    blocks = quality(example_run()).blocks(80, name_width=7)
    assert [group for block in blocks for group, _ in block.groups] == list(TASKS)
    assert len(blocks) == 3
    for block in blocks:
        assert [row.name for row in block.rows] == ["base", "lora", "qlora"]
        assert all(len(members) == 2 for _, members in block.groups)


def test_a_table_too_wide_for_the_terminal_is_still_complete() -> None:
    assert "+91.0 ±1.4 ▲" in shown(example_run(), width=10)


def test_values_differences_and_marks_are_in_the_row_of_their_variant() -> None:
    lines = shown(example_run(tasks=2)).splitlines()
    row = next(line for line in lines if line.startswith("lora"))
    assert row.split() == ["lora", "54.0", "-7.0", "±4.7", "≈", "93.0", "+91.0", "±1.4", "▲"]
    base = next(line for line in lines if line.startswith("base"))
    assert base.split() == ["base", "61.0", "2.0"]


def test_cut_prompts_shortened_answers_and_slow_programs_are_counted_in_the_cell() -> None:
    run = example_run(tasks=1)
    first, *rest = run.variants[0].scores
    base = run.variants[0].model_copy(
        update={"scores": (first.model_copy(update={"truncated": 3, "shortened": 2, "timed_out": 4}), *rest)}
    )
    text = shown(run.model_copy(update={"variants": (base, *run.variants[1:])}))
    assert "61.0 (3 cut, 2 short, 4 timed out)" in text and text.count(" cut") == 1


def test_costs_are_shown_with_their_ratio_to_the_base() -> None:
    lines = shown(example_run(tasks=1)).splitlines()
    row = [line for line in lines if line.startswith("qlora")][1]
    assert "2m 57s" in row
    assert "4.8 GiB" in row
    assert "33.5 ms (1.84×)" in row
    assert "17.0 ms (1.87×)" in row


def test_the_ratio_to_a_trained_baseline_does_not_use_the_alternately_timed_base() -> None:
    run = example_run().model_copy(update={"baseline": "lora"})
    decode = measures(run)[-1]
    ratio = decode.ratio(run.variant("qlora"))
    assert ratio is not None and ratio.value == pytest.approx(1.87 / 1.23)
    assert decode.ratio(run.variant("lora")) is None


def busy(run: Run, name: str, **waited: float) -> Run:
    """The run with the share of waiting during a variant's training or timing."""
    for part, share in waited.items():
        record = getattr(run.variant(name), part)
        run = changed(run, name, **{part: record.model_copy(update={"waited_share": share})})
    return run


def test_times_of_a_busy_machine_are_marked_and_give_no_ratio() -> None:
    run = busy(example_run(tasks=1), "qlora", train=0.31, inference=0.12)
    text = shown(run)
    row = [line for line in text.splitlines() if line.startswith("qlora")][1]
    assert "~2m 57s" in row and "~33.5 ms" in row and "×" not in row
    assert "× the training time" not in text
    (trained, timed) = [note for note in footnotes(run) if note.startswith("~")]
    assert "training of qlora (31% of the time without a processor)" in trained
    assert "timing of qlora (12% of the time without a processor)" in timed
    assert not [note for note in footnotes(busy(run, "qlora", train=0.05, inference=0.05)) if note.startswith("~")]


def test_a_busy_baseline_that_was_not_timed_in_turn_gives_no_ratio() -> None:
    run = example_run().model_copy(update={"baseline": "lora"})
    assert measures(run)[-1].ratio(run.variant("qlora")) is not None
    assert measures(busy(run, "lora", inference=0.5))[-1].ratio(run.variant("qlora")) is None


def test_a_ratio_is_shown_with_its_interval_where_it_is_wide_and_not_at_all_where_none_is_known() -> None:
    assert numbers.ratio(Ratio(1.15, 1.12, 1.18)) == "1.15×"
    assert numbers.ratio(Ratio(1.15, 0.9, 1.47)) == "0.90–1.47×"
    run = example_run(tasks=1)
    timed = run.variant("qlora").inference
    assert timed is not None
    once = {name: times[:64] if "decode" in name else times[:1] for name, times in timed.raw_seconds.items()}
    run = changed(run, "qlora", inference=timed.model_copy(update={"raw_seconds": once}))
    row = [line for line in shown(run).splitlines() if line.startswith("qlora")][1]
    assert "33.5 ms" in row and "×" not in row


def test_training_times_of_other_batches_are_compared_per_step() -> None:
    run = example_run(tasks=1)
    qlora = run.variant("qlora").train
    assert qlora is not None
    run = changed(run, "qlora", train=qlora.model_copy(update={"batch_size": 8, "block_seconds": (90.0, 87.0)}))
    ratio = training_time_ratio(run.variant("qlora"), run.variant("lora"))
    assert ratio is not None and ratio.low is not None and ratio.low < ratio.value == pytest.approx(177 / 124)


def test_a_reward_model_has_no_decode_time() -> None:
    run = example_run()
    timed = run.variant("lora").inference
    assert timed is not None
    silent: dict[str, Any] = {name: None for name in type(timed).model_fields if "decode" in name}
    silent |= {"new_tokens": 0, "raw_seconds": {"prefill": [0.1, 0.1], "decode": []}}
    run = changed(run, "lora", inference=timed.model_copy(update=silent))
    decode = measures(run)[-1]
    assert decode.comparable(run.variant("lora")) is decode.ratio(run.variant("lora")) is None
    row = next(line for line in shown(run).splitlines() if line.startswith("lora") and "GiB" in line)
    assert row.split()[-1] == numbers.ABSENT
    assert measures(run.model_copy(update={"baseline": "lora"}))[-1].ratio(run.variant("qlora")) is None


def renamed(run: Run, **names: str) -> Run:
    """The run with other names of tasks."""
    text = run.to_json()
    for old, new in names.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    return Run.model_validate_json(text)


def test_tasks_of_files_are_shown_without_the_path_unless_two_have_the_same_name() -> None:
    run = renamed(example_run(tasks=2), mini_mmlu="./my/tasks.py@facts", mini_gsm8k="../sums.py")
    assert titles(run) == {"./my/tasks.py@facts": "facts", "../sums.py": "sums"}
    assert ".py" not in shown(run)
    same = renamed(example_run(tasks=2), mini_mmlu="./my/tasks.py@facts", mini_gsm8k="./facts.py")
    assert titles(same) == {"./my/tasks.py@facts": "./my/tasks.py@facts", "./facts.py": "./facts.py"}


def test_a_model_in_a_folder_is_shown_without_the_path_to_it() -> None:
    run = example_run()
    folder = run.model_copy(update={"environment": run.environment | {"model": {"name": "/home/me/models/SmolLM2"}}})
    assert shown(folder).startswith("SmolLM2 ·") and shown(run).startswith("Qwen/Qwen3-0.6B ·")


def test_a_failed_variant_says_so_in_its_row_and_others_continue() -> None:
    text = shown(example_run("base", "lora", "full", fail="full"))
    assert "full   failed: out of memory (needs > 79 GiB)" in text
    assert "torch.OutOfMemoryError" not in text
    assert "+91.0 ±1.4 ▲" in text


def test_a_variant_that_failed_after_training_keeps_its_costs() -> None:
    run = changed(example_run(), "qlora", status="failed", error="killed", scores=())
    rows = [line for line in shown(run).splitlines() if "2m 57s" in line or line.strip() == "failed: killed"]
    assert len(rows) == 2


def test_an_unfinished_run_can_be_shown() -> None:
    run = changed(example_run("base", "lora"), "lora", status="pending", scores=(), train=None, artifact=None)
    assert "not run yet" in shown(run)


def test_a_single_variant_has_its_own_interval_and_no_differences() -> None:
    text = shown(example_run("base"))
    assert "54.2–67.8" in text
    assert "vs base" not in text
    assert "Summary" not in text
    assert "train " not in text


def test_without_a_gpu_peaks_are_of_resident_memory() -> None:
    run = example_run()
    for name in ("lora", "qlora"):
        train = run.variant(name).train
        assert train is not None
        run = changed(
            run, name, train=train.model_copy(update={"peak_gpu_allocated_bytes": None, "peak_rss_bytes": 9_000})
        )
    text = shown(run)
    assert "peak RSS" in text
    assert "<16 MiB" in text
    assert "Pareto front (mini_gsm8k, peak RSS)" not in text
    assert "peak memory in training" not in text


def test_a_long_name_is_wrapped_not_truncated() -> None:
    name = "./methods/rslora.py@rslora:rank=8,alpha=16,target_modules=q_proj+v_proj@merged"
    assert "".join(name_lines(name)) == name
    assert max(map(cell_len, name_lines(name))) <= LONGEST_NAME
    run = changed(example_run("base", "lora"), "lora", name=name)
    assert max(map(cell_len, shown(run, 80).splitlines())) <= 80


def test_wide_characters_keep_columns_aligned() -> None:
    run = changed(example_run("base", "lora", tasks=1), "lora", name="微调")
    lines = [line for line in shown(run).splitlines() if "54.0" in line or "61.0" in line]
    assert len({cell_len(line[: line.index(".0")]) for line in lines}) == 1


# Sentences


def test_the_summary_says_which_differences_are_significant_and_what_was_forgotten() -> None:
    found = dict(summary(example_run("base", "lora", "qlora")))
    assert found["lora"] == (
        "trained tasks +49.6 ±1.5 points on average: better than base on all 4 tasks."
        " Other tasks -3.0 ±3.4 points on average, +0.76 ±0.64 word_ppl:"
        " no difference shown on mini_mmlu, mini_ceval and mini_text"
    )
    assert found["qlora"].endswith("worse on mini_mmlu (forgetting) and mini_text (forgetting)")
    assert found["qlora vs lora"] == (
        "0.61 × the peak GPU memory in training, 1.43 × (1.43–1.43) the training time; mini_gsm8k: no difference shown (-2.0 ±2.5)"
    )


def test_the_summary_names_all_tasks_on_which_two_trained_variants_differ() -> None:
    text = dict(summary(example_run("base", "lora", "full")))["full vs lora"]
    assert text.endswith(
        "mini_gsm8k: no difference shown (+2.0 ±2.5); better on mini_code and mini_translation;"
        " worse on mini_ceval and mini_text"
    )


def test_a_comparison_is_the_same_from_both_sides() -> None:
    run = example_run("base", "lora", "qlora", "full")
    for task in run.tasks:
        for a, b in (("lora", "base"), ("full", "qlora")):
            there, back = run.comparison(task, a, b), run.comparison(task, b, a)
            assert there is not None and back is not None
            assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)
            assert {there.verdict, back.verdict} in ({"better", "worse"}, {"undecided"})


def test_a_document_without_verdicts_is_judged_when_it_is_loaded() -> None:
    """Loads a run from before `comparisons[].verdict` existed; a verdict in the file is kept."""
    document = json.loads(example_run("base", "lora", "qlora").to_json())
    assert {found["verdict"] for found in document["comparisons"]} == {"better", "worse", "undecided"}
    for found in document["comparisons"]:
        del found["verdict"]
    old = Run.model_validate_json(json.dumps(document))
    assert old == example_run("base", "lora", "qlora") and shown(old) == shown(example_run())
    document["comparisons"][0]["verdict"] = "worse"
    assert Run.model_validate(document).comparisons[0].verdict == "worse" != old.comparisons[0].verdict


def test_lower_is_better_reverses_the_verdict() -> None:
    run = example_run("base", "full")
    text = next(task for task in run.tasks if task.name == "mini_text")
    found = run.comparison(text, "full", "base")
    assert found is not None and found.value > 0 and found.verdict == "worse"


def test_ranks_need_four_variants_and_ties_share_one() -> None:
    assert ranks(example_run(), example_run().tasks[0]) == {}
    run = example_run("base", "lora", "qlora", "full")
    assert ranks(run, run.tasks[1]) == {"base": (4, 4), "lora": (1, 3), "qlora": (1, 3), "full": (1, 3)}
    assert "rank" in shown(run) and "1–3" in shown(run)
    assert "rank" not in shown(example_run())


def test_a_front_follows_from_verdicts_and_costs() -> None:
    run = example_run("base", "lora", "qlora", "full")
    for task in run.tasks:
        for measure in measures(run):
            placed, front = front_of(run, task, task.headline, measure)
            if front is None:
                continue
            costs = {name: measure.comparable(run.variant(name)) or 0.0 for name in placed}
            assert not set(front.on) & set(front.maybe)
            for name in placed:
                rivals = [other for other in placed if other != name and costs[other] <= costs[name]]
                verdicts = {run.comparison(task, name, other).verdict for other in rivals}  # type: ignore[union-attr]
                assert (name in front.on) == (verdicts <= {"better"})
                assert (name in front.maybe) == ("undecided" in verdicts and "worse" not in verdicts)


def test_the_summary_says_who_may_be_on_a_front() -> None:
    found = dict(summary(example_run("base", "lora", "qlora", "full")))
    assert found["Pareto front (mini_gsm8k, peak GPU)"] == "qlora; maybe lora, full"


def marked(**changes: object) -> Run:
    """Returns a run in which the difference of lora on the first task is changed."""
    run = example_run("base", "lora", tasks=2)
    first, *rest = run.variant("lora").scores
    assert first.delta is not None
    delta = first.delta.model_copy(update=changes)
    return changed(run, "lora", scores=(first.model_copy(update={"delta": delta}), *rest))


def test_a_tentative_difference_has_a_hollow_mark_and_counts_as_undecided() -> None:
    run = marked(tentative="worse", verdict="undecided")
    for width in (80, 120):
        text = shown(run, width)
        assert "-7.0 ±4.7 ▽" in text and "▽ worse unless rare large gains hide" in text
        assert max(map(cell_len, text.splitlines())) <= width
    assert "no difference shown on mini_mmlu" in dict(summary(run))["lora"]
    assert "△" not in shown(example_run())


def test_a_difference_that_cannot_be_told_says_why() -> None:
    run = marked(untestable="only 4 clusters: at least 6 are needed for a test", verdict="undecided")
    text = shown(run)
    assert "-7.0 ±4.7 ?" in text and "? cannot be told" in text
    cell = quality(run).rows[1].cells[1]
    assert cell.title.endswith("only 4 clusters: at least 6 are needed for a test")


def test_an_uneven_interval_is_shown_by_its_ends() -> None:
    scale = numbers.Scale.of("acc", [0.5])
    assert scale.difference(0.45, 0.071, 0.682) == "+45.0 [+7.1, +68.2]"
    assert scale.difference(0.088, 0.061, 0.115) == "+8.8 ±2.7"
    assert scale.difference(0.088, 0.0605, 0.1175) == "+8.8 ±2.8", "8 % apart"
    assert scale.difference(0.03, 0.0005, 0.062) == "+3.0 [+0.1, +6.2]", "± 3.1 would contradict the verdict"
    assert scale.difference(0.0, -0.001, 0.0012) == "+0.0 ±0.1", "equal as shown"


def test_metrics_besides_headlines_have_no_verdict_in_old_documents_either() -> None:
    document = json.loads(example_run("base", "lora").to_json())
    delta = {"value": 0.5, "low": 0.2, "high": 0.8, "p": 0.001, "p_holm": None, "verdict": "better"}
    document["variants"][1]["scores"][1]["delta"] = delta
    del document["tests"]
    score = Run.model_validate(document).variants[1].scores[1]
    assert (
        score.delta is not None and score.delta.verdict is None and score.delta.mark is None and score.delta.low == 0.2
    )


def test_the_footer_counts_the_tests_and_says_what_one_seed_compares() -> None:
    notes = "\n".join(footnotes(example_run()))
    assert "Holm-adjusted p < .05 over 14 tests" in notes
    assert "unadjusted" in notes
    assert "use `--seeds 3` to compare methods" in notes


def test_the_footer_of_a_new_run_names_the_family_of_its_tests() -> None:
    notes = "\n".join(footnotes(example_run(tests=21)))
    assert "Holm-adjusted p < .05 over 21 tests: all pairs of variants on all tasks" in notes
    assert "in 80 % of cases over 21 tests" in notes


def test_a_task_without_a_significant_difference_shows_its_detection_limit() -> None:
    warnings = [note for note in footnotes(example_run()) if note.startswith("warning: 200")]
    assert len(warnings) == 1
    assert "200 samples show a true difference of 8.0 points on mini_mmlu" in warnings[0]
    assert "mini_gsm8k" not in warnings[0] and "four times" not in warnings[0]


def test_notes_of_the_run_and_a_loss_that_has_not_converged_are_shown() -> None:
    text = shown(example_run("base", "qlora", "full"))
    assert "note: full used lr 1e-05; others 2e-04" in text
    assert "warning: qlora: training loss still falling" in text


# The console


def test_without_a_terminal_the_width_is_120_or_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert stdout_console().width == 120
    monkeypatch.setenv("COLUMNS", "80")
    assert stdout_console().width == 80
    monkeypatch.setenv("COLUMNS", "wide")
    assert stdout_console().width == 120


def test_without_colour_the_text_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    for no_color in (False, True):
        stream = io.StringIO()
        console = Console(
            file=stream, force_terminal=True, width=120, color_system="truecolor", no_color=no_color, _environ={}
        )
        print_run(example_run(), console=console)
        texts.append(stream.getvalue())
    assert "\x1b[32m" in texts[0]
    assert "\x1b[3" not in texts[1]
    plain = io.StringIO()
    print_run(example_run(), console=Console(file=plain, width=120))
    for text in texts:
        bare = re.sub(r"\x1b\[[\d;]*m", "", text)
        assert bare == plain.getvalue()


def test_a_terminal_without_unicode_gets_ascii_marks() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    print_run(example_run(), console=Console(file=stream, width=120))
    stream.flush()
    assert "+91.0 +-1.4 ^" in raw.getvalue().decode("ascii")


def test_markup_in_names_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_run(changed(example_run(), "lora", name="[red]lora[/red]"))
    assert "[red]lora[/red]" in capsys.readouterr().out


def test_the_last_line_names_the_run_folder_and_the_report_command() -> None:
    text = shown(example_run(), folder=Path("runs/tiny-1"))
    assert text.endswith("Saved runs/tiny-1    harness report runs/tiny-1 --to html")


def test_the_header_shows_what_the_numbers_depend_on() -> None:
    first = shown(example_run()).splitlines()[0]
    assert first == (
        "Qwen/Qwen3-0.6B · 200 samples per task · seed 0 · NVIDIA H100 80GB HBM3 · torch 2.13.0 bf16 · harness 0.1.0"
    )


def test_an_incomplete_environment_is_not_an_error() -> None:
    assert shown(example_run(environment={})).startswith("unnamed model · 200 samples per task · seed 0 · harness")


def test_every_trained_variant_shows_its_costs() -> None:
    text = shown(example_run("base", *COSTS))
    assert "596.0 M" in text
    assert "1.2 GB" in text


def test_reports_do_not_import_torch() -> None:
    code = "import sys, harness.report.screen, harness.leaderboards; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_samples_in_the_training_data_give_a_warning_with_an_example() -> None:
    shared = SharedSample(id="7", train_row=3, question_part=1.0, text="natalia sold clips to " + "48 " * 60)
    overlap = Overlap(task="mini_mmlu", train="x.jsonl", n=200, words=13, sharing=5, contained=2, examples=(shared,))
    run = example_run(overlaps=[overlap, overlap.model_copy(update={"task": "mini_text", "contained": 0})])
    (line,) = [line for line in footnotes(run) if "training data" in line]
    assert line.startswith("warning: 2 of 200 samples of mini_mmlu (1%) are in the training data (x.jsonl)")
    assert "sample 7, in row 3: “natalia sold clips" in line and line.endswith("…”")
    assert Run.model_validate_json(run.to_json()).overlaps == run.overlaps
