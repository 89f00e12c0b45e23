"""The probe tells servers with right log-probabilities from those without, and finds what a server does in silence."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_server import FakeServer, Quirks
from tiny_models import EOS, save_tiny, tiny_tokenizer

from harness.errors import UserError
from harness.jobs import Served
from harness.serving.asked import Asked, TrialPrompt
from harness.serving.capabilities import Capabilities
from harness.serving.client import Client
from harness.serving.completions import read
from harness.serving.faults import ServerFault
from harness.serving.probe import probe

TEXT = "The capital of France is Paris, and the"
LONG = "hello world, this is a small tokenizer " * 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), layers=1)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[FakeServer]:
    with FakeServer(folder).running() as running:
        yield running


def prompt(text: str) -> TrialPrompt:
    return TrialPrompt(text, tuple(tiny_tokenizer()(text)["input_ids"]))


ASKED = Asked((prompt(TEXT),), prompt(LONG))
STOPS, SAMPLES = replace(ASKED, likelihoods=False, stops=6), replace(ASKED, likelihoods=False, sampled=True)


def found(server: FakeServer, asked: Asked = ASKED, **quirks: Any) -> Capabilities:
    server.quirks = Quirks(**quirks)
    return probe(Client(Served(server.url, "base"), patience=0), asked)


def test_a_server_that_is_right_scores_by_ids(server: FakeServer) -> None:
    assert found(server, replace(ASKED, stops=6, sampled=True, end_ids=(EOS,))) == Capabilities(
        "ids",
        likelihoods="prompt_logprobs",
        letters=True,
        returns_ids=True,
        counts_as_we_do=True,
        fields=("return_token_ids", "top_k", "min_p", "stop_token_ids"),
        answers_as="base",
    )


def test_echo_serves_where_prompt_logprobs_are_missing(server: FakeServer) -> None:
    can = found(server, prompt_logprobs=False)
    assert can.likelihoods == "echo" and can.letters
    assert not found(server, prompt_logprobs=False, letters=False).letters


@pytest.mark.parametrize(
    ("quirks", "why"),
    [
        ({"echo": "shifted"}, "off what it said of the same tokens"),
        ({"echo": "ignored"}, "ignores `echo`"),
        ({"logprobs": False}, "does not give log-probabilities"),
        ({"returns_ids": False}, "does not give the ids"),
        ({"ids": False}, "takes no token ids"),
    ],
)
def test_wrong_log_probabilities_are_not_used(server: FakeServer, quirks: dict[str, Any], why: str) -> None:
    can = found(server, prompt_logprobs=False, **quirks)
    assert can.likelihoods is None and not can.letters and why in can.no_likelihoods
    assert why in str(can)


def test_a_server_that_takes_no_ids_gets_text(server: FakeServer) -> None:
    can = found(server, ids=False)
    assert can.way == "text" and can.counts_as_we_do


def test_another_tokenizer_is_noticed(server: FakeServer) -> None:
    others = tuple(reversed(prompt(TEXT).ids or ()))
    can = found(server, replace(ASKED, prompts=(TrialPrompt(TEXT, others),), longest=TrialPrompt(TEXT, others)))
    assert can.way == "text" and "its tokenizer is another one" in can.no_likelihoods
    can = found(server, replace(ASKED, prompts=(TrialPrompt(TEXT, (5, 6)),), longest=TrialPrompt(TEXT, (5, 6))))
    assert can.way == "text" and not can.counts_as_we_do and "another one" in can.notes[0]


def test_a_second_token_in_front_is_noticed(server: FakeServer) -> None:
    can = found(server, second_bos=1, ids=False)
    assert can.way == "text" and not can.counts_as_we_do and "adds a token of its own" in can.notes[0]
    with pytest.raises(UserError, match="chat template") as caught:
        found(server, replace(ASKED, templated=True), second_bos=1, ids=False)
    assert "--tokenizer" in str(caught.value.hint)
    assert found(server, replace(ASKED, templated=True), second_bos=1).way == "ids"  # ids are sent as they are


def test_a_prompt_that_is_cut_in_silence_is_refused(server: FakeServer) -> None:
    with pytest.raises(ServerFault, match=r"read 20 tokens where the prompt has \d+: it cuts prompts"):
        found(server, keeps=20)
    without = replace(ASKED, prompts=(TrialPrompt(TEXT),), longest=TrialPrompt(LONG), likelihoods=False)
    with pytest.raises(ServerFault, match="cuts prompts"):
        found(server, without, keeps=20)
    assert found(server, without).way == "text"


def test_a_limit_that_is_ignored_is_refused(server: FakeServer) -> None:
    with pytest.raises(ServerFault, match="ignores `max_tokens`: it wrote 13 tokens"):
        found(server, ignores_limit=True)


def test_a_prompt_that_is_too_long_is_refused(server: FakeServer) -> None:
    with pytest.raises(ServerFault, match="longer than the server allows"):
        found(server, context=30)


def test_stop_strings_are_counted(server: FakeServer) -> None:
    can = found(server, STOPS, stops=4)
    assert can.stops == 4 and "takes 4 of 6 stop strings" in can.notes[0]
    assert found(server, STOPS, stops=2).stops == 1
    can = found(server, STOPS, stops=0)
    assert can.stops == 0 and "takes no stop strings" in can.notes[0]
    assert "ignores stop strings" in found(server, STOPS, ignores_stops=True).notes[0]


def test_sampling_that_is_ignored_is_noticed(server: FakeServer) -> None:
    assert "whatever `temperature`" in found(server, SAMPLES, greedy=True).no_samples
    can = found(server, SAMPLES, ignores_seed=True)
    assert not can.no_samples and "ignores `seed`" in can.notes[0]


def test_a_server_that_answers_to_any_name_is_said(server: FakeServer) -> None:
    assert "answers to any name" in found(server, any_name=True).notes[0]


@pytest.mark.parametrize(
    "refusal",
    [
        (401, "key not allowed to access model"),
        (404, "DeploymentNotFound"),
        (503, "no backend"),
        (400, "not a valid id"),
    ],
)
def test_gateways_may_refuse_another_name_in_any_way(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, refusal: tuple[int, str]
) -> None:
    answer = server._answer

    def gateway(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return answer(path, body) if body["model"] == "base" else (refusal[0], {"error": {"message": refusal[1]}})

    monkeypatch.setattr(server, "_answer", gateway)
    can = found(server)
    assert can.likelihoods == "prompt_logprobs" and not can.notes


def test_a_tokenizer_that_reads_other_text_in_the_ids_is_noticed_without_usage(server: FakeServer) -> None:
    tokenizer = tiny_tokenizer()

    def decode(shift: int) -> Any:
        return lambda ids: [tokenizer.decode([id + shift for id in ids], skip_special_tokens=s) for s in (True, False)]

    can = found(server, replace(ASKED, decode=decode(0)), usage=False)
    assert can.way == "ids" and can.likelihoods
    can = found(server, replace(ASKED, decode=decode(1)), usage=False)
    assert can.way == "text" and "our tokenizer makes another text" in can.no_likelihoods
    assert found(server, replace(ASKED, decode=lambda _: ()), usage=False).way == "text"


def test_a_text_that_the_server_gives_up_is_no_answer(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = server._answer

    def gives_up(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, said = answer(path, body)
        said["choices"][0]["finish_reason"] = "abort"
        return status, said

    monkeypatch.setattr(server, "_answer", gives_up)
    with pytest.raises(ServerFault, match="did not finish a text"):
        found(server)
    monkeypatch.setattr(server, "_answer", lambda *_: (200, {"error": {"message": "provider is down", "code": 502}}))
    with pytest.raises(ServerFault, match="answers with an error: provider is down"):
        found(server)


def test_a_thought_that_the_server_gives_apart_gets_the_marks_of_the_request(server: FakeServer) -> None:
    client = Client(Served(server.url, "base"))
    choice = {"message": {"content": "42", "reasoning_content": "6 * 7"}, "finish_reason": "stop"}
    assert read(client, {"choices": [choice]}, chat=True).text == "<think>6 * 7</think>42"
    assert read(client, {"choices": [choice]}, chat=True, marks=("[", "]")).text == "[6 * 7]42"
    choice["message"] = {"content": None, "reasoning_content": "6 *"}
    assert read(client, {"choices": [choice]}, chat=True, marks=("[", "]")).text == "[6 *"


def test_messages_go_to_the_servers_own_template(server: FakeServer) -> None:
    messages = TrialPrompt('[{"role": "user", "content": "hello"}]')
    can = found(server, Asked((messages,), messages, chat=True, likelihoods=False))
    assert can.way == "chat"
    with pytest.raises(ServerFault, match="has no `/chat/completions`"):
        found(server, Asked((messages,), messages, chat=True, likelihoods=False), chat=False)
    with pytest.raises(ServerFault, match="has no `/completions`") as caught:
        found(server, completions=False)
    assert "--apply-chat-template" in str(caught.value.hint)


def test_a_fault_of_the_server_is_not_taken_for_a_finding(server: FakeServer) -> None:
    for quirks in ({"wrong": "html"}, {"wrong": "engine"}, {"key": "k"}, {"busy": [(429, "3600")]}):
        with pytest.raises(ServerFault):
            found(server, **quirks)
