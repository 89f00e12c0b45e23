"""Notes on differences between variants other than the method."""

from harness.comparison.fairness import fairness
from harness.config.parse import configure
from harness.prepare.prepare import prepare


def test_variants_that_share_settings_and_prompts_are_named_together() -> None:
    variants = ["base", "few=base:shots=2", "full=full:lr=1e-4", "lora=lora:lr=1e-3", "dora=dora:lr=1e-3"]
    prepared = prepare(configure(variants, tasks=["mini_gsm8k"], limit=1, train={"steps": 1}))
    trained, prompts = fairness(prepared, prepared.variants)[:2]
    assert trained == "training settings differ, not only the method; full: lr 0.0001; lora, dora: lr 0.001"
    assert prompts == "prompts differ; base, full, lora, dora: the tasks' own shots; few: 2 shots"


def test_learning_rates_of_the_embedded_model_are_said_to_be_scaled() -> None:
    prepared = prepare(configure(["lora"], tasks=["mini_gsm8k"], limit=1, train={"steps": 1}))
    (note,) = [note for note in fairness(prepared, prepared.variants) if "learning rates" in note]
    assert note.startswith(
        "learning rates are the methods' defaults × 10, which the embedded model needs, not tuned: lora 0.002"
    )
