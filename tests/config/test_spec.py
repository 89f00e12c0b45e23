"""Variants as typed and compare.yaml become one validated configuration, and all errors are listed at once."""

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import UserError
from harness.config.gates import parse_gate
from harness.config.parse import configure
from harness.config.variants import parse_variant
from harness.config.yaml_lines import parse
from harness.registry.values import Quoted, read, show, split, unquote
from harness.settings import RESERVED_KEYS, SHARED_KEYS, STAGES, StageName, TrainSettings, stages_of

LORA = "rank=16,alpha=32,dropout=0.0,target_modules=all-linear,layers=none"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "compare.yaml") -> Path:
    Path(name).write_text(text)
    return Path(name)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("8", "int", 8),
        ("1e3", "int", 1000),
        ("1e-5", "float", 1e-5),
        ("8", "float", 8.0),
        ("none", "int | None", None),
        ("None", "Optional[int]", None),
        ("true", "bool", True),
        ("q_proj", "str | Sequence[str]", "q_proj"),
        ("q_proj+v_proj", "str | Sequence[str]", ["q_proj", "v_proj"]),
        ("q_proj", "list[str]", ["q_proj"]),
        ("1+2", "list[int]", [1, 2]),
        ("16", "str", "16"),
        ("right", "Literal['left', 'right']", "right"),
        ("VERA", "", "VERA"),
        ("256", "", 256),
        (Quoted("256"), "", "256"),
        (3, "float", 3.0),
    ],
)
def test_values_are_read_by_their_annotation(text: object, annotation: str, value: object) -> None:
    found = read(text, annotation)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("8.5", "int"),
        ("x", "float"),
        ("inf", "float"),
        ("1", "bool"),
        (True, "int"),
        ("up", "Literal['left']"),
        ({}, ""),
    ],
)
def test_values_of_another_type_are_refused(text: object, annotation: str) -> None:
    with pytest.raises(ValueError, match="expected "):
        read(text, annotation)


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
lists = st.lists(values, max_size=3)


@given(values | lists)
def test_values_shown_as_text_read_back(value: object) -> None:
    (text,) = split(show(value), ",")
    assert read(unquote(text)) == value


@pytest.mark.parametrize(
    ("text", "name", "canonical"),
    [
        ("base", "base", "base"),
        ("lora", "lora", f"lora:{LORA}"),
        ("lora:rank=8", "lora:rank=8", "lora:rank=8,alpha=16,dropout=0.0,target_modules=all-linear,layers=none"),
        ("mine=lora:rank=8,alpha=16@merged", "mine", "lora:rank=8,alpha=16,dropout=0.0,target_modules=all-linear,layers=none@merged"),
        ("lora@4bit", "lora@4bit", f"lora:{LORA}@4bit"),
        ("lora@merged@8bit", "lora@merged@8bit", f"lora:{LORA}@merged@8bit"),
        ("qlora@4bit", "qlora@4bit", f"qlora:{LORA},quant=nf4"),
        ("qlora@merged@4bit", "qlora@merged@4bit", f"qlora:{LORA},quant=nf4@merged@4bit"),
        ("full:lr=1e-5", "full:lr=1e-5", "full:lr=1e-05"),
        ("fewshot=base:shots=5", "fewshot", "base:shots=5"),
        ("peft:type=VERA,r=256", "peft:type=VERA,r=256", "peft:type=VERA,r=256"),
        ("owner/adapter@rev@4bit", "owner/adapter@rev@4bit", "owner/adapter@rev@4bit"),
        ('b=base:system="Be brief, please @4bit"', "b", 'base:system="Be brief, please @4bit"'),
        ("lora:target_modules=q_proj+v_proj", "lora:target_modules=q_proj+v_proj", "lora:rank=16,alpha=32,dropout=0.0,target_modules=q_proj+v_proj,layers=none"),
    ],
)  # fmt: skip
def test_a_variant_has_a_name_and_a_canonical_spec(text: str, name: str, canonical: str) -> None:
    variant = parse_variant(text)
    assert (variant.name, variant.canonical) == (name, canonical)
    assert parse_variant(canonical).canonical == canonical


def test_keys_are_sorted_into_hyperparameters_training_and_prompting() -> None:
    variant = parse_variant("lora:shots=2,lr=1e-3,rank=4,steps=7,system=hi")
    own = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear", "layers": None}
    assert variant.hyperparameters == own
    assert variant.training == {"lr": 1e-3, "steps": 7}
    assert variant.prompting == {"shots": 2, "system": "hi"}


def test_transforms_and_shots_do_not_change_the_training_spec() -> None:
    specs = {parse_variant(text).training_spec for text in ("lora", "lora@4bit", "x=lora@merged", "lora:shots=3")}
    assert specs == {f"lora:{LORA}"}
    assert parse_variant("lora:lr=1e-3").training_spec != f"lora:{LORA}"


def test_bits_are_those_of_the_transform() -> None:
    bits = {text: parse_variant(text).bits for text in ("lora", "lora@8bit", "qlora", "qlora@4bit", "qlora@merged")}
    assert bits == {"lora": None, "lora@8bit": 8, "qlora": None, "qlora@4bit": None, "qlora@merged": None}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("lora@4bit@merged", "cannot be merged after `@4bit`", "@merged@4bit"),
        ("base@merged", "`base` has nothing to merge", "leave out"),
        ("full@merged", "cannot be merged", "leave out"),
        ("qlora@8bit", "need a base in nf4", "`qlora`"),
        ("lora@4bit@8bit", "contradicts", "one of each"),
        ("lora@merged@merged", "repeats", "one of each"),
        ("lora@3bit", "unknown transform `@3bit`", "`@4bit`"),
        ("lor", "unknown method `lor`", "did you mean `lora`"),
        ("lora:ran=8", "no hyperparameter `ran`", "did you mean `rank`? its own: rank, alpha"),
        ("lora:rank=high", "`rank`: expected a whole number, got `high`", None),
        ("lora:rank=8,rank=9", "gives `rank` twice", None),
        ("lora:rank", "`rank` is not `key=value`", "write "),
        ("lora:", "is not `key=value`", "write "),
        ("lora:lr=0", "`lr`: input should be greater than 0, got `0.0`", None),
        ("base:shots=-1", "`shots`: input should be greater than or equal to 0, got `-1`", None),
        ("lora:schedule=cosin", "`schedule`: expected `cosine` or", None),
        ("lora:optimizer=sgd,validation=0.1,seed=-1", "`seed`: input should be greater than or equal to 0", None),
        ("lora:steps=1,epochs=1", "both `steps` and `epochs`", "keep one"),
        ("base:lr=1e-4", "`base` is not trained", "shots"),
        ("owner/adapter:steps=5", "only scored", "shots"),
        ("a b=lora", "`a b` cannot be a name", "letters"),
        ("=lora", "cannot be a name", "letters"),
        ("x=", "names no source", "write "),
        ("./nowhere", "there is no `nowhere`", "check the path"),
        ('base:system="open', "unclosed", None),
    ],
)
def test_a_wrong_variant_gets_one_clear_error(text: str, message: str, hint: str | None) -> None:
    with pytest.raises(UserError) as error:
        parse_variant(text)
    assert message in error.value.message
    assert hint is None or hint in (error.value.hint or "")


def test_a_method_from_a_file_keeps_its_at_sign() -> None:
    Path("x.py").write_text("from harness import method\n\n@method\ndef rslora(model, *, rank: int = 4): ...\n")
    variant = parse_variant("./x.py@rslora:rank=8@4bit")
    assert (variant.source, variant.bits, variant.hyperparameters) == ("./x.py", 4, {"rank": 8})
    assert variant.canonical == "./x.py@rslora:rank=8@4bit"
    assert parse_variant("./x.py").canonical == "./x.py@rslora:rank=4"


def test_folders_are_adapters_or_checkpoints_by_their_files() -> None:
    for name, file in (("adapter", "adapter_config.json"), ("checkpoint", "config.json")):
        Path(name).mkdir()
        Path(name, file).write_text("{}")
    Path("lora").mkdir()
    Path("lora", "config.json").write_text("{}")
    assert parse_variant("./adapter@merged").kind == "adapter"
    assert parse_variant("lora").kind == "method", "a folder does not hide a method"
    with pytest.raises(UserError, match="whole checkpoint"):
        parse_variant("./checkpoint@merged")
    Path("empty").mkdir()
    with pytest.raises(UserError, match="holds no adapter, checkpoint or method"):
        parse_variant("./empty")


@settings(max_examples=50, deadline=None)
@given(
    rank=st.integers(1, 512),
    dropout=st.floats(0, 0.9),
    modules=texts.filter(bool) | st.lists(texts, max_size=3),
    lr=st.floats(1e-8, 1),
    system=texts,
    transform=st.sampled_from(["", "@merged", "@4bit", "@merged@8bit"]),
)
def test_canonical_specs_read_back(
    rank: int, dropout: float, modules: object, lr: float, system: str, transform: str
) -> None:
    keys = f"rank={rank},dropout={show(dropout)},target_modules={show(modules, 'str | Sequence[str]')},lr={show(lr)}"
    variant = parse_variant(f"x=lora:{keys},system={show(system, 'str')}{transform}")
    assert variant.hyperparameters["target_modules"] == modules and variant.prompting == {"system": system}
    again = parse_variant("x=" + variant.canonical)
    assert again == variant


def test_compare_without_arguments_uses_the_embedded_model_and_its_tasks() -> None:
    config = configure()
    assert config.model == "tiny" and [variant.name for variant in config.variants] == ["base", "lora", "qlora"]
    assert len(config.tasks) == 7 and all(task.startswith("mini_") for task in config.tasks)


def test_another_model_needs_tasks() -> None:
    with pytest.raises(UserError, match="no tasks are given for `other/model`"):
        configure(["base"], model="other/model")
    assert configure(["base"], model="other/model", tasks_needed=False).tasks == ()


YAML = """
model: tiny
train: {samples: 2000, steps: 250, lr: 1e-5}
tasks: [mini_gsm8k, mini_mmlu]
limit: 500
variants:
  base: {}
  lora: {method: lora, rank: 8}
  full: {method: full, lr: 1.0e-5}
  four: "lora:rank=4@4bit"
  merged: {method: lora@merged, target_modules: [q_proj, v_proj], shots: 2, system: "no, thanks"}
  published: {adapter: someone/their-lora@v1}
"""


def test_yaml_is_typed_by_its_fields() -> None:
    config = configure(file=write(YAML))
    assert config.train.lr == 1e-5 and config.limit == 500
    specs = {variant.name: variant for variant in config.variants}
    assert list(specs) == ["base", "lora", "full", "four", "merged", "published"]
    assert specs["lora"].hyperparameters["alpha"] == 16
    assert specs["merged"].merged and specs["merged"].hyperparameters["target_modules"] == ["q_proj", "v_proj"]
    assert (specs["published"].kind, specs["published"].revision) == ("adapter", "v1")


def test_flags_override_the_file() -> None:
    config = configure(file=write(YAML), limit=3, train={"epochs": 2, "lr": 1e-3})
    assert (config.limit, config.train.epochs, config.train.steps, config.train.lr) == (3, 2.0, None, 1e-3)
    assert config.train.samples == 2000


def test_a_positional_that_names_an_entry_selects_it() -> None:
    config = configure(["lora", "qlora"], file=write(YAML))
    assert [variant.name for variant in config.variants] == ["lora", "qlora"]
    assert config.variants[0].hyperparameters["rank"] == 8


def test_the_resolved_yaml_loads_back_to_the_same_config() -> None:
    config = configure(
        file=write(YAML), seeds=2, fail_if=["lora.mini_gsm8k < base.mini_gsm8k - 0.1"], baseline="lora", seed=3
    )
    again = configure(file=write(config.to_yaml(), "again.yaml"))
    assert again == config and again.sha256 == config.sha256
    assert again.to_yaml() == config.to_yaml()


def test_the_digest_depends_on_the_work_only() -> None:
    digest = configure(["base"]).sha256
    assert configure(["base"], output_dir="elsewhere", fail_if="base.mini_mmlu < 0").sha256 == digest
    assert configure(["base"], limit=5).sha256 != digest
    assert configure(["base:shots=1"]).sha256 != digest


def test_all_errors_of_a_file_are_listed_with_its_line() -> None:
    file = write(
        "modle: tiny\ntrain: {stepz: 2, lr: x}\ntasks: [mini_gsm9k]\nlimit: -1\nbaseline: lara\nvariants:\n"
        "  lora: {method: lora, ran: 16}\n  two: {adapter: a/b, method: lora}\n  base: {}\n"
    )
    with pytest.raises(UserError) as error:
        configure(file=file, train={"data": "gsm9k"})
    message = error.value.message
    assert message.startswith("9 problems")
    for part in (
        "compare.yaml:1: unknown setting `modle`; did you mean `model`?",
        "compare.yaml:2: unknown setting `train.stepz`; did you mean `steps` or `stage`?",
        "compare.yaml:2: `train.lr`: input should be a valid number, got `x`",
        "compare.yaml:3: unknown task `mini_gsm9k`; did you mean",
        "compare.yaml:4: `limit`: input should be greater than 0, got `-1`",
        "compare.yaml:7: variant `lora`: `lora` has no hyperparameter `ran`; did you mean `rank`?",
        "compare.yaml:8: variant `two` has both a method and an adapter",
        "baseline `lara` is not a variant of this run",
        "training data `gsm9k` is neither a task, a file, nor hub:owner/name",
    ):
        assert part in message


def test_yaml_with_repeated_keys_and_malformed_files_are_refused() -> None:
    with pytest.raises(UserError, match=r"x\.yaml:2: `limit` is given twice"):
        parse("limit: 1\nlimit: 2\n", "x.yaml")
    with pytest.raises(UserError, match=r"x\.yaml:2: not YAML"):
        parse("train: {lr: 1\n", "x.yaml")
    with pytest.raises(UserError, match="not a mapping"):
        parse("- a\n", "x.yaml")
    with pytest.raises(UserError, match=r"could not read `gone\.yaml`"):
        configure(file=Path("gone.yaml"))


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        ("d/x.foo", "training file `d/x.foo` has an unknown extension", "known: .jsonl .json"),
        ("d/plain", "training file `d/plain` has an unknown extension", "known: .jsonl .json"),
        ("a.jsonl+b.jsonl", "no training file `a.jsonl+b.jsonl`", "put blanks around the plus sign of a mix: `a + b`"),
        (
            "a.jsonl +b.jsonl",
            "no training file `a.jsonl +b.jsonl`",
            "put blanks around the plus sign of a mix: `a + b`",
        ),
        ("owner/name", "training data `owner/name` is neither", "did you mean `hub:owner/name`?"),
        ("owner/name-1.5", "no training file `owner/name-1.5`", "did you mean `hub:owner/name-1.5`?"),
        ("d/y.jsonl", "no training file `d/y.jsonl`", "did you mean `z.jsonl`?"),
    ],
)
def test_the_error_of_missing_data_shows_how_to_write_it(
    data: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    for name in ("a.jsonl", "b.jsonl", "d/x.foo", "d/plain", "d/z.jsonl"):
        Path(name).write_text('{"text": "x"}\n')
    with pytest.raises(UserError) as error:
        configure(["lora"], train={"data": data})
    assert error.value.message.startswith(message) and str(error.value.hint).startswith(hint)


def test_quoted_values_stay_texts() -> None:
    data = parse("a: 'no'\nb: no\nc: 1.10\nd:\n", "x.yaml").data
    assert data == {"a": "no", "b": "no", "c": "1.10", "d": None} and isinstance(data["a"], Quoted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": "many"}, "`limit`: input should be a valid integer, got `many`"),
        ({"device": "tpu"}, "`device`"),
        ({"seeds": 0}, "`seeds`"),
        ({"numerics": "fp16"}, "`numerics`"),
        ({"modle": "x"}, "unknown setting `modle`"),
        ({"train": {"steps": 1, "epochs": 1}}, "both `steps` and `epochs`"),
        ({"train": {"data": "gone.jsonl"}}, "no training file `gone.jsonl`"),
        ({"train": {"data": "hub:"}}, "malformed training data"),
        ({"train": {"columns": "prompt"}}, "expected a=b,c=d"),
        ({"train": {"data": "hub:a/b", "columns": "promt=x"}}, "did you mean `prompt`"),
        ({"train": {"columns": "prompt=x,completion=y"}}, "`train.columns` is given without `train.data`"),
        ({"train": {"validation": "mini_gsm9k"}}, "validation data `mini_gsm9k` is neither a task"),
        ({"train": {"validation": "gone.jsonl"}}, "no validation file `gone.jsonl`"),
        ({"folds": 2, "tune_lr": 3}, "both `folds` and `tune_lr` are given"),
        ({"task_parameters": {"year": "1"}}, "no task has a parameter `year`"),
        ({"tasks": "mini_gsm8k,mini_gsm8k"}, "task `mini_gsm8k` is given twice"),
        ({"train": {"seed": 3}}, "give it as `--seed`"),
        ({"fail_if": "lora.mini_gsm8k"}, "not one comparison"),
        ({"fail_if": "lora.mini_gsm9k < 1"}, "neither a number nor VARIANT.TASK"),
    ],
)
def test_wrong_settings_get_a_clear_error(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        configure(["base", "lora"], **settings)
    assert message in f"{error.value.message} {error.value.hint}"


def test_columns_are_allowed_if_every_variant_names_its_data() -> None:
    Path("mine.jsonl").write_text("{}\n")
    columns = {"columns": "prompt=x,completion=y"}
    assert configure(["base", "lora:data=mine.jsonl"], train=columns).train.columns
    with pytest.raises(UserError, match=r"`train\.columns` is given without `train\.data`"):
        configure(["lora:data=mine.jsonl", "full"], train=columns)


def test_the_error_of_misspelt_data_says_whether_it_is_training_or_validation_data() -> None:
    for key, what in (("data", "training"), ("validation", "validation")):
        with pytest.raises(UserError, match=f"{what} data `mini_gsm9k` is neither a task"):
            configure([f"lora:{key}=mini_gsm9k"])
    assert configure(["lora:validation=0.25"], train={"validation": 0.5}).train.validation == "0.5"


def test_the_reserved_keys_keep_their_order() -> None:
    """Specs, folder names and keys of samples contain the keys in this order."""
    assert " ".join(RESERVED_KEYS) == (
        "lr steps epochs batch_size micro_batch_size max_length seed data samples dedupe min_row_tokens"
        " max_row_tokens drop_near_duplicates augment turns packing schedule rates warmup weight_decay clip label_smoothing"
        " neftune layer_decay optimizer precision weights checkpointing validation evaluate_every patience monitor stage start reward"
        " beta desirable_weight undesirable_weight generations max_tokens temperature shots system template think"
    )
    assert {*SHARED_KEYS} ^ {*TrainSettings.model_fields} == {"seed"} and "columns" not in RESERVED_KEYS


def test_every_stage_is_in_the_table_and_its_own_settings_are_settings() -> None:
    assert tuple(STAGES) == get_args(StageName)
    assert {name for spec in STAGES.values() for name in spec.own_settings} <= {*TrainSettings.model_fields}
    assert stages_of("label_smoothing") == ("sft", "pretrain", "dpo")
    assert stages_of("generations") == ("grpo", "ppo")
    assert stages_of("lr") == tuple(STAGES)


@pytest.mark.parametrize("key", ["seed", "warmup", "weight_decay", "clip", "label_smoothing", "neftune", "beta"])
def test_some_settings_of_a_variant_may_be_zero(key: str) -> None:
    assert parse_variant(f"lora:{key}=0").training == {key: 0}


@pytest.mark.parametrize("key", ["steps", "epochs", "batch_size", "samples", "layer_decay", "patience", "temperature"])
def test_other_settings_of_a_variant_must_be_above_zero(key: str) -> None:
    with pytest.raises(UserError, match=rf"`{key}`: input should be greater than 0, got `0"):
        parse_variant(f"lora:{key}=0")


def test_two_variants_with_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="two variants are named `lora`") as error:
        configure(["lora", "lora=lora:rank=8"])
    assert error.value.hint == "rename one of them: `NAME=SPEC`"


def test_seeds_add_replicas_of_trained_variants_only() -> None:
    config = configure(["base", "lora", "qlora:seed=5"], seeds=3, seed=10)
    seeds = {variant.name: variant.training.get("seed") for variant in config.variants}
    assert seeds == {
        "base": None, "lora": None, "lora.seed1": 11, "lora.seed2": 12,
        "qlora:seed=5": 5, "qlora:seed=5.seed1": 6, "qlora:seed=5.seed2": 7,
    }  # fmt: skip
    with pytest.raises(UserError, match=r"second variant named `lora\.seed1`"):
        configure(["lora", "lora.seed1=lora"], seeds=2)


def test_a_file_with_several_tasks_is_written_out() -> None:
    Path("two.py").write_text(
        "from harness import Task, task\n\n@task\ndef a(*, n: int = 1) -> Task: ...\n\n@task\ndef b() -> Task: ...\n"
    )
    config = configure(["base"], tasks="./two.py", task_parameters="n=4")
    assert config.tasks == ("./two.py@a", "./two.py@b")
    assert [spec.parameters for spec in config.task_specs] == [{"n": 4}, {}]


@pytest.mark.parametrize(
    "text", ["", "1 < 2 < 3", "lora.gsm8k <", "lora.gsm8k * lora.gsm8k < 1", "lora < 1", "f(1) < 2"]
)
def test_a_malformed_gate_is_refused(text: str) -> None:
    for flag in ("--fail-if", "--fail-unless"):
        with pytest.raises(UserError, match=flag):
            parse_gate(text, ["base", "lora"], ["gsm8k"], flag)


def test_an_unknown_cell_of_a_gate_gets_the_nearest_known_one() -> None:
    with pytest.raises(
        UserError, match=r"`--fail-unless lora.gms8k > 0`: `lora.gms8k` is neither a number nor"
    ) as error:
        parse_gate("lora.gms8k > 0", ["base", "lora"], ["gsm8k", "mmlu"], "--fail-unless")
    assert "did you mean `lora.gsm8k`" in str(error.value.hint)


def test_the_terms_of_a_gate_are_those_of_left_minus_right() -> None:
    gate = parse_gate("-1 * base.gsm8k + 1e-1 >= -lora-2../x.py@y + 0.05", ["base", "lora-2"], ["gsm8k", "./x.py@y"])
    assert gate.terms == {("base", "gsm8k"): -1, ("lora-2", "./x.py@y"): 1, None: pytest.approx(0.05)}


@pytest.mark.parametrize(
    "source", ["x" * 300, "qlora@" + "x" * 300, "./" + "a/" * 2_500, "~nobody-of-this-name/x", "~nobody-of"]
)
def test_a_source_that_no_path_can_have_is_an_error_in_words(source: str) -> None:
    for typed in (source, f"lora:data={source}"):
        with pytest.raises(UserError, match=r"too long for a name|there is no `~nobody|neither a task"):
            configure([typed], tasks=["mini_mmlu"])
    with pytest.raises(UserError, match=r"too long for a name|no file `~nobody"):
        configure(["base"], tasks=[source])
