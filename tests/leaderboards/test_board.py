"""The board: a site that requests nothing, with the ranks of the runs, whatever is in the folders."""

from __future__ import annotations

import html.parser
import http.client
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hand_made_run import hand_made_run
from large_run import large_run

from harness.cli import main
from harness.errors import UserError
from harness.leaderboards.board import MANIFEST, board_pages, write_board
from harness.leaderboards.board_models import board_models
from harness.leaderboards.board_runs import RunReader
from harness.leaderboards.board_server import BoardServer
from harness.results import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = '<script>alert("x")</script>|../_a_%&{}\u202e'


class Links(html.parser.HTMLParser):
    """Collects the tags of a page and all addresses in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("href", "src", "action", "srcset", "data")]


def saved(folder: Path, run: Run) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(run.to_json())
    return folder


def site(*runs: Run) -> dict[str, str]:
    return {name: content.decode() for name, content in board_pages(list(runs))}


def test_every_link_leads_to_a_file_of_the_board_and_none_elsewhere() -> None:
    files = site(large_run(4, 7), large_run(9, 3, seed=1, model="x/y"))
    kinds = {name.partition("-")[0] for name in files if name.endswith(".html")}
    assert kinds == {"index.html", "models.html", "tasks.html", "methods.html", "model", "task", "method"}
    linked = set()
    for name, text in files.items():
        if name.endswith(".html"):
            assert "default-src 'none'" in text and "http" not in re.sub(r"http-equiv", "", text)
            for link in Links(text).links:
                page, _, id = link.partition("#")
                assert link == "data:," or not page or page in files, link
                assert not id or f'id="{id}"' in files[page or name], link
                linked.add(page)
    assert {name for name in files if name.endswith((".html", ".js", ".css"))} <= linked
    assert "url(" not in files["board.css"] and "@import" not in files["board.css"] and "--paper" in files["board.css"]


def test_index_and_task_pages_have_the_ranks_of_the_verdicts() -> None:
    tasks = {f"t{n}": "acc" for n in range(7)}
    scores = {"base": (0.1,) * 7, "lora": (0.5,) * 7, "qlora": (0.505,) * 7, "full": (0.9,) * 7}
    run = hand_made_run(scores, tasks=tasks)
    model = board_models([run])[0]
    order = model.tables[0].order
    assert {name: tuple(place.rank or ()) for name, place in order.items()} == {
        "base": (4, 4), "lora": (3, 3), "qlora": (2, 2), "full": (1, 1)
    }  # fmt: skip
    assert [round(order[name].win_rate.value, 3) for name in ("full", "qlora", "lora", "base")] == [1, 0.667, 0.333, 0]  # type: ignore[union-attr]
    files = site(run)
    page = next(text for name, text in files.items() if name.startswith("task-t0"))
    rows = re.findall(
        r'<th class="n" scope="row" title="(\w+)">.*?<td>([^<]*)(?:<small>([^<]*)</small>)?</td>.*?aria-label="([^"]*)"',
        page,
    )
    assert rows == [("full", "1", "", "groups a"), ("qlora", "2", "2–3", "groups b"), ("lora", "2", "2–3", "groups b"),
                    ("base", "4", "", "groups c")]  # fmt: skip
    assert "not shown to differ" in page


def test_names_of_others_are_plain_text_and_file_names_are_safe() -> None:
    document = (
        large_run(4, 3, model=EVIL).to_json().replace('"lora"', json.dumps(EVIL)).replace('"gsm8k"', json.dumps(EVIL))
    )
    run = Run.model_validate_json(document)
    plain, evil = site(large_run(4, 3)), site(run)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) and ".." not in name for name in evil)
    assert len(evil) == len(plain)
    text = "".join(evil.values())
    assert "<script>alert" not in text and "\u202e" not in text and "&lt;script&gt;alert" in evil["index.html"]
    assert Links(evil["index.html"]).tags == Links(plain["index.html"]).tags
    titled = dict(board_pages([run], title=f"x\n---\n{EVIL}"))
    card = titled["README.md"].decode()
    assert (
        card.count("\n---\n") == 1 and card.startswith("---\ntitle: ") and b"<script>alert" not in titled["index.html"]
    )


def test_models_of_one_name_and_names_that_differ_in_case_have_pages_of_their_own() -> None:
    one = large_run(3, 2)
    other = one.model_copy(
        update={
            "created": "2026-01-01",
            "environment": {**one.environment, "model": {"name": "Qwen/Qwen3-0.6B", "digest": "ffff"}},
        }
    )
    lower = large_run(3, 2, model="qwen/qwen3-0.6b")
    files = site(one, other, lower)
    pages = [name for name in files if name.startswith("model-")]
    assert len({name.lower() for name in pages}) == 3
    assert "Qwen/Qwen3-0.6B (ffff)" in files["models.html"]


def test_an_older_run_is_history_and_a_repeated_one_counts_once(tmp_path: Path) -> None:
    new = large_run(3, 2, seed=1)
    old = large_run(3, 2, seed=0).model_copy(update={"harness": "0.0.9"})
    for name, run in (("old/run", old), ("new/run", new), ("copy/run", new)):
        saved(tmp_path / name, run)
    runs, problems = RunReader().read([tmp_path])
    assert not problems and [run.harness for run in runs] == ["0.1.0", "0.0.9"], "two runs of one name, and a copy"
    [model] = board_models(runs)
    assert len(model.current) == 1 and model.current[0].config_sha256 == new.config_sha256
    past = [each for each in model.history if each.task == "gsm8k" and each.variant == "lora"]
    assert [(each.harness, each.version) for each in past[0].scores] == [("0.1.0", "1"), ("0.0.9", "1")]
    page = next(text for name, text in site(*runs).items() if name.startswith("model-"))
    assert "History" in page and "0.0.9" in page


def test_unfinished_and_failed_runs_are_shown_and_unreadable_ones_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "a", large_run(7, 2))
    document = json.loads(large_run(3, 2, seed=2, model="x/pending").to_json())
    for variant in document["variants"]:
        variant |= {"status": "pending", "scores": [], "train": None, "inference": None}
    saved(tmp_path / "b", Run.model_validate(document | {"comparisons": []}))
    for name, text in (("foreign", '{"schema": 99}'), ("torn", '{"schema": 1, "har'), ("text", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    assert main(["board", str(tmp_path), "--out", str(tmp_path / "out"), "--title", "Ours"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "out/index.html") and said.err.count("skipped:") == 3
    index = (tmp_path / "out/index.html").read_text()
    assert "3 further runs could not be read" in index and str(tmp_path) not in index
    assert "interrupted" in index and "out of memory" in index and "<h1>Ours</h1>" in index


def test_empty_missing_and_foreign_folders_are_user_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["board", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "no run in" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert main(["board", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="files that are not of a board"):
        write_board(board_pages([large_run(2, 1)]), mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


def test_a_board_replaces_an_earlier_one_and_no_other_file(tmp_path: Path) -> None:
    out = tmp_path / "site"
    (out / ".git").mkdir(parents=True)
    write_board(board_pages([large_run(2, 1), large_run(2, 1, model="x/gone")]), out)
    (out / "CNAME").write_text("example.org")
    manifest = json.loads((out / MANIFEST).read_text())
    (tmp_path / "precious").touch()
    manifest["files"].append("../precious")
    (out / MANIFEST).write_text(json.dumps(manifest))
    names = dict(board_pages([large_run(2, 1)])).keys()
    write_board(board_pages([large_run(2, 1)]), out)
    assert {path.name for path in out.iterdir()} == {*names, MANIFEST, "CNAME", ".git"}
    assert (tmp_path / "precious").exists()


def test_many_rows_are_several_pages_and_the_index_stays_small() -> None:
    files = site(*(large_run(12, 1, seed=n, model=f"org/model-{n}") for n in range(80)))
    parts = [name for name in files if name.startswith("task-gsm8k")]
    assert len(parts) == 2 and parts[1] == parts[0].replace(".html", "-2.html")
    assert f'href="{parts[1]}"' in files[parts[0]] and f'href="{parts[0]}"' in files[parts[1]]
    assert sum(files[part].count('scope="row"') for part in parts) == 80 * 11
    assert (
        files["index.html"].count('scope="row"') == 80 * (600 // 80)
        and "and 5 more variants of this model" in files["index.html"]
    )
    assert files["names.js"].count('["model"') == 80


# The server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[BoardServer]:
    saved(tmp_path / "runs/a", large_run(3, 2))
    with BoardServer([tmp_path / "runs"], port=0) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def ask(
    server: BoardServer, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, str, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)  # type: ignore[arg-type]
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text, response


def test_the_server_is_on_loopback_and_gives_files_of_the_board_only(server: BoardServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    status, text, response = ask(server, "/")
    assert status == 200 and "Qwen/Qwen3-0.6B" in text and response.headers["Refresh"] == "30"
    assert ask(server, "/index.html?x=1")[1] == text and ask(server, "/board.css")[2].headers[
        "Content-Type"
    ].startswith("text/css")
    for path in ("/../../etc/passwd", "/%2e%2e/run.json", "//etc/passwd", "/runs/a/run.json", "/a/run.json"):
        assert ask(server, path)[0] == 404
    assert ask(server, "/", method="HEAD")[1] == ""
    assert {ask(server, "/", method=method)[0] for method in ("POST", "PUT", "DELETE")} == {501}


def test_the_server_refuses_the_names_of_other_sites(server: BoardServer) -> None:
    port = server.server_address[1]
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        f"localhost.evil.example:{port}",
        "",
    ):
        assert ask(server, "/", Host=host)[0] == 403, host
    assert ask(server, "/", Host=f"LOCALHOST:{port}")[0] == 200


def test_the_server_shows_runs_as_they_go_on(server: BoardServer, tmp_path: Path) -> None:
    assert "x/later" not in ask(server, "/")[1]
    saved(tmp_path / "runs/b", large_run(2, 1, seed=3, model="x/later"))
    server.look_again()
    assert "x/later" in ask(server, "/")[1]
    (tmp_path / "runs/b/run.json").write_text("{")
    server.look_again()
    assert "1 further run could not be read" in ask(server, "/")[1]


def test_a_port_that_is_taken_is_a_user_error(server: BoardServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="could not listen") as caught:
        BoardServer([tmp_path / "runs"], port=server.server_address[1])
    assert caught.value.hint and "--port" in caught.value.hint


# In a browser

PROBE = """
addEventListener("load", () => {
  const box = document.querySelector(".board-tools input"), rows = () => [...document.querySelectorAll("tbody tr:not(.g)")].filter((row) => row.checkVisibility()).length;
  const wide = document.documentElement.scrollWidth > innerWidth, all = rows();
  box.value = "x/other qlora"; box.dispatchEvent(new Event("input"));
  const found = [...document.querySelectorAll(".found a")].map((link) => link.textContent);
  const style = getComputedStyle(document.body).fontSize;
  parent.postMessage(`[${innerWidth} px: ${wide ? "scrolls" : "fits"}, ${all} rows, ${rows()} found, pages ${found}, ${style}]`, "*");
});
"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (`apt-get install chromium`)")
def test_in_a_browser_the_board_fits_and_is_searched_from_a_disk(tmp_path: Path) -> None:
    assert CHROMIUM
    runs = [large_run(4, 3), large_run(5, 3, seed=1, model="x/other")]
    write_board(board_pages(runs), tmp_path / "site")
    with (tmp_path / "site/board.js").open("a") as file:
        file.write(PROBE)
    frames = "".join(
        f'<iframe src="site/index.html" style="width:{width}px;height:800px;border:0"></iframe>'
        for width in (390, 1440)
    )
    listen = '<script>addEventListener("message", (event) => { document.body.append(event.data); });</script>'
    (tmp_path / "frames.html").write_text(f"<!doctype html><body>{listen}{frames}</body>")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=4000",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, f"file://{tmp_path}/frames.html"], capture_output=True, text=True, timeout=120, check=True
    )
    for width in (390, 1440):
        assert f"[{width} px: fits, 9 rows, 1 found, pages x/other, 15px]" in done.stdout, done.stdout[-1500:]
    assert "CONSOLE" not in done.stderr
