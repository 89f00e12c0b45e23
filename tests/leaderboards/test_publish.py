"""`harness publish`: which files leave the machine, what they leave out, and what happens when the Hub refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faulty_hubs as hubs
import pytest
from example_run import example_run
from huggingface_hub.errors import HfHubHTTPError

from harness.errors import UserError
from harness.leaderboards import private_text
from harness.leaderboards.hub_repository import find_destination, send
from harness.leaderboards.published_files import files_of
from harness.results import Run

TOKEN = "hf_" + "a1B2" * 9


class FakeHub:
    """The calls of `HfApi` that publishing makes, on files in memory."""

    def __init__(self, folder: Path, *, fails: tuple[int, ...] = (), private: bool = True) -> None:
        self.folder, self.fails, self.private = folder, list(fails), private
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.commits: list[dict[str, Any]] = []
        self.tries = 0

    def whoami(self) -> dict[str, Any]:
        return {"name": "me", "orgs": [{"name": "lab"}]}

    def repo_info(self, name: str, repo_type: str) -> Any:
        if name not in self.repositories:
            raise refusal(404)
        there = [SimpleNamespace(rfilename=path, size=len(text)) for path, text in self.repositories[name].items()]
        return SimpleNamespace(private=self.private, sha="c" * 40, siblings=there)

    def hf_hub_download(self, name: str, path: str, repo_type: str, local_dir: str) -> str:
        (target := Path(local_dir) / path).parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(self.repositories[name][path])
        return str(target)

    def create_repo(self, name: str, **more: Any) -> None:
        self.private = more["private"]
        self.repositories[name] = {}

    def create_commit(self, name: str, operations: list[Any], **more: Any) -> Any:
        self.tries += 1
        if self.fails:
            raise refusal(self.fails.pop(0))
        self.commits.append(more)
        if not more["create_pr"]:
            self.repositories[name] |= {each.path_in_repo: each.path_or_fileobj for each in operations}
        return SimpleNamespace(pr_url="pr" if more["create_pr"] else None, commit_url="commit")


def refusal(status: int) -> HfHubHTTPError:
    error = HfHubHTTPError.__new__(HfHubHTTPError)
    Exception.__init__(error, f"status {status}")
    error.response = SimpleNamespace(status_code=status)  # type: ignore[assignment]
    return error


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.leaderboards.hub_repository.time.sleep", lambda seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_dataset_has_results_and_no_texts_of_samples(tmp_path: Path) -> None:
    run = example_run()
    whole = run.model_copy(update={"config": {key: value for key, value in run.config.items() if key != "limit"}})
    made = files_of(whole, tmp_path, "dataset")
    assert list(made) == ["README.md", "run.json", "results.csv"]
    sent = Run.model_validate_json(made["run.json"])
    assert [each.name for each in sent.variants] == ["base", "lora", "qlora"] and sent.samples_shown == ()
    assert "imited" not in made["README.md"].decode()


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_local_paths_names_and_addresses_stay_here(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_text.getpass, "getuser", lambda: "annabel")
    model = "/srv/secret-project/models/llama"
    run = example_run()
    run = run.model_copy(
        update={
            "command": f"harness compare base lora --model {model} -o C:\\Users\\annabel\\runs -S data=~annabel/rows.jsonl",
            "config": {**run.config, "model": model, "output_dir": str(tmp_path)},
            "environment": {**run.environment, "model": {"name": model, "digest": "0" * 64}},
            "notes": ("served by http://10.0.0.7:8000/v1 for annabel; see tokens/s", f"peft:{model}"),
        }
    )
    text = "\n".join(content.decode() for content in files_of(run, tmp_path, kind).values())
    for private in ("secret-project", "annabel", "10.0.0.7", str(tmp_path)):
        assert private not in text
    assert "…/llama" in text and "tokens/s" in text


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_a_limited_run_says_so_in_every_file_for_readers(kind: Any, tmp_path: Path) -> None:
    run = example_run()
    made = files_of(run.model_copy(update={"config": {**run.config, "limit": 50}}), tmp_path, kind)
    assert "limited-run" in made["README.md"].decode()
    for name in {"README.md", "run.json", "index.html"} & made.keys():
        assert "at most 50 samples per task" in made[name].decode(), name


def test_an_unfinished_run_and_one_without_scores_are_refused(tmp_path: Path) -> None:
    run = example_run()
    stopped = run.variants[-1].model_copy(update={"status": "interrupted"})
    with pytest.raises(UserError, match="not finished: qlora"):
        files_of(run.model_copy(update={"variants": (*run.variants[:-1], stopped)}), tmp_path, "dataset")
    empty = tuple(each.model_copy(update={"scores": ()}) for each in run.variants)
    with pytest.raises(UserError, match="no scores"):
        files_of(run.model_copy(update={"variants": empty}), tmp_path, "dataset")


@pytest.mark.parametrize(
    "text", [TOKEN, "AKIA" + "Q" * 16, "-----BEGIN RSA PRIVATE KEY-----", "https://a:pass@host/x", "ghp_" + "z" * 36]
)
def test_samples_with_a_secret_are_refused_and_the_secret_is_not_shown(text: str, tmp_path: Path) -> None:
    rows = tmp_path / "samples" / "base" / "t.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text(json.dumps({"id": "1"}) + "\n" + json.dumps({"outputs": [text]}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"samples/base/t.jsonl.*line 2; nothing was sent") as error:
        files_of(example_run(), tmp_path, "dataset", samples=True)
    assert text not in error.value.message
    rows.write_text('{"id": "1"}\n', encoding="utf-8")
    assert "samples/base/t.jsonl" in files_of(example_run(), tmp_path, "dataset", samples=True)


def test_the_token_itself_is_refused_whatever_it_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "an-odd-token")
    with pytest.raises(UserError, match="your token"):
        files_of(example_run().model_copy(update={"notes": ("an-odd-token",)}), tmp_path, "dataset")


def test_samples_that_link_out_of_the_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "outside.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "samples" / "t.jsonl").symlink_to(tmp_path / "outside.jsonl")
    with pytest.raises(UserError, match="outside of the folder"):
        files_of(example_run(), tmp_path, "dataset", samples=True)


def test_a_new_repository_is_private_and_gets_one_commit(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path)
    made = {"README.md": b"one\n", "run.json": b"{}"}
    found = find_destination(hub, "me/results", "dataset", made, public=False, create_pr=None)
    assert not hub.repositories and not found.pull_request
    assert send(hub, found, "Results") == "commit"
    assert hub.private and len(hub.commits) == 1 and hub.repositories["me/results"] == made
    changed = made | {"README.md": b"two\n"}
    again = find_destination(hub, "me/results", "dataset", changed, public=False, create_pr=None)
    assert list(again.changes) == ["README.md"] and "-one" in again.difference and "+two" in again.difference
    assert not find_destination(hub, "me/results", "dataset", made, public=False, create_pr=None).changes


def test_repositories_of_others_get_a_pull_request_and_public_ones_are_asked_for(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path)
    hub.repositories |= {"them/results": {}, "lab/results": {}}
    theirs = find_destination(hub, "them/results", "dataset", {"a": b""}, public=False, create_pr=None)
    assert theirs.pull_request and send(hub, theirs, "Results") == "pr"
    assert not find_destination(hub, "lab/results", "dataset", {"a": b""}, public=False, create_pr=None).pull_request
    assert find_destination(hub, "lab/results", "dataset", {"a": b""}, public=False, create_pr=True).pull_request
    with pytest.raises(UserError, match="`them` is not you"):
        find_destination(hub, "them/new", "dataset", {}, public=False, create_pr=None)
    hub.private = False
    with pytest.raises(UserError, match="is public"):
        find_destination(hub, "lab/results", "dataset", {}, public=False, create_pr=None)


@pytest.mark.parametrize("name", ["results", "me/", "/results", "me/a/b", ""])
def test_a_name_that_is_no_repository_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a repository"):
        find_destination(FakeHub(tmp_path), name, "dataset", {}, public=False, create_pr=None)


@pytest.mark.parametrize("status", [401, 403, 409, 412, 429, 500])
def test_a_hub_that_refuses_the_commit_has_none_of_the_files(status: int, tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, fails=(status,))
    hub.repositories["me/results"] = {}
    found = find_destination(hub, "me/results", "dataset", {"a": b"1"}, public=False, create_pr=None)
    with pytest.raises(UserError, match=rf"\({status}\); none of the files was changed"):
        send(hub, found, "Results")
    assert hub.repositories["me/results"] == {} and hub.tries == 1


def test_an_overloaded_hub_is_asked_again_where_nothing_can_land_twice(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, fails=(503, 503))
    hub.repositories["me/results"] = {}
    found = find_destination(hub, "me/results", "dataset", {"a": b"1"}, public=False, create_pr=None)
    assert send(hub, found, "Results") == "commit" and hub.tries == 3
    assert hub.commits[0]["parent_commit"] == "c" * 40
    hub.fails = [503]
    request = find_destination(hub, "me/results", "dataset", {"a": b"2"}, public=False, create_pr=True)
    with pytest.raises(UserError, match="overloaded"):
        send(hub, request, "Results")
    assert hub.tries == 4


@pytest.mark.slow
@pytest.mark.hub
def test_the_real_client_publishes_to_the_local_hub(tmp_path: Path) -> None:
    folder, written = tmp_path / "runs" / "r", tmp_path / "hub"
    folder.mkdir(parents=True)
    written.mkdir()
    (folder / "run.json").write_text(example_run().to_json(), encoding="utf-8")
    with hubs.hub("--write", str(written), "--flaky", "2") as address:
        environment = hubs.of(address, tmp_path) | {"HF_TOKEN": TOKEN}

        def publish(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "harness", "publish", str(folder), *words]
            return subprocess.run(
                command,
                env=dict(os.environ) | environment | changes,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )

        unasked = publish("--to", "local/results")
        assert unasked.returncode == 2 and "give `--yes`" in unasked.stderr and not any(written.iterdir())
        done = publish("--to", "local/results", "--yes")
        assert done.returncode == 0, done.stderr
        there = written / "datasets" / "local" / "results"
        assert sorted(path.name for path in there.iterdir()) == ["README.md", "results.csv", "run.json"]
        assert "already has these files" in publish("--to", "local/results", "--public").stdout  # reads through 503s
        assert publish("--to", "local/page", "--as", "space", "--yes").returncode == 0
        assert "sdk: static" in (written / "spaces" / "local" / "page" / "README.md").read_text(encoding="utf-8")
        for path in (path for path in written.rglob("*") if path.is_file()):
            assert TOKEN not in path.read_text(encoding="utf-8")
    shutil.rmtree(written)
    with hubs.hub() as address:  # read-only: it answers 403
        refused = publish("--to", "local/results", "--yes", HF_ENDPOINT=address)
    assert refused.returncode == 2 and "does not allow it (403)" in refused.stderr
    assert "Traceback" not in refused.stderr
