"""Figures that children measured, as the records of `run.json`; and what differs between variants besides the method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.comparison.curve import read_curve, read_rewards
from harness.comparison.tuning import Tuned
from harness.data.model_files import Snapshot
from harness.jobs import Benched, Trained
from harness.prepare.overlap import Found, own_texts, shared_runs
from harness.prepare.prepare import Prepared, Row
from harness.prepare.trainings import Training
from harness.results import Inference, Overlap, SharedSample, Throughput, Train, TrainingData, TuningTrial
from harness.stats.quantiles import percentile

_TOLD = {
    "lr",
    "steps",
    "epochs",
    "batch_size",
    "max_length",
    "data",
    "samples",
    "columns",
    "micro_batch_size",
    "packing",
}
"""Settings that notes tell in other words, or that change no result."""
OVERLAP_EXAMPLES = 5
"""Samples that `run.json` shows for each overlap."""


def train_record(trained: Trained, training: Training, reused: bool, tuned: Tuned | None = None) -> Train:
    """What training cost."""
    return Train(
        train_seconds=trained.train_seconds,
        tokens=trained.tokens,
        tokens_per_second=trained.tokens / trained.train_seconds if trained.train_seconds else 0.0,
        steps=trained.steps,
        lr=training.lr,
        batch_size=training.batch_size,
        seed=training.seed,
        samples=trained.samples,
        data=TrainingData(
            name=training.data.name,
            sha256=training.data.digest,
            rows=len(training.data.examples),
            duplicates=training.data.duplicates,
            cut=trained.truncated,
            dropped=trained.dropped,
            lost_tokens=trained.lost_tokens,
            validation_rows=len(training.validation.examples) if training.validation else None,
        ),
        final_loss=trained.final_loss,
        curve=read_rewards(trained.rewards) if trained.rewards else read_curve(trained.losses, trained.held_out_losses),
        step_seconds_p50=trained.step_seconds_p50,
        validation_loss=trained.validation_loss,
        tuning=tuple(TuningTrial(**vars(trial)) for trial in tuned.trials) if tuned else (),
        energy_joules=trained.energy_joules,
        reused=reused,
        **trained.peaks,
    )


def inference_record(benched: Benched) -> Inference:
    """What running costs, with the raw times."""
    prefill, decode = benched.prefill_seconds, benched.decode_seconds
    bases = benched.base_prefill_seconds, benched.base_decode_seconds
    raw = {"prefill": list(prefill), "decode": list(decode)}
    if bases[0]:
        raw |= {"base_prefill": list(bases[0]), "base_decode": list(bases[1])}
    return Inference(
        load_seconds=benched.load_seconds,
        prompt_tokens=benched.prompt_tokens,
        new_tokens=benched.new_tokens,
        batch_size=1,
        warmup=benched.warmup,
        repeats=benched.repeats,
        prefill_seconds_p50=percentile(prefill, 0.5),
        prefill_seconds_p90=percentile(prefill, 0.9),
        prefill_seconds_p99=percentile(prefill, 0.99),
        decode_seconds_per_token_p50=percentile(decode, 0.5) if decode else None,
        decode_seconds_per_token_p90=percentile(decode, 0.9) if decode else None,
        decode_seconds_per_token_p99=percentile(decode, 0.99) if decode else None,
        raw_seconds=raw,
        base_prefill_seconds_p50=percentile(bases[0], 0.5) if bases[0] else None,
        base_decode_seconds_per_token_p50=percentile(bases[1], 0.5) if bases[1] else None,
        throughput=tuple(Throughput(batch_size=size, tokens_per_second=rate) for size, rate in benched.throughput),
        probe_drift=benched.probe_drift,
        **benched.peaks,
    )


def overlap_records(prepared: Prepared) -> tuple[Overlap, ...]:
    """What the samples of every task share with every set of training data."""
    data = {training.data.digest: training.data for training in prepared.trainings}
    records = []
    for taught in data.values():
        texts = [f"{example.prompt}{example.completion}" for example in taught.examples]
        for task in prepared.tasks:
            items = prepared.rows[0].items[task.name]
            found = shared_runs([(item.request.id, *own_texts(item.sample)) for item in items], texts)
            records.append(_overlap(task.name, taught.name, len(items), found))
    return tuple(records)


def _overlap(task: str, train: str, count: int, found: Found) -> Overlap:
    return Overlap(
        task=task,
        train=train,
        n=count,
        words=found.words,
        sharing=len(found.samples),
        contained=len(found.contained),
        examples=tuple(
            SharedSample(id=each.sample, train_row=each.row, question_part=each.part, text=each.text)
            for each in found.samples[:OVERLAP_EXAMPLES]
        ),
    )


def overlap_summary(overlaps: Sequence[Overlap]) -> str:
    """All of it in a line.

    Example:
        >>> overlap_summary([])
        'nothing is trained'
    """
    if not overlaps:
        return "nothing is trained"
    total, sharing = sum(each.n for each in overlaps), sum(each.sharing for each in overlaps)
    found = [f"{each.contained:,} of {each.n:,} samples of {each.task}" for each in overlaps if each.contained]
    stand = f"{', '.join(found)} stand in the training data" if found else "no sample stands in the training data"
    return f"{stand}; {sharing:,} of {total:,} share a run of words with it" if sharing else stand


def _other_base(row: Row, model: Snapshot) -> list[str]:
    """What a given adapter says of its base, where that is not the model that it stands on here."""
    given = row.adapter or (row.training.start if row.training else None)
    named = given.config.get("base_model_name_or_path") if isinstance(given, Snapshot) and given.is_adapter else None
    same = not named or Path(named).name == Path(model.name).name or Path(named) == model.folder
    if same or model.name.replace("/", "--") in str(named):  # as the Hub's cache writes a name
        return []
    return [
        f"{row.spec.name}: its adapter names `{named}` as the base that it was trained on, and stands on `{model.name}`"
    ]


def fairness(prepared: Prepared, rows: Sequence[Row]) -> list[str]:
    """Sentences about what differs between variants besides the method.

    One note for the settings of the trainings (only those that are not the same for all), one for rates that nobody chose,
    one for the prompts, and one for each given adapter that names another base.
    """
    notes = [note for row in rows for note in _other_base(row, prepared.model)]
    trained = [row for row in rows if row.training and not row.spec.replica]
    described = {row.spec.name: _settings(row.training) for row in trained if row.training}
    labels = dict.fromkeys(label for settings in described.values() for label in settings)
    differing = [k for k in labels if len({settings.get(k, "default") for settings in described.values()}) > 1]
    if differing:
        parts = [
            f"{name}: " + ", ".join(f"{k} {settings.get(k, 'default')}" for k in differing)
            for name, settings in described.items()
        ]
        notes.append("trainings differ in more than the method; " + "; ".join(parts))
    untuned = {row.spec.name: row.training.lr for row in trained if row.training and row.training.settings.lr is None}
    online = {row.spec.name for row in trained if row.training and not row.training.tunable} & untuned.keys()
    if online and prepared.config.tune_lr is not None:
        notes.append(
            f"`--tune-lr` leaves out {', '.join(f'{name} ({untuned[name]:g})' for name in sorted(online))}:"
            " a stage that learns from rewards has no loss of held-out rows"
        )
    if untuned and prepared.config.tune_lr is None:
        rates = ", ".join(f"{name} {lr:g}" for name, lr in untuned.items())
        notes.append(f"learning rates are the methods' own, not tuned: {rates}; `--tune-lr 5` tries as many for each")
    prompts = {
        row.spec.name: _prompts(row.prompting.shots, row.prompting.system, row.prompting.template) for row in rows
    }
    if len(set(prompts.values())) > 1:
        notes.append("prompts differ; " + "; ".join(f"{name}: {text}" for name, text in prompts.items()))
    if prepared.model.name == "tiny":
        notes.append(
            "`tiny` is a demonstration: a small model of an invented world; real models go through the same code"
        )
    return notes


def _settings(training: Training) -> dict[str, str]:
    """What decides a training besides its method; settings left alone are left out."""
    others = training.settings.model_dump(exclude_none=True, exclude=_TOLD)
    return {
        "lr": f"{training.lr:g}",
        "length": f"{training.steps} steps" if training.steps is not None else f"{training.epochs:g} epochs",
        "batch": str(training.batch_size),
        "max length": str(training.max_length),
        "seed": str(training.seed),
        "data": f"{training.data.name} ({len(training.data.examples)} rows)",
        **{name.replace("_", " "): str(value) for name, value in others.items()},
    }


def _prompts(shots: int | None, system: str | None, template: object) -> str:
    parts = ["the tasks' own shots" if shots is None else f"{shots} shots"]
    if system:
        parts.append(f"system prompt “{system}”")
    if template:
        parts.append("chat template")
    return ", ".join(parts)
