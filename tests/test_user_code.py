"""Code of a user's file cannot end or disturb the program that calls it."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from harness import Generate, Metric, Output, Task, UserError, exact_match
from harness.data.sources import source
from harness.prompts.render import render
from harness.user_code import calling, code_file, limit, user_code


def task_of(sample: Any, *metrics: Any) -> Task:
    return Task(data=[{"a": "1"}], sample=sample, metrics=[*metrics] or [exact_match])


def test_an_exit_in_a_sample_or_a_metric_is_an_error_that_names_the_file() -> None:
    with pytest.raises(UserError, match=r"`test_user_code.py` called `sys.exit\(0\)` in `<lambda>` on row 0"):
        render("toy", task_of(lambda row: sys.exit(0)))
    metric = Metric("mine", score=lambda prediction, target: sys.exit())
    with pytest.raises(UserError, match=r"`test_user_code.py` called `sys.exit\(\)` in metric `mine`"):
        metric.measure(Output(texts=("a",)), Generate("q", "a"))

    class Ended(BaseException):
        pass

    def sample(row: Any) -> Any:
        raise Ended("now")

    with pytest.raises(UserError, match="raised Ended in `sample` on row 0 of task `toy`: now"):
        render("toy", task_of(sample))


def test_a_changed_working_folder_is_an_error_and_is_restored(tmp_path: Path) -> None:
    before = Path.cwd()

    def sample(row: Any) -> Generate:
        os.chdir(tmp_path)
        return Generate("q", "a")

    with pytest.raises(UserError, match=r"`test_user_code.py` changed the working folder in `sample`"):
        render("toy", task_of(sample))
    assert Path.cwd() == before
    with pytest.raises(ValueError, match="own"), user_code("t.py", "x"):
        os.chdir(tmp_path)
        raise ValueError("own")
    assert Path.cwd() == before


def test_a_source_of_a_users_file_is_its_code() -> None:
    class Rows:
        def load(self) -> Any:
            sys.exit(0)

        def digest(self) -> str:
            return "0"

    with pytest.raises(UserError, match=r"`test_user_code.py` called `sys.exit\(0\)` in `load` of its data"):
        render("toy", Task(data=Rows(), sample=lambda row: Generate("q", "a"), metrics=[exact_match]))
    assert source(Rows()).digest() == "0"


def test_prints_go_to_stderr_also_from_threads(capsys: pytest.CaptureFixture[str]) -> None:
    def work(number: int) -> None:
        for _ in range(200):
            with user_code("t.py", "x"):
                print("noise")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("data")
    out, err = capsys.readouterr()
    assert out == "data\n" and err == "noise\n" * 1600


@pytest.mark.parametrize("text", ["\ud83d", "a\udc00"])
def test_half_of_a_character_is_refused_with_the_row(text: str) -> None:
    with pytest.raises(UserError, match=r"task `toy`, row 0: a text of the sample has half of a character \(.ud"):
        render("toy", task_of(lambda row: Generate(text, "a")))
    with pytest.raises(UserError, match="half of a character"):
        render("toy", task_of(lambda row: Generate("q", "a", stop=(text,))))


def test_only_code_outside_of_the_package_is_watched() -> None:
    assert code_file(exact_match.score or print) is None and code_file(render) is None
    assert code_file(task_of) == __file__
    with calling(None, "x"), calling(render, "x"):
        pass


def test_the_time_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limit() == 60
    monkeypatch.setenv("HARNESS_USER_CODE_SECONDS", "5")
    assert limit() == 5
    for text in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("HARNESS_USER_CODE_SECONDS", text)
        with pytest.raises(UserError, match="HARNESS_USER_CODE_SECONDS"):
            limit()


def test_a_hang_ends_a_child_by_an_alarm() -> None:
    code = "from harness.user_code import *; import time; end_on_hang()\nwith user_code('t.py', 'x'): pass\ntime.sleep(0.5)\nwith user_code('t.py', 'x'): time.sleep(30)"
    environment = {**os.environ, "HARNESS_USER_CODE_SECONDS": "0.3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=20)
    assert done.returncode == -signal.SIGALRM
