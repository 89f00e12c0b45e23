"""The page that the job leaves: every case on every shape, both sides' numbers. None of it is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from cases import CASES, REAL, Case
from shapes import HIDDEN, LAYERS, SHAKE, SHAPES, STEPS
from verdict import NATS, RELATIVE, Verdict

HEAD = """# Beside lm-evaluation-harness

Written by `make parity`; every number is computed. lm-evaluation-harness {lm_eval} and this repository run the same random
models (transformers {transformers}, torch {torch}, float32, CPU) on the same rows.

- **Prompts**: contexts, continuations, stop strings and token limits are equal byte for byte in every sample.
- **Log-likelihoods**: within {nats:g} nats (for whole pages, {relative:g} of their size). **Texts** and **metrics**: equal.
- Both our engines are compared: `auto` on all samples, `plain` on all likelihoods and on the first texts.
- Llama, Qwen3 and GPT-2 shapes ({layers} layers, width {hidden}) with tokenizers of their own: with a BOS token, without one, and
  with one token for everything; GPT-2's 1,024 positions cut long prompts. Each shape is two models: one trained for {steps} steps
  on scraps in the formats of the tasks, which therefore writes numbers, stop strings and ends of text; and, for log-likelihoods,
  its twin whose attention is shaken (noise of {shake:g} standard deviations), so that its choices hang on what it reads.
- `script` is no model: both sides are handed the same answers, right ones, nearly right ones and wrong ones, and made-up
  likelihoods, so that every metric has something to tell apart. There the tasks' own token limits are compared; the models'
  texts are cut sooner on both sides.
- Rows are real for {real};
  elsewhere they are the made-up ones of `tests/hub`, awkward on purpose, and few.
- On purpose different: `gpqa` orders its choices by the question alone, compared here with `-T order=lm-eval`, the order that a
  fresh cache gives; `humaneval_instruct` stops at the end of the code block, where lm-evaluation-harness writes on and cuts.
- Stand-ins inside lm-evaluation-harness, whose own need a network: the code checker (a Python process a program) and, where
  nltk's `punkt_tab` is not installed, nltk's sentence splitter without its list of abbreviations.

{verdicts} comparisons of {samples:,} samples: {state}.

The largest difference of a log-likelihood is in nats; texts are the equal ones of those compared.

| Task | Shots | Model | Samples | Likelihoods | Difference, auto | Difference, plain | Texts, auto | Texts, plain | Ours | lm-eval |
|---|--:|---|--:|--:|--:|--:|--:|--:|---|---|
"""


def page(verdicts: Sequence[Verdict]) -> str:
    """The page as Markdown."""
    found = {(each.case, each.shape, each.engine): each for each in verdicts}
    differing = [each for each in verdicts if not each.holds]
    head = HEAD.format(
        **{name: version(name) for name in ("lm_eval", "transformers", "torch")},
        nats=NATS,
        relative=RELATIVE,
        layers=LAYERS,
        hidden=HIDDEN,
        steps=STEPS,
        shake=SHAKE,
        real=", ".join(f"`{name}`" for name in REAL),
        verdicts=len(verdicts),
        samples=sum(each.samples for each in verdicts),
        state=f"{len(differing)} differ" if differing else "all agree",
    )
    rows = [_row(case, shape, found) for case in CASES for shape in ("script", *SHAPES)]
    notes = [f"- {each.case}, {each.shape} {each.engine}: {each.difference}" for each in differing]
    return head + "\n".join([*rows, "", *notes]).rstrip() + "\n"


def _row(case: Case, shape: str, found: dict[tuple[str, str, str], Verdict]) -> str:
    auto = found.get((case.id, shape, "auto")) or found.get((case.id, shape, ""))
    if auto is None:
        return f"| {case.title} | {case.shots} | {shape} | | | | | | | not run | |"
    plain = found.get((case.id, shape, "plain"))
    cells = [
        case.title,
        str(case.shots),
        shape,
        str(auto.samples),
        str(auto.loglikelihoods or ""),
        *(_nats(each) for each in (auto, plain)),
        *(f"{each.equal_texts}/{each.texts}" if each and each.texts else "" for each in (auto, plain)),
        *(
            " ".join(f"{name} {values[name]:.6g}" for name in case.metrics if name in values)
            for values in (auto.ours, auto.theirs)
        ),
    ]
    return "| " + " | ".join(cells) + " |"


def _nats(verdict: Verdict | None) -> str:
    if verdict is None or not verdict.loglikelihoods:
        return ""
    return f"{verdict.nats:.0e}" + (f" ({verdict.relative:.0e} of it)" if verdict.nats > NATS else "")
