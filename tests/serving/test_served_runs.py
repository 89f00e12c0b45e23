"""Served models as variants and as the model of a run: equal to the same model here, resumed by sample, refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import in_process
import pytest
from fake_server import FakeServer, Quirks
from tiny_models import save_tiny

from harness.cli import main
from harness.comparison import run as comparison
from harness.comparison.dry_run import plan
from harness.config.parse import configure
from harness.config.variants import parse_variant
from harness.errors import UserError
from harness.jobs import Base, Event, ProbeJob, Request, Served, TaskRequests
from harness.results import Run
from harness.runs.folder import load_run
from harness.serving.model import NO_FILES
from harness.worker.server import run_job

KEY = "sk-very-secret-7"
TASKS = """
from harness import Choose, Generate, Task, Text, acc, byte_ppl, exact_match, task

ROWS = [{"n": n} for n in range(6)]
WORDS = "hello world , this is a small tokenizer 0 1 2 3 4 5".split()

@task
def letters() -> Task:
    return Task(data=ROWS, sample=lambda row: Choose(f"Question: {WORDS[row['n']]}? Answer:", ["A", "B", "C"], 0), metrics=[acc])

@task
def endings() -> Task:
    ends = ["the answer is two.", "Paris", "hello world"]
    return Task(data=ROWS, sample=lambda row: Choose(f"{WORDS[row['n']]} The capital", ends, 1), metrics=[acc])

@task
def texts() -> Task:
    return Task(
        data=ROWS, train=ROWS, metrics=[exact_match],
        sample=lambda row: Generate(f"{WORDS[row['n']]} is one plus", "two", stop=(".", "Q", "$", "#", " a"), max_tokens=12),
    )

@task
def drawn() -> Task:
    return Task(
        data=ROWS[:2], metrics=[exact_match],
        sample=lambda row: Generate(f"{WORDS[row['n']]} is", "two", max_tokens=6, samples=2, temperature=1.0),
    )

@task
def words() -> Task:
    return Task(data=ROWS, sample=lambda row: Text(" ".join(WORDS[row["n"]:] * 3)), metrics=[byte_ppl])
"""
ALL = ("letters", "endings", "texts", "words")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), layers=1)


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeServer]:
    other = save_tiny(tmp_path_factory.mktemp("other"), layers=1, seed=1)
    with FakeServer(folder, other=other).running() as running:
        yield running


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.py").write_text(TASKS)
    for name in ("HARNESS_ENDPOINT_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    in_process.use(monkeypatch)
    server.quirks = Quirks(names=("base", "other"))
    server.asked.clear()


def run(*variants: str, model: str | Path, tasks: tuple[str, ...] = ALL, **more: Any) -> Run:
    named = [f"t.py@{name}" for name in tasks]
    return comparison.run(configure(variants, model=str(model), tasks=named, **{"no_timing": True, **more}))


def rows(variant: int, task: str) -> dict[str, dict[str, Any]]:
    """Samples of a task by id, of the first or second folder of variants, in the order of their names."""
    (root,) = Path("runs").glob("*/samples")
    folders = sorted(each for each in root.iterdir() if each.name != "prompts")
    (file,) = folders[variant].glob(f"*{task}*.jsonl")
    return {row["id"]: row for row in map(json.loads, file.read_text().splitlines())}


def test_a_served_model_equals_the_same_model_here(server: FakeServer, folder: Path) -> None:
    document = run("base", f"served=endpoint:{server.url}#base", model=folder)
    assert [each.status for each in document.variants] == ["done", "done"]
    for task in ALL:
        here, there = rows(0, task), rows(1, task)
        assert here.keys() == there.keys()
        for id, row in here.items():
            other = there[id]
            assert other["loglikelihoods"] == pytest.approx(row["loglikelihoods"], abs=1e-4)
            for same in ("outputs", "is_greedy", "tokens", "prompt_tokens", "shortened"):
                assert other[same] == row[same], same
            assert task == "words" or other["metrics"] == row["metrics"]
    protocol = document.variants[1].scores[0].protocol
    assert protocol.served is not None and protocol.served.way == "ids" and protocol.engine == "endpoint"
    assert document.variants[1].inference is None and document.variants[1].model_bytes is None
    assert any("it is not timed" in note for note in document.notes)
    letters = [body for _, body, _ in server.asked if "logprob_token_ids" in body]
    assert len(letters) >= 6, "letters are asked for through the prefix cache"


def test_a_model_of_text_alone_is_counted_by_the_server(server: FakeServer, folder: Path) -> None:
    address = f"endpoint:{server.url}#base"
    run("base", model=address, tasks=("texts",))
    there = rows(0, "texts")
    Path("runs").rename("served")
    run("base", model=folder, tasks=("texts",))
    here = rows(0, "texts")
    for same in ("outputs", "prompt_tokens"):
        assert {id: row[same] for id, row in here.items()} == {id: row[same] for id, row in there.items()}
    assert all(isinstance(body["prompt"], str) for _, body, _ in server.asked if body)


def test_tasks_that_a_server_cannot_score_are_refused_by_name(server: FakeServer, folder: Path) -> None:
    address = f"endpoint:{server.url}#base"
    with pytest.raises(UserError) as caught:
        run("base", model=address)
    assert all(f"cannot score `t.py@{name}`" in caught.value.message for name in ("letters", "endings", "words"))
    assert "--tokenizer" in caught.value.message and "t.py@texts" not in caught.value.message
    server.quirks = Quirks(prompt_logprobs=False, echo="shifted")
    with pytest.raises(UserError, match="off what it said of the same tokens"):
        run("base", model=address, tokenizer=str(folder), tasks=("letters", "texts"))
    server.quirks = Quirks(greedy=True)
    with pytest.raises(UserError, match=r"cannot draw the samples of `t\.py@drawn`"):
        run("base", model=address, tasks=("drawn", "texts"))
    assert not list(Path("runs").glob("*/samples"))


def test_samples_are_drawn_with_seeds_of_their_own(server: FakeServer, folder: Path) -> None:
    run("base", model=f"endpoint:{server.url}#base", tokenizer=str(folder), tasks=("drawn",))
    first = rows(0, "drawn")
    assert any(len(set(row["outputs"])) == 2 for row in first.values())
    Path("runs").rename("before")
    run("base", model=f"endpoint:{server.url}#base", tokenizer=str(folder), tasks=("drawn",))
    assert {id: row["outputs"] for id, row in first.items()} == {
        id: row["outputs"] for id, row in rows(0, "drawn").items()
    }


def test_served_names_of_one_server_are_variants(server: FakeServer, folder: Path) -> None:
    document = run(
        "base", "mine=endpoint:#other", model=f"endpoint:{server.url}#base", tokenizer=str(folder), tasks=("letters",)
    )
    assert [each.name for each in document.variants] == ["base", "mine"]
    assert rows(0, "letters") != rows(1, "letters")
    assert {body["model"] for _, body, _ in server.asked if body} >= {"base", "other"}


def test_a_run_continues_by_sample(server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.serving.client.PATIENCE", 0.0)
    asked = {"model": f"endpoint:{server.url}#base", "tokenizer": str(folder), "tasks": ("texts",), "batch_size": 1}
    run("base", **{**asked, "limit": 1})
    probed = server.posts() - 1
    server.asked.clear()
    server.quirks.dies_after = probed + 4
    document = run("base", **asked)
    assert document.variants[0].status == "failed" and "does not answer" in str(document.variants[0].error)
    kept = 4
    server.asked.clear()
    server.quirks.dies_after = None
    document = run("base", **asked)
    assert document.variants[0].status == "done"
    assert server.posts() == probed + 6 - kept
    server.asked.clear()
    run("base", **asked)
    assert server.posts() == 0, "a finished run is shown again"


def test_results_of_another_server_are_not_reused(server: FakeServer, folder: Path) -> None:
    asked = {"model": f"endpoint:{server.url}#base", "tasks": ("texts",), "limit": 2}
    run("base", **asked)
    server.quirks = Quirks(version="2.0")
    run("base", **asked)
    versions = [load_run(path).variants[0].scores[0].protocol.served for path in Path("runs").iterdir()]
    assert sorted(each.says["server"]["version"] for each in versions if each) == ["1.0", "2.0"]


def test_messages_are_sent_where_there_is_no_tokenizer(server: FakeServer) -> None:
    document = run(
        "base",
        "told=base:system=Be brief.",
        model=f"endpoint:{server.url}#base",
        tasks=("texts",),
        apply_chat_template=True,
    )
    protocol = document.variants[0].scores[0].protocol
    assert protocol.chat_template == "the server's own" and protocol.served and protocol.served.way == "chat"
    sent = [body["messages"] for path, body, _ in server.asked if path.endswith("/chat/completions")]
    assert [{"role": "user", "content": "hello is one plus"}] in sent
    assert [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello is one plus"}] in sent
    with pytest.raises(UserError, match="after messages cannot be asked for"):
        run("base", model=f"endpoint:{server.url}#base", tasks=("letters",), apply_chat_template=True)


def test_the_key_is_in_no_file_and_on_no_screen(
    server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_ENDPOINT_KEY", KEY)
    server.quirks = Quirks(key=KEY)
    command = ["compare", "base", "-m", f"endpoint:{server.url}#base", "-t", "t.py@texts", "-n", "2"]
    assert main(command) == 0
    server.quirks = Quirks(key="another", version="2")
    assert main(command) == 2
    shown = capsys.readouterr()
    assert "refuses the key" in shown.err and KEY not in shown.out + shown.err
    written = [path for path in Path().rglob("*") if path.is_file()]
    assert len(written) > 2 and not any(KEY.encode() in path.read_bytes() for path in written)
    assert all(headers["Authorization"] == f"Bearer {KEY}" for _, _, headers in server.asked)


def test_training_done_here_is_scored_where_it_is_served(server: FakeServer, folder: Path) -> None:
    document = run(
        "lora=lora:rank=2",
        f"there=lora:rank=2@endpoint:{server.url}#other",
        model=folder,
        tasks=("texts",),
        train={"steps": 1, "batch_size": 1},
    )
    here, there = document.variants
    assert here.status == there.status == "done"
    assert there.train is not None and here.train is not None and there.train.train_seconds == here.train.train_seconds
    assert there.scores[0].protocol.served and there.spec.endswith(f"@endpoint:{server.url}#other")
    assert len(list(Path("runs").glob("*/adapters/*"))) == 1


def test_scoring_stops_where_it_is_decided(server: FakeServer, folder: Path) -> None:
    address = f"endpoint:{server.url}#base"
    document = run("base", f"there={address}", model=folder, tasks=("letters",), until_decided=True)
    assert [each.status for each in document.variants] == ["done", "done"]
    assert document.comparisons[0].early is not None


def test_the_context_of_the_server_counts(server: FakeServer, folder: Path) -> None:
    server.quirks = Quirks(context=40)
    asked = {"model": f"endpoint:{server.url}#base", "tokenizer": str(folder)}
    with pytest.raises(UserError, match="do not fit into the context of 40 tokens"):
        run("base:system=" + "x1 " * 30, tasks=("texts",), **asked)
    document = run("base:system=" + "x1 " * 30, tasks=("texts",), allow_cut=True, **asked)
    assert document.variants[0].status == "done" and all(row["truncated"] for row in rows(0, "texts").values())
    assert max(len(body["prompt"]) for _, body, _ in server.asked if body and isinstance(body["prompt"], list)) < 40
    Path("runs").rename("before")
    document = run("base", tasks=("words",), **asked)
    assert document.variants[0].status == "done"
    assert [note for note in document.notes if "windows of 38 tokens" in note], document.notes


def test_an_answer_that_the_context_cuts_is_counted(server: FakeServer, folder: Path) -> None:
    run("base", model=f"endpoint:{server.url}#base", tasks=("texts",))
    whole = rows(0, "texts")
    Path("runs").rename("before")
    server.quirks = Quirks(context=max(row["prompt_tokens"] for row in whole.values()) + 2)
    run("base", model=f"endpoint:{server.url}#base", tasks=("texts",))
    assert any(row["shortened"] for row in rows(0, "texts").values())
    assert not any(row["shortened"] for row in whole.values())


def test_a_slow_probe_does_not_seem_to_hang(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.serving.parallel._BEAT", 0.01)
    server.quirks = Quirks(seconds=0.05)
    request = Request("0", "generate", ("hello",), max_tokens=2)
    events: list[Event] = []
    base = Base(NO_FILES, "cpu", "float32", served=Served(server.url, "base"))
    found = run_job(ProbeJob(base, [TaskRequests("t", [request])]), events.append)
    assert found.way == "text" and len(events) > 3


def test_a_dry_run_asks_for_no_completion(server: FakeServer) -> None:
    address = f"endpoint:{server.url}#base"
    planned = plan(configure(["base"], model=address, tasks=["t.py@texts"]))
    assert "tokens as the server counts them" in str(planned) and server.posts() == 0


@pytest.mark.parametrize(
    ("variants", "more", "message"),
    [
        (["lora"], {}, "cannot be trained"),
        (["base@4bit"], {}, "cannot be changed"),
        (["base", "./adapter"], {}, "cannot be changed"),
        (["endpoint:#nothing"], {}, "has no model `nothing`"),
        (["base:think=on"], {"apply_chat_template": True}, "knows no thoughts"),
        (["base", "chat=base:template=chat"], {}, "is asked in one way"),
        (["base"], {"tokenizer": "./nowhere"}, "no tokenizer at"),
        (["base"], {"tokenizer": "./empty"}, "there is no tokenizer"),
    ],
)
def test_what_a_served_model_cannot_do_is_refused(
    server: FakeServer, variants: list[str], more: dict[str, Any], message: str
) -> None:
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text('{"peft_type": "LORA"}')
    Path("empty").mkdir()
    with pytest.raises(UserError, match=message):
        run(*variants, model=f"endpoint:{server.url}#base", tasks=("texts",), **more)
    assert not list(Path().glob("runs/*/samples")) and server.posts() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "lora"], "gives neither weights nor configuration"),
        (["bench", "base"], "gives neither weights nor configuration"),
        (["plan", "lora"], "gives neither weights nor configuration"),
    ],
)
def test_commands_that_need_weights_refuse_a_server(
    server: FakeServer, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["-t", "t.py@texts"] if arguments[0] == "train" else []
    assert main([*arguments, "-m", f"endpoint:{server.url}#base", *more]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_bench_refuses_a_served_variant(server: FakeServer, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", f"endpoint:{server.url}#base", "-m", str(folder)]) == 2
    assert "can only be scored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("endpoint:http://h/v1", "names no model"),
        ("endpoint:http://h/v1#a@merged", "cannot change a served model"),
        ("endpoint:http://h/v1#a:lr=1e-4", "is given and only scored"),
        ("base@endpoint:http://h/v1#a", "is for what was trained"),
        ("lora@4bit@endpoint:http://h/v1#a", "cannot change what a server loads"),
        ("lora@endpoint:http://h/v1", "names no model"),
    ],
)
def test_malformed_variants(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_variant(text)


@pytest.mark.parametrize(
    "text",
    [
        "endpoint:http://h:8000/v1#llama3:8b",
        "endpoint:#owner/name@x:shots=5,system='a: b'",
        "lora:rank=8@endpoint:http://h:8000/v1#mine:2",
    ],
)
def test_specs_read_back(text: str) -> None:
    spec = parse_variant(text)
    again = parse_variant(spec.canonical)
    assert (again.canonical, again.served, again.prompting) == (spec.canonical, spec.served, spec.prompting)
    assert spec.served and spec.served.partition("#")[2] in text


def test_yaml_reads_back(server: FakeServer) -> None:
    variants = ["mine=endpoint:#other:shots=0", "base", f"x=lora:rank=2@endpoint:{server.url}#a"]
    config = configure(variants, model=f"endpoint:{server.url}#base", tasks=["t.py@texts"], tokenizer="./t")
    Path("compare.yaml").write_text(config.to_yaml())
    again = configure([], file=Path("compare.yaml"), model=config.model, tasks=["t.py@texts"])
    assert again == config


def test_a_file_names_no_server(server: FakeServer) -> None:
    Path("compare.yaml").write_text(
        f"model: endpoint:{server.url}#base\ntasks: [t.py@texts]\nvariants: {{base: {{}}, x: {{adapter: 'endpoint:https://evil/v1#a'}}}}\n"
    )
    with pytest.raises(UserError) as caught:
        configure([], file=Path("compare.yaml"))
    assert all(f"names the server `{url}`" in caught.value.message for url in (server.url, "https://evil/v1"))
    named = configure(["base"], file=Path("compare.yaml"), model=f"endpoint:{server.url}#base", tasks=["t.py@texts"])
    assert named.model == f"endpoint:{server.url}#base"


def test_a_tokenizer_is_for_served_models(folder: Path) -> None:
    with pytest.raises(UserError, match="`--tokenizer` is for served models"):
        configure(["base"], model=str(folder), tokenizer="./t", tasks=["t.py@texts"])
