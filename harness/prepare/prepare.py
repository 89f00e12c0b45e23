"""Prepares a run: everything that can be known, and can fail, before a model is loaded. No torch.

A configuration becomes rendered samples, training examples, resolved settings and file paths. A misspelt column, an empty
training file or a missing adapter is reported here.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import __version__
from harness.config.config import Config
from harness.config.variants import VariantSpec
from harness.data.model_files import Snapshot, find_model
from harness.deploy.tools import form_versions, reader_version
from harness.errors import UserError
from harness.jobs import PACKAGES, REVISIONS, Example, Item, RewardFunction
from harness.prepare.checks import check, train_only
from harness.prepare.sampling_order import in_random_order
from harness.prepare.tasks import ScoredTask, prompting_of, refuse_code, scored_task
from harness.prepare.template_options import with_template_options
from harness.prepare.trainings import Training, Trainings, artifact_digest, content_digest, given_artifact
from harness.prompts.chat import ChatTemplate
from harness.prompts.render import Prompting, render
from harness.registry.find import source_digest
from harness.serving.address import is_address
from harness.serving.model import SERVERS_TEMPLATE, ServedModel, find_served, find_tokenizer
from harness.storage import key
from harness.tokens.description import Description, load_template
from harness.tokens.training_labels import row_lengths


@dataclass(frozen=True)
class PreparedVariant:
    """One variant of a run, ready to be trained and scored."""

    spec: VariantSpec
    prompting: Prompting
    items: dict[str, list[Item]]
    """By task name; variants with equal prompts share the lists."""
    training: Training | None
    adapter: Snapshot | None
    """A given adapter or checkpoint."""
    served: ServedModel | None = None
    """The server on which it is scored."""
    scored: bool = True
    """False: it is only trained, since no task can score it and another variant needs it."""


@dataclass(frozen=True)
class Prepared:
    """A run, ready to start."""

    config: Config
    model: Snapshot
    tasks: tuple[ScoredTask, ...]
    variants: tuple[PreparedVariant, ...]

    @property
    def trainings(self) -> list[Training]:
        """Each training run once, in the order of the variants; a run that needs the artifact of another comes after it."""
        found: dict[str, Training] = {}

        def add(training: Training) -> None:
            for needed in (training.start, training.reward):
                if isinstance(needed, Training):
                    add(needed)
            found.setdefault(training.id, training)

        for variant in self.variants:
            if variant.training:
                add(variant.training)
        return list(found.values())

    @property
    def served(self) -> list[ServedModel]:
        """The served models that are scored, each once."""
        return list({variant.served.served: variant.served for variant in self.variants if variant.served}.values())

    @property
    def given(self) -> list[Snapshot]:
        """The models and adapters that this run reads: the base, given variants, starting points and reward models."""
        adapters = [variant.adapter for variant in self.variants]
        used = [given for training in self.trainings for given in (training.start, training.reward)]
        return [self.model, *(given for given in (*adapters, *used) if isinstance(given, Snapshot))]

    @property
    def identity(self) -> str:
        """Digest by which equal runs are recognised: the configuration, and the content of every file and dataset it reads."""
        return key(
            config=self.config.sha256,
            harness=__version__,
            revisions=REVISIONS,
            packages=_versions(),
            devices=_devices() if "auto" in (self.config.device, self.config.dtype) else None,
            model=self.model.digest,
            tasks=[task.digest for task in self.tasks],
            prompts=[list(map(_prompts_digest, items)) for items in self._distinct_items],
            methods=sorted({source_digest(training.entry) for training in self.trainings}),
            train=[training.data.digest for training in self.trainings],
            validation=[training.validation.digest for training in self.trainings if training.validation],
            adapters=[
                artifact_digest(variant.adapter, self.config.method_files)
                for variant in self.variants
                if variant.adapter
            ],
            given=[
                content_digest(given, self.config.method_files)
                for training in self.trainings
                for given in (training.start, training.reward)
                if isinstance(given, Snapshot | RewardFunction)
            ],
            monitors=[
                [training.monitor.digest, _prompts_digest(training.monitor.items)]
                for training in self.trainings
                if training.monitor
            ],
            **self._forms,
            **({"served": [served.digest for served in self.served]} if self.served else {}),
        )

    @property
    def _forms(self) -> dict[str, list[Any]]:
        """Versions of the tools and readers of deployed forms; nothing without any, so that earlier runs keep their digests."""
        forms = [variant.spec.form for variant in self.variants if variant.spec.form]
        return {"forms": [[*form_versions(form), reader_version(form)] for form in forms]} if forms else {}

    @property
    def _distinct_items(self) -> list[list[list[Item]]]:
        """Each set of prompts once, by task: variants with equal prompts share it."""
        found = {id(variant.items): variant.items for variant in self.variants}
        return [list(items.values()) for items in found.values()]

    @property
    def user_files(self) -> list[Path]:
        """The user's files that only children import: those of methods, and of reward functions."""
        methods = [each.entry.path for each in self.trainings if each.entry.module is None]
        functions = [each.reward.path for each in self.trainings if isinstance(each.reward, RewardFunction)]
        return sorted({*methods, *functions})


def prepare(
    config: Config,
    *,
    scores: bool = True,
    describe: Callable[[Path], Description] | None = None,
    count: Callable[[Path, Sequence[Example], bool], list[int]] | None = None,
) -> Prepared:
    """Resolves a configuration and checks that it can be run.

    Args:
        config: The configuration.
        scores: Whether the variants will be scored: some of them cannot be scored on some tasks.
        describe: Describes the tokenizer in a folder, in another process; None: this process does, which imports torch.
        count: Counts the tokens of training rows with that tokenizer, with their answers or without; None: as for `describe`.

    Raises:
        UserError: The first error of the models, tasks, prompts, training data or training runs.
    """
    model = _model(config, scores=scores)
    tasks = tuple(map(scored_task, config.task_specs))
    refuse_code(config, tasks)
    if isinstance(model, ServedModel) and model.tokenizer is None:
        template: ChatTemplate | None = SERVERS_TEMPLATE
    else:
        template = load_template(model.folder, trust_remote_code=config.trust_remote_code, ask=describe)
    template = with_template_options(config.model, template, config.template_options)
    rendered: dict[tuple[Any, ...], dict[str, list[Item]]] = {}

    def tokens(examples: Sequence[Example], answered: bool) -> list[int]:
        if count is not None:
            return count(model.folder, examples, answered)
        return row_lengths(model.folder, examples, answered=answered, trust_remote_code=config.trust_remote_code)

    trainings = Trainings(config, tasks, template, tokens)
    variants = []
    for spec in config.variants:
        prompting = prompting_of(config, spec, template)
        wanted = (prompting.shots, prompting.system, prompting.template is not None, prompting.think)
        if wanted not in rendered:
            rendered[wanted] = {
                task.name: render(task.name, task.task, prompting, groups=task.spec.groups, limit=config.limit)
                for task in tasks
            }
            if config.until_decided:
                rendered[wanted] = in_random_order(tasks, rendered[wanted], config.seed)
        training = trainings.of(spec) if spec.kind == "method" else None
        adapter = given_artifact(config, spec.source, spec.revision) if spec.kind == "adapter" else None
        served = _served(spec, model, scores=scores)
        variants.append(PreparedVariant(spec, prompting, rendered[wanted], training, adapter, served))
    if config.template_options and not any(variant.prompting.template for variant in variants):
        raise UserError(
            "no variant uses the chat template, so `template_options` change nothing",
            hint="add `--apply-chat-template` or `template=chat`",
        )
    shares = any(variant.prompting.shares_shots_of(task.task) for variant in variants for task in tasks)
    if scores and config.shared_shots and not shares:
        raise UserError(
            "no task draws solved examples for each sample, so `--shared-shots` changes nothing",
            hint="leave it out, or give a number of examples with `-f N`",
        )
    prepared = Prepared(config, model, tasks, tuple(variants))
    unscored = train_only(prepared) if scores else ()
    variants = [replace(variant, scored=variant.spec.name not in unscored) for variant in variants]
    prepared = replace(prepared, variants=tuple(variants))
    check(prepared, scores=scores)
    return prepared


def _model(config: Config, *, scores: bool) -> Snapshot:
    """The model of a run, here or on a server.

    Raises:
        UserError: There is none, or a variant needs the weights of a served model.
    """
    if not is_address(config.model) or not scores:
        return find_model(config.model, trust_remote_code=config.trust_remote_code)
    for spec in config.variants:
        if spec.kind in ("method", "adapter") or spec.bits or spec.merged or spec.form:
            does = "cannot be trained" if spec.kind == "method" else "cannot be changed"
            raise UserError(
                f"variant `{spec.name}`: a served model {does}, as its weights are on the server",
                hint="name the weights with `--model`, and the served model as a variant:"
                f" `--model FOLDER {spec.text} {config.model}`",
            )
    code = config.trust_remote_code
    tokenizer = None if config.tokenizer is None else find_tokenizer(config.tokenizer, trust_remote_code=code)
    return find_served(config.model, tokenizer=tokenizer)


def _served(spec: VariantSpec, model: Snapshot, *, scores: bool) -> ServedModel | None:
    """The server on which a variant is scored; None if its model is loaded here.

    Raises:
        UserError: The server does not answer or has no such model, or nothing is scored.
    """
    if spec.served is None:
        return model if isinstance(model, ServedModel) else None
    if not scores:
        raise UserError(f"variant `{spec.name}` is served, and can only be scored", hint=f"leave out `{spec.served}`")
    shared, tokenizer = (model.served.url, model.tokenizer) if isinstance(model, ServedModel) else (None, model)
    return find_served(spec.served, shared=shared, tokenizer=tokenizer)


_COUNTING = ("numpy", "scipy", "evaluate", "rouge-score", "sacrebleu", "nltk")
"""Libraries that compute scores and intervals."""


def _versions() -> dict[str, str | None]:
    """Versions of the libraries that decide results, read without importing them."""
    return {name: _version(name) for name in (*PACKAGES, *_COUNTING)}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[str | None]:
    """The GPUs that `auto` can choose, as far as they are known without importing torch."""
    found = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    return [*found, os.environ.get("CUDA_VISIBLE_DEVICES") if found else None]


def _prompts_digest(items: Sequence[Item]) -> str:
    """Digest of prompts: no other digest covers their solved examples, descriptions and imported helpers."""
    return key(prompts=[item.request.sha256 for item in items])
