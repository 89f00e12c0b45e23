"""Makes the document of a run (`run.json`) from its session."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import __version__
from harness.api import Choose, Sample
from harness.comparison.curve import read_curve, read_rewards
from harness.comparison.fairness import fairness
from harness.comparison.latency_record import inference_record
from harness.comparison.prediction import NOTHING_PREDICTED, Prediction
from harness.comparison.prompt_notes import prompt_notes
from harness.comparison.replicas import replicated
from harness.comparison.resolved import resolved_config
from harness.comparison.scores import Scores, compute_scores
from harness.comparison.served import served_protocol
from harness.comparison.shown_samples import shown_samples
from harness.comparison.state import Session, State
from harness.comparison.thought_notes import default_thinking, unfinished_thoughts
from harness.comparison.tuning import Tuned
from harness.comparison.until_decided import scored_whole
from harness.comparison.writers import writer_of
from harness.deploy.tools import reader_version
from harness.jobs import Trained
from harness.metrics.signatures import signatures
from harness.prepare.tasks import ScoredTask
from harness.prepare.trainings import Training
from harness.report.gains import gains
from harness.report.numbers import Scale, counted
from harness.report.price import priced
from harness.report.recommendation import recommendation
from harness.results import (
    Artifact,
    CurvePoint,
    Evaluation,
    MetricInfo,
    Parameters,
    Protocol,
    Replicated,
    Run,
    Score,
    ShownSamples,
    TaskInfo,
    Train,
    TrainingData,
    TuningTrial,
    Variant,
)
from harness.runs.reuse import folder_bytes, folder_numbers
from harness.stats.curve_points import CurveFigures, thinned
from harness.storage import key

EXPECTED_ANSWERS = 0.95
"""Below this share of texts with an answer, a note says so: the score is about the form of the answers, too."""


@dataclass(frozen=True)
class Counted:
    """The statistics of a run whose samples are all on disk."""

    scores: Scores
    replicated: tuple[Replicated, ...]
    notes: tuple[str, ...]
    """Notes on the samples."""
    shown: tuple[ShownSamples, ...] = ()
    """Samples that variants have won and lost."""


def unfinished(session: Session) -> Run:
    """Makes the document of a run that is not finished, or that scores nothing: the scores are those of finished tasks."""
    return _document(session, None, _variant_notes(session))


def count(session: Session) -> Counted:
    """Computes scores, differences and verdicts from the samples on disk."""
    tasks, config = session.prepared.tasks, session.config
    scored = [state for state in session.states.values() if state.scored]
    rows = {state.name: {task.name: in_order(session, state, task) for task in tasks} for state in scored}
    protocols = {state.name: {task.name: protocol(session, state, task) for task in tasks} for state in scored}
    scores = compute_scores(tasks, rows, protocols, session.baseline, config.seed, session.decided, session.early_tasks)
    losses = {
        state.name: loss for state in scored if state.trained and (loss := state.trained.validation_loss) is not None
    }
    means = replicated(tasks, rows, _trainings(session), session.baseline, losses, folds=config.folds)
    notes = [*scored_whole(session), *default_thinking([state.variant for state in scored]), *unfinished_thoughts(rows)]
    items = session.prepared.variants[0].items
    shown = shown_samples(tasks, rows, items, session.baseline, config.seed)
    return Counted(scores, tuple(means), tuple(notes), shown)


def finished(session: Session, counted: Counted) -> Run:
    """Makes the complete document."""
    scores = counted.scores
    notes = [
        *_variant_notes(session),
        *scores.warnings,
        *_cut_texts(scores),
        *missing_answers(scores),
        *timed_out_programs(scores),
        *counted.notes,
        *training_data_notes(session),
    ]
    run = _document(session, scores, notes)
    run = run.model_copy(update={"replicated": counted.replicated, "samples_shown": counted.shown})
    return run.model_copy(update={"gains": tuple(gains(run)), "recommendation": recommendation(run)})


def _variant_notes(session: Session) -> list[str]:
    """Lists the notes on single variants; training, scoring and timing may note the same."""
    found = [
        f"{state.name}: {note}"
        for state in session.states.values()
        for note in (
            *state.notes,
            *(state.trained.notes if state.trained else ()),
            *(state.benched.notes if state.benched else ()),
        )
    ]
    return list(dict.fromkeys(found))


def _trainings(session: Session) -> dict[str, list[str]]:
    """Lists the rows that are training runs of a variant, by variant."""
    found: dict[str, list[str]] = {}
    for spec in session.config.variants:
        if spec.kind == "method":
            found.setdefault(spec.replica_of or spec.name, []).append(spec.name)
    return found


def _document(session: Session, scores: Scores | None, notes: Sequence[str]) -> Run:
    prepared = session.prepared
    variants = [state.variant for state in session.states.values()]
    trained_on = {name for training in prepared.trainings for name in training.data.tasks}
    run = Run(
        harness=__version__,
        created=session.created,
        command=session.command,
        config=session.config.to_dict(),
        config_sha256=session.identity,
        environment={
            **session.environment,
            "model": {"name": prepared.model.name, "digest": prepared.model.digest},
        },
        baseline=session.baseline,
        seed=session.config.seed,
        notes=(*fairness(prepared, variants), *prompt_notes(prepared, variants), *notes),
        tasks=tuple(_task(session, task, scores, trained_on=task.name in trained_on) for task in prepared.tasks),
        variants=tuple(
            _variant(session, state, scores.by_variant.get(state.name, []) if scores else state.scores)
            for state in session.states.values()
        ),
        comparisons=tuple(scores.comparisons) if scores else (),
        tests=scores.tests if scores else None,
        overlaps=session.overlaps,
        config_resolved=resolved_config(session.config, session.states.values()),
        seconds=dict(session.seconds),
    )
    return priced(run, session.config.price)


def _task(session: Session, task: ScoredTask, scores: Scores | None, *, trained_on: bool) -> TaskInfo:
    items, headline = session.prepared.variants[0].items[task.name], task.metrics[0]
    found = [each for mine in scores.by_variant.values() for each in mine] if scores else []
    values = [each.value for each in found if (each.task, each.metric) == (task.name, headline.name)]
    scale = Scale.of(headline.name, values, headline.bounds)
    return TaskInfo(
        name=task.name,
        n=len(items),
        trained_on=trained_on,
        headline=headline.name,
        metrics=tuple(
            MetricInfo(name=metric.name, higher_is_better=metric.higher_is_better) for metric in task.metrics
        ),
        truncated=scores.truncated[task.name] if scores else 0,
        data=task.data,
        smallest_difference=scores.smallest[task.name] if scores else None,
        until_decided=task.name in session.early_tasks,
        title=None if task.entry.module else task.entry.name,
        scale=scale.kind if scores else None,
        decimals=scale.decimals if scores else None,
        chance=chance(headline.name, [item.sample for item in items]),
    )


def chance(headline: str, samples: Sequence[Sample]) -> float | None:
    """Computes the accuracy of random choices; None for other metrics and for answers that are generated."""
    if not headline.startswith("acc") or not all(isinstance(sample, Choose) for sample in samples):
        return None
    shares = [
        (1 if isinstance(sample.answer, int) else len(sample.answer)) / len(sample.choices)
        for sample in samples
        if isinstance(sample, Choose) and sample.choices
    ]
    return sum(shares) / len(shares) if len(shares) == len(samples) and shares else None


def _variant(session: Session, state: State, scores: Sequence[Score]) -> Variant:
    spec, training, trained = state.variant.spec, state.variant.training, state.trained
    artifact = None
    if state.artifact is not None:
        where = state.artifact.relative_to(session.folder.path)
        artifact = Artifact(
            path=str(where), bytes=folder_bytes(state.artifact), parameters=folder_numbers(state.artifact)
        )
    trainable = trained.parameters_trainable if trained else 0
    return Variant(
        name=spec.name,
        spec=spec.canonical,
        method=spec.entry.name if spec.entry else None,
        status=state.status,
        error=state.error,
        hyperparameters=spec.hyperparameters,
        parameters=Parameters(total=state.parameters, trainable=trainable) if state.parameters else None,
        model_bytes=state.model_bytes,
        train=train_record(trained, training, state.reused, state.tuned, state.predicted)
        if trained and training
        else None,
        artifact=artifact,
        inference=inference_record(state.benched) if state.benched else None,
        scores=tuple(scores),
    )


def protocol(session: Session, state: State, task: ScoredTask) -> Protocol:
    """Returns everything that decides a variant's scores on a task."""
    items, prompting = state.variant.items[task.name], state.variant.prompting
    mode, form = items[0].request.mode, state.variant.spec.form
    served = served_protocol(session, state.variant.served) if state.variant.served else None
    return Protocol(
        version=task.task.version,
        shots=0 if mode == "text" else prompting.count_of(task.task),
        shared_shots=mode != "text" and prompting.shares_shots_of(task.task),
        mode="generate" if mode == "generate" else "loglikelihood",
        numerics="server" if served else session.config.numerics,
        engine="endpoint" if served else session.config.engine,
        dtype="server" if served else session.environment["dtype"],
        form=form.made if form else None,
        reader=reader_version(form) if form else None,
        served=served,
        writer=writer_of(session, state, task) if mode == "generate" and served is None else None,
        chat_template=prompting.template.text if prompting.template else None,
        system=prompting.system,
        think=prompting.think or ("default" if prompting.template and prompting.template.thought else None),
        template_options=session.config.template_options if prompting.template else {},
        token_budget=session.token_budget,
        prompt_sha256=key(prompts=[item.request.sha256 for item in items]),
        signatures=signatures(task.metrics, [item.sample for item in items]),
    )


def in_order(session: Session, state: State, task: ScoredTask) -> list[dict[str, Any]]:
    """Returns the samples in the order of the task; their file has them in the order of the packs."""
    by_id = {row["id"]: row for row in session.log(state, task).rows()}
    return [by_id[item.request.id] for item in session.asked(state, task)]


def _cut_texts(scores: Scores) -> list[str]:
    prompts = [
        f"{name}: {count} prompts did not fit into the model's context and were truncated on the left"
        for name, count in scores.truncated.items()
        if count
    ]
    answers = [
        f"{name}: the end of the model's context cut {counted(count, 'answer')} short"
        for name, count in scores.shortened.items()
        if count
    ]
    return prompts + answers


def timed_out_programs(scores: Scores) -> list[str]:
    """Lists the variants and tasks with generated programs that ran out of time."""
    found = {
        (name, score.task): score.timed_out
        for name, each in scores.by_variant.items()
        for score in each
        if score.timed_out
    }
    return [
        f"{name}: on {task}, {counted(count, 'generated program')} timed out, also when run alone, and"
        f" {'counts' if count == 1 else 'count'} as wrong"
        for (name, task), count in found.items()
    ]


def missing_answers(scores: Scores) -> list[str]:
    """Lists the scores whose metric found no answer in more than a few texts."""
    return [
        f"{name}: on {score.task}, `{score.metric}` found an answer in {score.found * score.n:.0f} of {score.n} texts"
        f" ({score.found:.0%})"
        for name, found in scores.by_variant.items()
        for score in found
        if score.found is not None and score.found < EXPECTED_ANSWERS
    ]


def training_data_notes(session: Session) -> list[str]:
    """Lists notes on the training data, including how much the maximum length has cut."""
    found: dict[str, None] = {}
    for state in session.states.values():
        training, trained = state.variant.training, state.trained
        if training is None:
            continue
        found |= dict.fromkeys(training.data.notes)
        if trained and trained.lost_tokens:
            cut = f"{trained.truncated} were truncated on the right" if trained.truncated else ""
            dropped = f"{trained.dropped} were dropped because no answer token was left" if trained.dropped else ""
            found[
                f"{len(training.data.examples)} training rows of {training.data.name}, limited to {training.settings.max_length}"
                f" tokens or the model's context: {' and '.join(filter(None, (cut, dropped)))};"
                f" {trained.lost_tokens:,} tokens were lost"
            ] = None
    return list(found)


def train_record(
    trained: Trained,
    training: Training,
    reused: bool,
    tuned: Tuned | None = None,
    predicted: Prediction = NOTHING_PREDICTED,
) -> Train:
    """Makes the record of a training run."""
    return Train(
        train_seconds=trained.train_seconds,
        tokens=trained.tokens,
        tokens_per_second=trained.tokens / trained.train_seconds if trained.train_seconds else 0.0,
        steps=trained.steps,
        lr=training.settings.lr,
        batch_size=training.settings.batch_size,
        seed=training.settings.seed,
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
            tasks=_trained_tasks(training),
        ),
        final_loss=trained.final_loss,
        curve=read_rewards(trained.rewards) if trained.rewards else read_curve(trained.losses, trained.held_out_losses),
        curve_points=tuple(
            CurvePoint.model_validate(point) for point in trained.curve_points or _points(trained.losses)
        ),
        evaluations=tuple(
            Evaluation(step=step, validation_loss=loss if math.isfinite(loss) else None)
            for step, loss in zip(trained.held_out_steps, trained.held_out_losses, strict=False)
        ),
        step_seconds_p50=trained.step_seconds_p50,
        validation_loss=trained.validation_loss,
        tuning=tuple(TuningTrial(**vars(trial)) for trial in tuned.trials) if tuned else (),
        energy_joules=trained.energy_joules,
        cpu_seconds=trained.cpu_seconds,
        waited_share=trained.waited_share,
        precision=trained.precision,
        phase_seconds=dict(trained.phase_seconds),
        block_seconds=trained.block_seconds,
        predicted_peak_bytes=predicted.peak_bytes,
        predicted_seconds=predicted.seconds,
        reused=reused,
        **trained.peaks,
    )


def _points(losses: Sequence[float]) -> tuple[CurveFigures, ...]:
    """The loss curve of a training run of an earlier version, which recorded losses alone."""
    return thinned([{"step": number, "loss": loss} for number, loss in enumerate(losses, 1)])


def _trained_tasks(training: Training) -> tuple[str, ...]:
    """Lists the tasks that a training run was trained for, with those of the training runs that it continues."""
    earlier = _trained_tasks(training.start) if isinstance(training.start, Training) else ()
    return tuple(dict.fromkeys((*earlier, *training.data.tasks)))
