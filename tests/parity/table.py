"""Writes the page of the job: every case on every shape, with the numbers of both sides."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from cases import CASES, REAL, Case
from shapes import HIDDEN, LAYERS, NOISE, SHAPES, STEPS
from verdict import NATS, RELATIVE, Verdict

HEAD = """# Beside lm-evaluation-harness

Written by `make parity`; every number is computed. lm-evaluation-harness {lm_eval} and this repository run the same random
models (transformers {transformers}, torch {torch}, float32, CPU) on the same rows.

- **Prompts**: contexts, continuations, stop strings and token limits are equal byte for byte in every sample.
- **Log-likelihoods**: within {nats:g} nats (for whole pages, {relative:g} of their size). **Texts** and **metrics**: equal.
- Both our engines are compared: `auto` on all samples, `plain` on all likelihoods and on the first texts of each case.
- Llama, Qwen3 and GPT-2 shapes ({layers} layers, width {hidden}) with their own tokenizers: with a BOS token, without one, and
  with one special token for everything; GPT-2's 1,024 positions cut long prompts. Each shape has two models: one trained for {steps} steps
  on fragments in the formats of the tasks, so that it generates numbers, stop strings and ends of text; and, for log-likelihoods,
  its twin with noise added to the attention weights ({noise:g} standard deviations), so that its choices depend on the prompt.
- `script` is not a model: both sides get the same answers (right, nearly right and wrong ones) and the same made-up
  likelihoods, so that every metric has differences to measure. Here the tasks' own token limits are compared; the models'
  texts are cut earlier on both sides.
- Rows are real for {real};
  the other datasets have the few made-up rows of `tests/hub`, with difficult cases on purpose.
- Different on purpose: `gpqa` orders its choices by the question alone; here it runs with `-T order=lm-eval`, the order of
  lm-evaluation-harness with a fresh cache. `humaneval_instruct` stops at the end of the code block, where
  lm-evaluation-harness generates more and cuts it afterwards.
- Two parts of lm-evaluation-harness need a network and are replaced: the code checker (by one Python process per program)
  and, where nltk's `punkt_tab` is not installed, the sentence splitter (by nltk's without its list of abbreviations).

{verdicts} comparisons of {samples:,} samples: {state}.

`Difference` is the largest difference of a log-likelihood, in nats; `Texts` counts the equal texts of those compared.

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
        noise=NOISE,
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
