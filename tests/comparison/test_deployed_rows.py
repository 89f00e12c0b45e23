"""Deployed forms of one training run are rows like any other: converted once, scored, keyed, and failing alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import in_process as jobs_here
import pytest
from in_process import InProcess
from small_converter import write_llama_cpp

import harness
from harness.cli import main
from harness.comparison import exporting
from harness.comparison.exporting import ExportRequest, export_variant
from harness.comparison.run import time_only
from harness.comparison.sample_diff import Side
from harness.config.parse import configure
from harness.data.gguf import plain_copy
from harness.deploy import llmcompressor
from harness.deploy.kept import deployed_folder
from harness.deploy.llama_cpp import VARIABLE
from harness.deploy.tools import form_versions
from harness.errors import UserError
from harness.jobs import DeployedForm, DeployJob, TrainJob
from harness.prepare.prepare import prepare
from harness.results import Run
from harness.runs.folder import load_run, load_shown
from harness.storage import DiskFull, home

GIVEN: dict[str, Any] = {"tasks": ["mini_mmlu"], "limit": 6, "no_timing": True, "train": {"steps": 1}}
RANK = "lora:rank=2,target_modules=q_proj+v_proj"
GGUF = pytest.mark.skipif(
    not pytest.importorskip("importlib.util").find_spec("gguf"), reason="the package gguf is not installed"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(VARIABLE, str(write_llama_cpp(tmp_path / "llama.cpp", quantizer=True)))
    monkeypatch.setattr(exporting, "Server", InProcess)
    return tmp_path


def jobs(patch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that are run from now on."""
    plain, seen = InProcess.run, []

    def run(self: Any, job: Any, on_event: Any = lambda event: None) -> Any:
        seen.append(job)
        return plain(self, job, on_event)

    patch.setattr(InProcess, "run", run)
    return seen


@GGUF
def test_a_gguf_file_is_a_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = jobs(monkeypatch)
    names = [f"lora={RANK}", f"f32={RANK}@gguf:F32", f"q8={RANK}@gguf:Q8_0"]
    run = harness.compare(*names, **GIVEN)
    assert [each.status for each in run.variants] == ["done"] * 3
    assert sum(isinstance(job, TrainJob) for job in ran) == 1
    likelihoods = [samples(run, name) for name in ("lora", "f32", "q8")]
    assert likelihoods[1] == pytest.approx(likelihoods[0], abs=2e-4) and likelihoods[2] != likelihoods[1]
    assert likelihoods[2] == pytest.approx(likelihoods[1], abs=0.5)
    f32, q8 = run.variant("f32"), run.variant("q8")
    assert f32.spec.endswith("@merged@gguf:F32") and q8.model_bytes is not None and f32.model_bytes is not None
    assert q8.model_bytes < 0.5 * f32.model_bytes
    protocol = q8.scores[0].protocol
    assert protocol.form == "gguf:Q8_0" and protocol.reader is not None and protocol.reader.startswith("transformers 5")
    assert run.variant("lora").scores[0].protocol.form is None
    assert any("q8: `@gguf:Q8_0`: read by transformers" in note for note in run.notes)
    # the same command again makes nothing, and neither does a new run
    del ran[:]
    assert harness.compare(*names, **GIVEN).created == run.created and not ran[2:]
    harness.compare(f"q8={RANK}@gguf:Q8_0", **GIVEN)
    assert not any(isinstance(job, DeployJob | TrainJob) for job in ran)
    kept = list((home() / "deployed").glob("*/model.gguf"))
    assert len(kept) == 2 and all(plain_copy(path, "float32").is_dir() for path in kept)
    # another converter is another run, and another file
    before = prepare(configure([f"q8={RANK}@gguf:Q8_0"], **GIVEN)).identity
    versions = form_versions(DeployedForm("gguf", "Q8_0"))
    write_llama_cpp(folder / "llama.cpp", before="# newer")
    assert prepare(configure([f"q8={RANK}@gguf:Q8_0"], **GIVEN)).identity != before
    assert form_versions(DeployedForm("gguf", "Q8_0")) != versions


def samples(run: Run, name: str) -> list[float]:
    """Log-likelihoods of a row's choices."""
    [path] = [each for each in Path("runs").iterdir() if load_run(each).created == run.created]
    rows = Side(run, path, name).rows("mini_mmlu")
    return [value for row in rows.values() for value in row["loglikelihoods"]]


@GGUF
def test_a_row_that_cannot_be_converted_fails_alone(folder: Path) -> None:
    write_llama_cpp(folder / "llama.cpp", before="sys.exit('Model Odd is not supported')")
    run = harness.compare("base", f"q8={RANK}@gguf:Q8_0", **GIVEN)
    assert run.variant("base").status == "done" and run.variant("q8").status == "failed"
    assert "does not know the architecture Odd" in str(run.variant("q8").error)
    assert not list((home() / "deployed").glob("*/")) and not list((home() / "deployed").glob(".merging*"))


def test_torchao_weights_are_a_row(folder: Path) -> None:
    pytest.importorskip(
        "torchao", reason="the package torchao is not installed: pip install 'finetune-harness[quantized]'"
    )
    run = harness.compare("base", "ao=base@torchao:int8wo", **GIVEN)
    exact, rounded = (samples(run, name) for name in ("base", "ao"))
    assert rounded != exact and rounded == pytest.approx(exact, abs=1.0)
    base, ao = run.variant("base"), run.variant("ao")
    assert base.model_bytes and ao.model_bytes and ao.model_bytes < 0.7 * base.model_bytes
    assert any("28 of 29 linear layers are quantized" in note for note in run.notes)


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (["base@gptq"], "rounds weights on training rows, and no variant of this run is trained"),
        (["base@gguf:Q4_K_M:llamacpp"], "needs the package `llama-cpp`"),
        (["r=lora:rank=2,stage=reward@gguf:Q8_0"], "reward"),
    ],
)
def test_what_cannot_be_made_is_refused_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variants: list[str], message: str
) -> None:
    from harness.deploy import tools

    monkeypatch.setattr(tools, "llmcompressor_version", lambda tool: "1")
    monkeypatch.setattr(tools, "find_spec", lambda name: None if name == "llama_cpp" else object())
    monkeypatch.setattr(tools, "version", lambda name: "1")
    with pytest.raises(UserError, match=message):
        prepare(configure(variants, **GIVEN))


def exported(run: Run, name: str, **asked: Any) -> Any:
    [path] = [each for each in Path("runs").iterdir() if each.is_dir()]
    return export_variant(load_shown(path), path, name, ExportRequest(**asked))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `runs` of a finished run, to copy."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        jobs_here.use(patch)
        patch.chdir(folder)
        variants = (f"lora={RANK}", "prompt:tokens=2", "base@4bit")
        harness.compare(*variants, **GIVEN)
    return folder / "runs"


@pytest.fixture
def run(folder: Path, finished: Path) -> Run:
    shutil.copytree(finished, folder / "runs")
    [path] = Path("runs").iterdir()
    return load_run(path)


@GGUF
def test_exports_are_read_back(run: Run, folder: Path) -> None:
    made = exported(run, "lora", to="merged", output=folder / "out")
    assert made.distance.mean_kl < 1e-6 and made.distance.same_argmax == 1 and made.distance.prompts > 3
    assert {"model.safetensors", "tokenizer.json", "generation_config.json"} <= {p.name for p in made.output.iterdir()}
    assert json.loads((made.output / "export.json").read_text())["distance"]["tokens"] == made.distance.tokens
    served = exported(run, "lora", to="vllm")
    assert served.distance.largest == 0 and "--max-lora-rank 8 --lora-modules lora=./adapter" in str(served.command)
    assert sorted(path.name for path in (served.output / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    packed = exported(run, "lora", to="ollama")
    assert 0 < packed.distance.mean_kl < 0.05 and (packed.output / "lora-Q8_0.gguf").stat().st_size == packed.bytes
    text = (packed.output / "Modelfile").read_text()
    assert "FROM ./lora-Q8_0.gguf\n" in text and "{{ .Prompt }}" in text and 'PARAMETER stop "' in text
    with pytest.raises(UserError, match=r"/out` exists"):
        exported(run, "lora", to="merged", output=folder / "out")
    exported(run, "lora", to="merged", output=folder / "out", force=True)
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not an earlier export"):
        exported(run, "lora", to="merged", output=folder / "mine", force=True)
    assert (folder / "mine" / "thesis.tex").is_file()


def test_what_has_no_such_form_is_refused(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {
        "prompt:tokens=2": "the result of `prompt` cannot be merged",
        "base@4bit": "on a base in 4 bits",
        "nope": "has no variant `nope`",
    }
    for name, message in refused.items():
        with pytest.raises(UserError, match=message):
            exported(run, name, to="merged")
    with pytest.raises(UserError, match="`--quant` is the type of a GGUF file"):
        exported(run, "lora", to="vllm", kind="Q8_0")
    with pytest.raises(UserError, match="unknown type `Q9`"):
        exported(run, "lora", to="gguf", kind="Q9")
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UserError, match="HARNESS_LLAMA_CPP is not set"):
        exported(run, "lora", to="gguf")
    [path] = Path("runs").iterdir()
    assert not list((path / "exports").glob("*")) if (path / "exports").exists() else True


def test_a_run_from_elsewhere_chooses_no_file(run: Run, folder: Path) -> None:
    [path] = Path("runs").iterdir()
    document = json.loads((path / "run.json").read_text())

    def changed(**changes: Any) -> None:
        (path / "run.json").write_text(json.dumps({**document, **changes}))

    changed(environment={**document["environment"], "model": {"name": "/etc", "digest": "0"}})
    with pytest.raises(UserError, match="the run's model is `/etc`") as caught:
        exported(run, "lora", to="merged")
    assert caught.value.hint == "name it in the command: `--model /etc`"
    with pytest.raises(UserError, match="is not the model of this run"):
        exported(run, "lora", to="merged", model="tiny")
    first, *others = document["variants"]
    changed(variants=[{**first, "artifact": {**first["artifact"], "path": "../../x"}}, *others])
    with pytest.raises(UserError, match="outside of it"):
        exported(run, "lora", to="merged")
    changed(variants=[{**first, "status": "running"}, *others])
    with pytest.raises(UserError, match="its run was interrupted"):
        exported(run, "lora", to="merged")
    changed(variants=[{**first, "status": "failed", "error": "odd"}, *others])
    with pytest.raises(UserError, match="`lora` failed in this run: odd"):
        exported(run, "lora", to="merged")


def test_two_exports_to_one_folder(run: Run, folder: Path) -> None:
    with exporting._alone(folder / "out"), pytest.raises(UserError, match="another process is exporting"):
        exported(run, "lora", to="merged", output=folder / "out")


def test_a_failing_export_leaves_nothing(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.worker import exporting as child

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(child, "save_merged", full)
    with pytest.raises(UserError, match="the disk is full"):
        exported(run, "lora", to="merged", output=folder / "out" / "deep")
    assert list((folder / "out").iterdir()) == []


def test_calibration_rows_are_part_of_the_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llmcompressor's program is replaced by one that saves the checkpoint as it is."""
    from harness.worker import deployment

    seen: list[Any] = []

    def compress(checkpoint: Path, output: Path, form: Any, rows: Any, **_: Any) -> list[str]:
        seen.append([list(row) for row in rows])
        for path in checkpoint.iterdir():
            (output / path.name).write_bytes(path.read_bytes())
        return ["rounded"]

    from harness.deploy import tools

    monkeypatch.setattr(deployment, "compress", compress)
    monkeypatch.setattr(deployment, "CALIBRATION_ROWS", 4)
    monkeypatch.setattr(tools, "llmcompressor_version", lambda tool: "1")
    monkeypatch.setattr(tools, "version", lambda name: "1")
    llmcompressor.llmcompressor_version.cache_clear()
    for samples_, wanted in ((8, 1), (8, 1), (9, 2)):
        run = harness.compare(f"x={RANK}@gptq", **{**GIVEN, "train": {"steps": 1, "samples": samples_}})
        assert run.variant("x").status == "done" and len(seen) == wanted
    assert all(len(rows) == 4 for rows in seen)
    assert len({path.name for path in deployed_folder("x").parent.glob("*/")}) == 2


def test_the_command_prints_the_folder_and_the_distance(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "latest", "lora", "--to", "vllm", "-q"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("runs/tiny-") and "/exports/lora-vllm  " in lines[0]
    assert "mean KL 0, same likeliest token 100.0 %" in lines[1] and lines[-1].startswith("in that folder: vllm serve ")
    assert main(["export", "latest", "lora", "--to", "vllm", "--force", "-q", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["distance"]["largest"] == 0
    assert main(["export", "latest", "lora", "--to", "vllm", "-q"]) == 2
    assert "exists" in capsys.readouterr().err
    assert main(["export", "nowhere", "lora", "--to", "vllm"]) == 2 and main(["export", "latest", "lora"]) == 2


def test_forms_that_run_unpacked_are_not_timed(folder: Path) -> None:
    with pytest.raises(UserError, match="`base@gguf:Q8_0` cannot be timed"):
        time_only(configure(["base@gguf:Q8_0"], **GIVEN))


@GGUF
def test_a_full_disk_ends_the_run_and_leaves_nothing(folder: Path) -> None:
    write_llama_cpp(folder / "llama.cpp", before="raise OSError(28, 'No space left on device')")
    with pytest.raises(DiskFull) as caught:
        harness.compare("base@gguf:Q8_0", **GIVEN)
    assert "HARNESS_HOME" in str(caught.value.hint) and not list((home() / "deployed").glob("*/"))
