"""translation, summarization, wikitext and perplexity: prompts, scored texts, and inputs that are refused.

The golden values equalled those of lm-evaluation-harness 0.4.13 on the same rows when they were written.
"""

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import Text, UserError, evaluate
from harness.jobs import Item
from harness.prompts.render import Prompting, render, render_examples
from harness.registry.find import find
from harness.registry.load import load_task
from harness.registry.task_spec import parse_task
from harness.tasks.wikitext import detokenised

pytestmark = pytest.mark.usefixtures("made_up_hub")


def load(name: str, **parameters: Any) -> Any:
    return load_task(find("task", name), parse_task(name, parameters).parameters)


def items(name: str, shots: int = 0, **parameters: Any) -> list[Item]:
    return render(name, load(name, **parameters), Prompting(shots))


def texts(name: str, **parameters: Any) -> list[str]:
    return [item.request.continuations[0] for item in items(name, **parameters)]


def digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


# translation


GOLDEN_PROMPTS = {
    ("translation", 0): "af11f8527a60bac1",
    ("translation", 3): "ea9ecc0df7760762",
    ("summarization", 0): "4d97b7428858cbaa",
}


@pytest.mark.parametrize(("name", "shots"), GOLDEN_PROMPTS)
def test_prompts_are_those_of_lm_eval(name: str, shots: int) -> None:
    parameters = {"data": "cnn_dailymail"} if name == "summarization" else {}
    found = items(name, shots, **parameters)
    assert digest([item.request.contexts[0] for item in found]) == GOLDEN_PROMPTS[name, shots]
    settings = {(item.request.stop, item.request.max_tokens) for item in found}
    assert settings == {((("\n\n",), 128) if name == "summarization" else (("\n",), 256))}


def test_a_translation_is_asked_for_by_the_names_of_the_languages() -> None:
    first = items("translation", 1)[0]
    assert first.request.contexts[0] == (
        "German phrase: Das Fenster war die ganze Nacht offen.\nEnglish phrase:  The window was open all night.\n\n"
        "German phrase: Der Zug nach Köln hält heute nicht in Bonn.\nEnglish phrase:"
    )
    back = items("translation", source="en", target="de")[3]
    assert back.request.contexts[0] == "English phrase: Yes.\nGerman phrase:"
    assert back.sample.target == "Ja."  # type: ignore[union-attr]


def test_flat_columns_and_files_are_translated_too(tmp_path: Path) -> None:
    multi30k = {
        "data": "hub:bentrevett/multi30k::test",
        "train": "hub:bentrevett/multi30k",
        "source": "en",
        "target": "de",
    }
    assert (
        items("translation", **multi30k)[0].request.contexts[0]
        == "English phrase: Two kids throw snowballs.\nGerman phrase:"
    )
    example = render_examples("translation", load("translation", **multi30k))[0]
    assert (example.prompt, example.completion) == (
        "English phrase: Good morning, everybody.\nGerman phrase:",
        "  Guten Morgen, alle zusammen.\n",
    )
    file = tmp_path / "pairs.csv"
    file.write_text("src,tgt\nI love Beijing,我爱北京\n", encoding="utf-8")
    task = load("translation", data=str(file), source="en", target="zh", source_column="src", target_column="tgt")
    assert [metric.name for metric in task.metrics] == ["bleu_zh", "chrf", "ter"]
    assert render("translation", task)[0].request.contexts[0] == "English phrase: I love Beijing\nChinese phrase:"


def test_a_language_that_rows_do_not_have_is_named() -> None:
    with pytest.raises(UserError, match=r"`fr` is None in a row: not of its languages de, en"):
        items("translation", source="fr")
    with pytest.raises(UserError, match=r"the column `fr`"):
        items("translation", data="hub:bentrevett/multi30k::test", source="fr", target="en")


# summarization


def test_the_three_corpora_and_a_file_are_summed_up_in_one_form(tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text(json.dumps({"body": "今天下雨。", "short": "下雨。"}, ensure_ascii=False), encoding="utf-8")
    own = {"data": str(file), "document": "body", "summary": "short"}
    for parameters, kind, count in (
        ({"data": "cnn_dailymail"}, "article", 3),
        ({"data": "xsum"}, "article", 3),
        ({"data": "dialogsum"}, "dialogue", 9),
        (own, "text", 1),
    ):
        found = items("summarization", **parameters)
        prompt = found[0].request.contexts[0]
        assert len(found) == count
        assert prompt == f"Summarize the following {kind}:\n\n{found[0].sample.meta['source']}\n\nSummary:"
    assert len({item.cluster for item in items("summarization")}) == 3  # three summaries of each dialogue
    assert items("summarization", data="xsum")[0].cluster is None


def test_an_nli_model_adds_a_metric() -> None:
    names = [metric.name for metric in load("summarization").metrics]
    assert names[:4] == ["rougeL", "rouge1", "rouge2", "rougeLsum"] and "entailment" not in names
    assert [metric.name for metric in load("summarization", nli="some/model").metrics] == [*names, "entailment"]


# wikitext


def test_pages_are_detokenised_as_lm_eval_does_it() -> None:
    found = items("wikitext")
    assert [item.sample.meta["original"][:9] for item in found] == [" = Lanter", " = Tern (", " = Empty "]
    assert digest([item.request.continuations[0] for item in found]) == "6f99bb08ea0870b2"
    assert detokenised("a @-@ b 4 @,@ 2 ( c ) [ d ] { e } \" f \" ' g ' = = = h N i \n j 7 ° C k's ; l") == (
        "a-b 4,2 (c) [d] {e} \"f\" 'g' === h 1 i\nj 7°C k's; l"
    )


def test_the_lines_are_one_text_joined_by_empty_lines_or_one_text_a_page() -> None:
    (whole,) = items("wikitext_tokens", stride=512)
    assert isinstance(whole.sample, Text)
    assert (whole.sample.window, whole.sample.stride) == (2048, 512)
    assert whole.sample.text.startswith("\n\n = Lantern Bay = \n\n\n")
    pages = texts("wikitext_tokens", by="page")
    assert [page[:12] for page in pages] == ["", " = Lantern B", " = Tern ( so"][-len(pages) :]
    assert len(pages) == 2


# perplexity


def test_a_text_is_a_line_a_cell_a_file_or_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    (tmp_path / "b" / "c.md").write_text("\ufeffdrei\nvier", encoding="utf-8")
    (tmp_path / "b" / "d.csv").write_text("x\n1\n", encoding="utf-8")
    file = str(tmp_path / "a.txt")
    assert texts("perplexity", data=file) == ["one", "two"]
    assert texts("perplexity", data=file, by="corpus") == ["one\n\ntwo"]
    assert texts("perplexity", data=file, by="file") == ["one\n\ntwo\n"]
    assert texts("perplexity", data=str(tmp_path), by="file") == ["one\n\ntwo\n", "drei\nvier"]
    assert len(texts("perplexity")) == 3
    assert [metric.name for metric in load("perplexity", stride=8).metrics] == ["token_ppl"]


def test_a_value_that_is_not_text_is_named(tmp_path: Path) -> None:
    rows, latin = tmp_path / "rows.jsonl", tmp_path / "latin.txt"
    rows.write_text('{"body": "a"}\n{"body": 3}\n')
    latin.write_bytes("für".encode("latin-1"))
    for parameters, message in (
        ({"data": str(rows)}, "the column `text` is missing in row 0"),
        ({"data": str(rows), "column": "body"}, "the column `body` is 3 in row 1"),
        ({"data": str(latin), "by": "file"}, "could not read `.*latin.txt` as UTF-8"),
        ({"data": str(tmp_path / "nothing"), "by": "file"}, "no text file in"),
    ):
        with pytest.raises(UserError, match=message):
            items("perplexity", **parameters)


# Scores of a model


def guide_perplexity(folder: Path, text: str, window: int, stride: int) -> float:
    """Computes perplexity as the guide of transformers does, but weights each window by its number of scored tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    total, count, before = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):
        end = min(begin + window, ids.shape[1])
        labels = ids[:, begin:end].clone()
        labels[:, : -(end - before)] = -100
        scored = int((labels[:, 1:] != -100).sum())
        with torch.inference_mode():
            total += float(model(ids[:, begin:end], labels=labels).loss) * scored if scored else 0.0
        count, before = count + scored, end
        if end == ids.shape[1]:
            break
    return math.exp(total / count)


def test_every_task_gives_numbers_and_token_ppl_is_that_of_the_guide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: None
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = save_tiny(tmp_path / "model")
    names = ["translation", "summarization", "wikitext_tokens"]
    parameters = {"window": 64, "stride": 20, "max_tokens": 4}
    variant = evaluate("base", tasks=names, limit=3, model=str(folder), device="cpu", task_parameters=parameters)
    scores = {(score.task, score.metric): score for score in variant.scores}
    (text,) = texts("wikitext_tokens")
    expected = guide_perplexity(folder, text, 64, 20)
    assert scores["wikitext_tokens", "token_ppl"].value == pytest.approx(expected, rel=1e-5)
    assert scores["summarization", "distinct_1"].value > 0
    assert scores["summarization", "rougeL"].protocol.signatures == {}
    signatures = scores["translation", "bleu"].protocol.signatures
    assert set(signatures) == {"bleu", "chrf", "ter"}
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


REAL = """
from harness.prompts.render import render
from harness.registry.find import find
from harness.registry.load import load_task

def items(name, **parameters):
    return render(name, load_task(find("task", name), parameters))

dialogues = items("summarization")
pages = items("wikitext_tokens", config="wikitext-2-v1", by="page")
(text,) = items("wikitext_tokens", config="wikitext-2-v1")
multi30k = items("translation", data="hub:bentrevett/multi30k::test", source="en", target="de")
print(len(items("wikitext")), len(multi30k), len(dialogues), len({item.cluster for item in dialogues}))
print(len(pages), len(text.sample.text))
"""


@pytest.mark.hub
def test_the_real_datasets_are_read(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False)
    assert done.stdout == "62 1000 1500 500\n62 1263732\n", done.stderr
