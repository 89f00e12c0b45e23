"""Artifacts of training runs: adapters that peft alone loads, merged checkpoints that transformers alone loads, cards."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from huggingface_hub import ModelCard
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.cli import main
from harness.comparison import card, dry_run, recipes
from harness.comparison import run as comparison
from harness.comparison.card import CARD, model_card
from harness.comparison.fairness import fairness
from harness.comparison.replicas import HELD_OUT
from harness.comparison.state import Session
from harness.comparison.training import TrainResult, train_only
from harness.config.parse import configure
from harness.data.model_files import Snapshot
from harness.errors import UserError
from harness.jobs import Base, Example, MergeJob, Recipe, TrainJob
from harness.models.load import Resident, load_base, method_function
from harness.prepare.prepare import prepare
from harness.runs.folder import RunFolder, load_run
from harness.settings import TrainingSettings, TrainSettings
from harness.worker import child

EXAMPLES = [Example(f"Question: {n % 4}? Answer:", f" {['one', 'two', 'three', 'four'][n % 4]}") for n in range(8)]
SETTINGS = TrainingSettings(lr=2e-2, steps=3, epochs=None, batch_size=4, micro_batch_size=4, max_length=64, seed=0)
IDS = torch.arange(3, 19)[None]
LOADED_BY_PEFT: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "dora": {"rank": 4},
    "pissa": {"rank": 4},
    "ia3": {},
    "prompt": {"tokens": 4},
    "prefix": {"tokens": 4, "width": 8},
    "qlora": {"rank": 4},
}
MERGED: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "pissa": {"rank": 4},
    "qlora": {"rank": 4},
    "freeze": {"layers": 1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    tiny.save_tiny(root / "llama")
    return root


def taught(root: Path, output: Path, name: str, options: dict[str, Any]) -> Recipe:
    """A method's artifact after three steps."""
    base = tiny.tiny_base(root / "llama", bits=4 if name == "qlora" else None)
    method = tiny.built_in(name, **options)
    places = output / "artifact", output / "train.jsonl", output / "state"
    child.train(TrainJob(base, method, SETTINGS, EXAMPLES, "delta", *places, "the key"), lambda event: None)
    by_peft = (places[0] / "adapter_config.json").is_file()
    return Recipe(base, places[0], method=None if by_peft else method)


def said(model: Any) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(input_ids=IDS, use_cache=True).logits.float()
    return logits


def attached(recipe: Recipe) -> Tensor:
    return said(Resident(recipe.base, method_function).attach(recipe))


@pytest.mark.parametrize("name", LOADED_BY_PEFT)
def test_peft_alone_loads_an_adapter_with_our_logits(root: Path, tmp_path: Path, name: str) -> None:
    from peft import PeftModel

    recipe = taught(root, tmp_path, name, LOADED_BY_PEFT[name])
    base = load_base(recipe.base) if name == "qlora" else AutoModelForCausalLM.from_pretrained(recipe.base.folder)
    untouched = said(base)
    found = said(PeftModel.from_pretrained(base, recipe.adapter).eval())
    assert torch.equal(found, attached(recipe))
    assert (found[:, -1] - untouched[:, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", MERGED)
def test_transformers_alone_loads_a_merged_checkpoint_with_the_variants_logits(
    root: Path, tmp_path: Path, name: str
) -> None:
    recipe = taught(root, tmp_path, name, MERGED[name])
    output = tmp_path / "merged" / name
    child.merge(MergeJob(Recipe(recipe.base, recipe.adapter, True, method=recipe.method), output))
    model = AutoModelForCausalLM.from_pretrained(output)
    assert type(model).__name__ == "LlamaForCausalLM" and model.config.use_cache
    assert not hasattr(model.config, "quantization_config")
    torch.testing.assert_close(said(model), attached(recipe), rtol=1e-5, atol=1e-5)
    assert AutoTokenizer.from_pretrained(output)("one")["input_ids"] == tiny.tiny_tokenizer()("one")["input_ids"]
    assert [path.name for path in output.parent.iterdir()] == [name]


def test_weights_that_the_architecture_lacks_are_refused(root: Path, tmp_path: Path) -> None:
    recipe = taught(root, tmp_path, "bitfit", {"add": True})
    job = MergeJob(Recipe(recipe.base, recipe.adapter, True, method=recipe.method), tmp_path / "merged")
    with pytest.raises(UserError, match=r"no place for: model.*\.bias"):
        child.merge(job)
    assert not job.output.exists()


def test_an_interrupted_merge_leaves_the_old_checkpoint(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = taught(root, tmp_path, "lora", {"rank": 4})
    job = MergeJob(Recipe(recipe.base, recipe.adapter, True), tmp_path / "merged")
    child.merge(job)
    before = (job.output / "model.safetensors").stat().st_mtime_ns

    def torn(model: Any, tokenizer: Any, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(child, "save_checkpoint", torn)
    with pytest.raises(OSError, match="No space"):
        child.merge(job)
    assert (job.output / "model.safetensors").stat().st_mtime_ns == before


# By command


pytestmark = pytest.mark.usefixtures("in_process")


def left_by(output: Path, variant: str, *, merge: bool = False, **settings: Any) -> TrainResult:
    shared = {"steps": 2, "samples": 24, "batch_size": 4}
    train = {**shared, **settings.pop("train", {})}
    config = configure([variant], tasks=["mini_gsm8k"], train=train, output_dir=output, **settings)
    return train_only(config, command="what was typed", merge=merge)


def left_session(output: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """The session of a finished training run."""
    sessions: list[Session] = []
    own = comparison.RunInProgress.train_all

    def train_all(self: comparison.RunInProgress) -> None:
        own(self)
        sessions.append(self.session)

    monkeypatch.setattr(comparison.RunInProgress, "train_all", train_all)
    left_by(output, "lora:rank=4")
    return sessions[0]


@pytest.mark.parametrize(
    ("variant", "library", "facts"),
    [
        (
            "lora:rank=4",
            "peft",
            [
                "rank = 4",
                "0.002, the method's default × 10, which the embedded model needs, not tuned",
                "PeftModel.from_pretrained",
            ],
        ),
        ("full:lr=1e-4", "transformers", ["0.0001, as given", 'AutoModelForCausalLM.from_pretrained("./full']),
        ("freeze:layers=1", "finetune-harness", ["layers = 1", "harness eval ./freeze"]),
    ],
)
def test_a_card_says_how_the_artifact_was_made(tmp_path: Path, variant: str, library: str, facts: list[str]) -> None:
    folder = left_by(tmp_path, variant, train={"validation": "0.25"}).artifact
    text = (folder / CARD).read_text()
    [run] = [load_run(path.parent) for path in tmp_path.glob("*/run.json")]
    train = run.variants[0].train
    assert train is not None and train.data is not None
    facts += ["18 rows", "6 rows held out", train.data.sha256[:16], "2 steps of 4 rows", train.curve, "transformers 5"]
    facts += [f"{train.validation_loss:.4g}", run.environment["model"]["digest"][:16]]
    assert [fact for fact in facts if fact not in text] == []
    header = ModelCard(text).data.to_dict()
    assert header["library_name"] == library and "base_model" not in header
    assert header["tags"] == ["finetune-harness", variant.partition(":")[0], "sft"]


def test_a_card_names_the_base_and_the_data_that_are_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = left_session(tmp_path, monkeypatch)
    (state,) = session.states.values()
    training = state.variant.training
    assert training is not None
    on_hub = replace(training, given=TrainSettings(data="hub:org/rows:main*2 + ./mine.jsonl + gsm8k"))
    state.variant = replace(state.variant, training=on_hub)
    session.prepared = replace(session.prepared, model=Snapshot("org/model", session.prepared.model.folder, "c0ffee"))
    text = model_card(session, state, recipes.train_job(session, on_hub), command="what was typed")
    header = ModelCard(text).data.to_dict()
    assert header["base_model"] == "org/model" and header["datasets"] == ["org/rows"]
    assert 'from_pretrained("org/model", revision="c0ffee", dtype=' in text


@pytest.mark.parametrize("variant", ["lora:rank=4,schedule=staged,rates=1+0.5", "freeze:layers=1,epochs=1,warmup=1"])
def test_the_command_on_a_card_repeats_the_training_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], variant: str
) -> None:
    train = {"validation": "0.25", "steps": 2, "clip": 0.5}
    first = left_by(tmp_path, variant, train=train, seed=3, dtype="float32").artifact
    words = shlex.split((first / CARD).read_text().split("How to reproduce it\n\n```\n")[1].split("\n```")[0])
    assert main([*words[1:], "--output-dir", str(tmp_path), "--fresh", "--quiet", "--format", "json"]) == 0
    second = Path(json.loads(capsys.readouterr().out)["artifact"])
    assert second != first
    train_record = load_run(second.parent.parent).variants[0].train
    assert train_record is not None and train_record.reused


@pytest.mark.parametrize("several", ["folds", "seeds"])
def test_harness_train_runs_once_even_if_the_file_asks_for_folds_or_seeds(tmp_path: Path, several: str) -> None:
    (tmp_path / "compare.yaml").write_text(f"variants: {{lora: {{}}}}\ntasks: [mini_gsm8k]\n{several}: 2\n")
    config = configure([], file=tmp_path / "compare.yaml", train={"samples": 16, "steps": 1}, output_dir=tmp_path)
    card = (train_only(config).artifact / CARD).read_text()
    assert "\nharness train lora" in card and "16 rows" in card
    [run] = [load_run(path.parent) for path in tmp_path.glob("*/run.json")]
    assert [variant.name for variant in run.variants] == ["lora"]


def test_a_reused_artifact_gets_its_own_card(tmp_path: Path) -> None:
    first = left_by(tmp_path, "lora:rank=4").artifact
    (first / CARD).write_text("edited by hand")
    digest = Snapshot("x", first).artifact_digest
    second = left_by(tmp_path, "mine=lora:rank=4").artifact
    assert first != second and (first / CARD).read_text() == "edited by hand"
    assert "# mine: `lora` on `tiny`" in (second / CARD).read_text()
    assert Snapshot("x", second).artifact_digest == digest
    assert (first / "adapter_model.safetensors").samefile(second / "adapter_model.safetensors")


def test_the_command_on_a_card_leaves_out_settings_of_other_stages(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "def longer(prompts, completions, references):\n    return [0.0] * len(prompts)\n"
    )
    (tmp_path / "text.txt").write_text("a line\n" * 20)
    variants = [
        f"pt=lora:stage=pretrain,data={tmp_path}/text.txt",
        f"rl=lora:stage=grpo,reward={tmp_path}/judge.py@longer",
    ]
    prepared = prepare(configure(variants, tasks=["mini_gsm8k"], train={"generations": 4}, output_dir=tmp_path))
    session = Session(prepared, RunFolder(tmp_path, 0), "", {"dtype": "float32"})
    commands = {name: card._command(session, state, "") for name, state in session.states.items()}
    assert "generations" not in commands["pt"] and "generations=4" in commands["rl"]


def test_an_adapter_that_names_another_base_is_reported(tmp_path: Path) -> None:
    left = left_by(tmp_path, "lora:rank=4").artifact
    for asked in ([str(left)], [f"lora:rank=4,start={left}"]):
        prepared = prepare(configure(asked, tasks=["mini_gsm8k"]))
        assert not any("its adapter was trained on" in note for note in fairness(prepared, prepared.variants))
    described = json.loads((left / "adapter_config.json").read_text())
    described["base_model_name_or_path"] = "somebody/else"
    (left / "adapter_config.json").write_text(json.dumps(described))
    for asked in ([str(left)], [f"lora:rank=4,start={left}"]):
        prepared = prepare(configure(asked, tasks=["mini_gsm8k"]))
        assert any(
            "trained on `somebody/else`" in note and "runs on `tiny`" in note
            for note in fairness(prepared, prepared.variants)
        )


def test_harness_train_reports_what_it_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "x " * 30, "completion": " y" * 40}] * 3 + [
        {"prompt": f"{n}", "completion": " z"} for n in range(5)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["--train", str(tmp_path / "rows.jsonl"), "--max-length", "48", "--steps", "1"]
    assert main(["train", "lora:rank=4", *data, "--output-dir", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().err
    assert "tokens were lost" in said and "score" not in said and "Overlap" not in said


def test_harness_train_leaves_a_merged_checkpoint_on_request(tmp_path: Path) -> None:
    left = left_by(tmp_path, "lora:rank=4", merge=True, train={"lr": 0.02}, dtype="float32")
    assert left.merged is not None and left.merged.parent.name == "merged"
    assert "merged" in (left.merged / CARD).read_text()
    base = Base(Path(prepare(configure(["base"])).model.folder), "cpu", "float32")
    torch.testing.assert_close(
        said(AutoModelForCausalLM.from_pretrained(left.merged)),
        attached(Recipe(base, left.artifact)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("full", "already saves a complete checkpoint"),
        ("prompt", "an artifact of `prompt` cannot be merged into the weights"),
        ("lora:stage=reward", "a reward model has a reward head"),
    ],
)
def test_an_artifact_that_cannot_be_merged_is_refused_before_training(
    tmp_path: Path, variant: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        left_by(tmp_path, variant, merge=True)
    assert not list(tmp_path.iterdir())


def test_how_a_variant_is_scored_is_nothing_to_train_by(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`@merged@4bit` changes how a variant is scored") as refused:
        left_by(tmp_path, "lora@merged@4bit")
    assert "`--merge` saves" in str(refused.value.hint)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_merged_after_all_says_where_the_training_is(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no place for: .*; the trained adapter is in .*/adapters/bitfit-"):
        left_by(tmp_path, "bitfit:add=true", merge=True)
    assert not list(tmp_path.glob("*/merged/*")) and list(tmp_path.glob("*/adapters/bitfit-*/README.md"))


# Stages without held-out losses


def test_a_stage_that_learns_from_rewards_is_not_tuned(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "def longer(prompts, completions, references):\n    return [0.0] * len(prompts)\n"
    )
    online = f"rl=lora:stage=grpo,reward={tmp_path}/judge.py@longer"
    prepared = prepare(configure(["lora", online], tasks=["mini_gsm8k"], tune_lr=3, output_dir=tmp_path))
    taught, written = (row.training for row in prepared.variants)
    assert taught is not None and taught.tunable and taught.validation is not None
    assert written is not None and not written.tunable and written.validation is None
    assert len(written.data.examples) == len(taught.data.examples) + len(taught.validation.examples)
    assert any("`--tune-lr` does not tune rl (" in note for note in fairness(prepared, prepared.variants))


def test_every_fold_of_a_variant_holds_out_its_own_rows() -> None:
    config = configure(["lora"], tasks=["mini_gsm8k"], folds=3, train={"samples": 31})
    trainings = prepare(config).trainings
    held = [example for each in trainings if each.validation for example in each.validation.examples]
    assert len(trainings) == 3 and len({each.id for each in trainings}) == 3
    assert len(held) == 31
    for each in trainings:
        assert each.validation is not None
        assert {*each.data.examples, *each.validation.examples} == set(held)
        assert not {*each.data.examples} & {*each.validation.examples}


@pytest.mark.parametrize("several", ["folds", "seeds"])
def test_every_training_run_of_a_variant_keeps_its_own_samples(tmp_path: Path, several: str) -> None:
    settings: dict[str, Any] = {several: 3}
    prepared = prepare(configure(["base", "lora"], tasks=["mini_gsm8k"], train={"samples": 31}, **settings))
    session = Session(prepared, RunFolder(tmp_path, 0), "")
    assert len({session.log(state, prepared.tasks[0]).path for state in session.states.values()}) == 4


def test_a_dry_run_says_which_part_a_training_leaves_out() -> None:
    plan = dry_run.plan(configure(["lora"], tasks=["mini_gsm8k"], folds=2, limit=2, train={"samples": 31}))
    assert [each.data for each in plan.train] == [f"mini_gsm8k without fold {fold} of 2" for fold in (1, 2)]


@pytest.mark.parametrize(("several", "validation"), [("folds", None), ("seeds", "0.25")])
def test_every_training_of_a_variant_is_scored_and_all_are_taken_together(
    tmp_path: Path, several: str, validation: str | None
) -> None:
    train = {"steps": 2, "samples": 24, "batch_size": 4, "lr": 0.02, "validation": validation}
    settings: dict[str, Any] = {several: 2}
    config = configure(["l=lora:rank=4"], tasks=["mini_mmlu"], limit=6, train=train, output_dir=tmp_path, **settings)
    found = comparison.run(config, command="what was typed")
    [folder] = [path.parent for path in tmp_path.glob("*/run.json")]
    assert [(each.name, each.status) for each in found.variants] == [("l", "done"), (f"l.{several[:-1]}1", "done")]
    samples = [path.read_text() for path in folder.glob("samples/lora*/*.jsonl")]
    assert len(samples) == 2 == len(set(samples))
    artifacts = [folder / each.artifact.path for each in found.variants if each.artifact]
    assert len({Snapshot("x", artifact).artifact_digest for artifact in artifacts}) == 2
    assert all(("\nwhat was typed\n" in (path / CARD).read_text()) is (several == "folds") for path in artifacts)
    scored, held_out = found.replicated
    values = [score.value for each in found.variants for score in each.scores if score.metric == scored.metric]
    assert scored.task == "mini_mmlu" and scored.value == pytest.approx(sum(filter(None, values)) / 2)
    losses = [each.train.validation_loss or 0 for each in found.variants if each.train]
    assert held_out.task == HELD_OUT and held_out.value == pytest.approx(sum(losses) / 2)
    assert losses[0] != losses[1] and held_out.trainings == tuple(each.name for each in found.variants)


# Adapters trained after tokens were added


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"modules_to_save": ["embed_tokens", "lm_head"]},
            "embed_tokens has 347 rows, the base 344: its tokenizer has added tokens",
        ),
        ({}, "embed_tokens has 347 rows, the base 344: its tokenizer has added tokens"),  # peft saves what was resized
        (
            {"target_modules": ["lm_head"]},
            "lm_head has 347 rows, the base 344: its tokenizer has added tokens",
        ),
        ({"trainable_token_indices": [345]}, "IndexError: index 345 is out of bounds for dimension 0 with size 344"),
    ],
)
def test_an_adapter_of_a_larger_vocabulary_is_an_error_with_both_sizes(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny.tiny_base(tiny.save_tiny(tmp_path / "llama"))
    model = load_base(base)
    model.resize_token_embeddings(347, mean_resizing=False)
    config = LoraConfig(r=4, task_type="CAUSAL_LM", **{"target_modules": ["q_proj"], **options})
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError) as caught:
        Resident(base, method_function).attach(Recipe(base, tmp_path / "adapter"))
    assert caught.value.message == f"the adapter `{tmp_path / 'adapter'}` does not fit this base: {reason}"


def test_a_mismatch_of_shapes_names_the_tensor(tmp_path: Path) -> None:
    base = tiny.tiny_base(tiny.save_tiny(tmp_path / "llama"))
    other = tiny.tiny_base(tiny.save_tiny(tmp_path / "wide", hidden=32))
    adapter = tiny.save_random_lora(tmp_path / "adapter", other, target_modules=["q_proj"])
    with pytest.raises(UserError, match=r"size mismatch for .*q_proj.lora_A.default.weight: .*\[4, 32\].*\[4, 64\]"):
        Resident(base, method_function).attach(Recipe(base, adapter))
