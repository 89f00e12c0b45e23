"""Metrics of generated texts compared with the libraries they follow: TER, METEOR, diversity, consistency, entailment."""

import io
import math
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_config, tiny_tokenizer

from harness.api import Choose, Generate, Metric, Output, Sample, UserError
from harness.metrics import diversity, entailment_model, find
from harness.metrics.alignment import meteor_no_synonyms
from harness.metrics.entailment import entailment_by, passages
from harness.metrics.entailment_model import judge
from harness.metrics.facts import facts, supported
from harness.metrics.ngram import bleu_for, signature
from harness.metrics.signatures import signatures
from harness.metrics.wordnet import WordNet, find_wordnet

WORDS = ["the", "cat", "Sat,", "on", "3.5", "mats.", "It's", "“big”", "U.S.", "dog", "&", "runs;", "état", "我", "爱"]


def value(metric: Metric, texts: Sequence[str], targets: Sequence[Any], **meta: Any) -> float:
    """Computes a metric over all samples."""
    rows = [
        metric.measure(Output(texts=(text,)), Generate("", target, meta=meta))
        for text, target in zip(texts, targets, strict=True)
    ]
    if metric.whole is not None:
        return metric.whole(rows)
    if metric.value is not None:
        return metric.value(tuple(map(sum, zip(*rows, strict=True))))
    return math.fsum(rows) / len(rows)


def sentences(seed: int, count: int = 30) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(0, 12))) for _ in range(count)]


# sacrebleu


@pytest.mark.parametrize("seed", [0, 1])
def test_corpus_ter_and_bleu_by_character_equal_sacrebleu_to_the_last_digit(seed: int) -> None:
    import sacrebleu

    texts, targets = sentences(seed), sentences(seed + 10)
    assert value(find("ter"), texts, targets) == sacrebleu.corpus_ter(texts, [targets]).score > 0
    assert (
        value(find("bleu_char"), texts, targets) == sacrebleu.corpus_bleu(texts, [targets], tokenize="char").score > 0
    )
    for text, target in zip(texts, targets, strict=True):  # some texts are empty
        assert value(find("ter"), [text], [target]) == sacrebleu.corpus_ter([text], [[target]]).score
    second = sentences(seed + 20)
    both = list(zip(targets, second, strict=True))
    assert value(find("ter"), texts, both) == pytest.approx(
        sacrebleu.corpus_ter(texts, [targets, second]).score, abs=1e-9
    )


def test_the_target_language_chooses_the_tokens_of_bleu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [bleu_for(code).name for code in ("en", "de", "zh", "zh_Hans", "th")] == [
        *("bleu", "bleu", "bleu_zh", "bleu_zh", "bleu_char"),
    ]
    for installed, name in ((True, "bleu_ja"), (False, "bleu_char")):
        monkeypatch.setattr("harness.metrics.ngram.find_spec", lambda _, there=installed: there or None)
        assert bleu_for("ja").name == name


def test_a_tokenizer_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MeCab", None)
    with pytest.raises(UserError, match="`bleu_ja` needs a tokenizer") as error:
        value(find("bleu_ja"), ["猫"], ["猫"])
    assert "sacrebleu[ja]" in str(error.value.hint)


def test_signatures_are_sacrebleus_and_count_the_targets() -> None:
    import sacrebleu

    metrics = [find("bleu"), find("ter"), find("rouge1"), Metric("chrf", score=lambda output, sample: 0.0)]
    samples: list[Sample] = [Generate("", "a"), Generate("", ("a", "b"))]
    version = f"version:{sacrebleu.__version__}"
    assert signature("ter") == f"nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|{version}"
    assert signatures(metrics, samples[1:]) == {
        "bleu": f"nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|{version}",
        "ter": f"nrefs:2|case:lc|tok:tercom|norm:no|punct:yes|asian:no|{version}",
    }
    assert signatures(metrics, samples)["ter"].startswith("nrefs:var|")
    assert signatures(metrics, [Choose("", ["a", "b"], 0)]) == {}


# METEOR


def tiny_wordnet(folder: Path) -> Path:
    """Writes WordNet files with three synsets: {car, auto, motor_car}, {goose}, {quick(a), fast}."""
    folder.mkdir()
    (folder / "noun.exc").write_text("geese goose\n")
    synsets = {"noun": ["03 car 0 auto 0 motor_car 0", "01 goose 0"], "adj": ["02 quick(a) 0 fast 0"]}
    for part in ("noun", "verb", "adj", "adv"):
        data, index = "  1 a licence\n", "  1 a licence\n"
        for synset in synsets.get(part, []):
            offset = len(data)
            data += f"{offset:08d} 06 {part[0]} {synset} 000 | what it means\n"
            for word in synset.split(" ")[1::2]:
                index += f"{word.partition('(')[0]} {part[0]} 1 0 1 0 {offset:08d}\n"
        (folder / f"data.{part}").write_text(data)
        (folder / f"index.{part}").write_text(index)
        (folder / f"{part}.exc").touch()
    return folder


def test_wordnet_is_read_from_a_folder_or_nltks_zip_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_wordnet(tmp_path / "wordnet")
    data = tmp_path / "nltk_data" / "corpora"
    data.mkdir(parents=True)
    shutil.make_archive(str(data / "wordnet"), "zip", tmp_path, "wordnet")
    for place in (folder, data / "wordnet.zip"):
        wordnet = WordNet(place)
        assert wordnet.synonyms("Cars") == {
            "car",
            "auto",
        }  # the base form, in lower case; multi-word synonyms are left out
        assert wordnet.synonyms("geese") == {"goose"}
        assert wordnet.synonyms("quicker") == {"quick", "fast"}
        assert wordnet.synonyms("état") == wordnet.synonyms("") == frozenset()
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    monkeypatch.setenv("NLTK_DATA", "")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    if not any(Path("/usr", part, "nltk_data").is_dir() for part in ("share", "lib", "local/share", "local/lib")):
        assert find_wordnet() == folder
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk_data"))
    assert find_wordnet() == data / "wordnet.zip"


def test_meteor_uses_synonyms_with_wordnet_and_has_another_name_without(tmp_path: Path) -> None:
    code = (
        "from harness import Generate, Output, meteor\n"
        "print(meteor.name, meteor.measure(Output(texts=('my auto drives',)), Generate('', 'my car drives')))"
    )
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    found = []
    for extra in ({}, {"WNSEARCHDIR": str(tiny_wordnet(tmp_path / "wn"))}):
        done = subprocess.run(
            [sys.executable, "-c", code], env=bare | extra, capture_output=True, text=True, check=True
        )
        name, number = done.stdout.split()
        found.append((name, round(float(number), 4)))
    assert found[1] == ("meteor", 0.9815)
    if find_wordnet() is None:
        assert found[0] == ("meteor_no_synonyms", 0.3333)


def test_meteor_is_nltks_and_takes_a_chinese_character_for_a_word() -> None:
    from nltk.translate.meteor_score import single_meteor_score

    class Nothing:
        def synsets(self, word: str) -> list[Any]:
            return []

    text, target = "The cats weren't running.", "A cat was not running, was it?"
    tokens = [
        ["The", "cats", "were", "n't", "running", "."],
        ["A", "cat", "was", "not", "running", ",", "was", "it", "?"],
    ]
    expected = single_meteor_score(tokens[1], tokens[0], wordnet=Nothing())
    assert value(meteor_no_synonyms, [text], [target]) == expected > 0
    assert value(meteor_no_synonyms, ["我爱北京。"], ["我爱 北京。"]) == pytest.approx(1 - 0.5 / 5**3)
    assert value(meteor_no_synonyms, [""], ["a"]) == value(meteor_no_synonyms, ["a"], [""]) == 0.0
    assert value(meteor_no_synonyms, ["a dog"], [("b", "a dog")]) == value(meteor_no_synonyms, ["a dog"], ["a dog"])


# Diversity


def test_distinct_counts_different_words_among_all_words_of_all_texts() -> None:
    texts = ["a b a", "A c", "", "我我 们"]
    assert value(find("distinct_1"), texts, texts) == 5 / 8
    assert value(find("distinct_2"), texts, texts) == 5 / 5
    assert math.isnan(value(find("distinct_3"), ["a b", ""], ["", ""]))


def test_self_bleu_is_nltks_bleu_of_each_text_with_the_others_as_references() -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    texts = [text for text in sentences(3, 40) if text] + ["the cat", "the cat", "dog", "x"]
    tokens = list(map(diversity._words, texts))
    smooth = SmoothingFunction().method1
    scores = [
        sentence_bleu([*tokens[:i], *tokens[i + 1 :]], tokens[i], smoothing_function=smooth) for i in range(len(tokens))
    ]
    assert value(find("self_bleu"), [*texts, ""], [*texts, ""]) == pytest.approx(sum(scores) / len(scores), abs=1e-12)
    assert value(find("self_bleu"), ["a b c d e"] * 3, ["x"] * 3) == pytest.approx(1.0)
    assert math.isnan(value(find("self_bleu"), ["one text", ""], ["x", "x"]))


def test_self_bleu_of_thousands_of_texts_takes_the_same_thousand_in_any_order() -> None:
    texts = [f"text {number} of" + f" {number % 11}" * (number // 300) for number in range(1500)]
    backwards = texts[::-1]
    found = value(find("self_bleu"), texts, texts)
    assert found == pytest.approx(value(find("self_bleu"), backwards, backwards), abs=1e-12)
    assert found != value(find("self_bleu"), texts[:1000], texts[:1000])


# Consistency


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("On 5 March 2020 Dr. Ana Diaz paid $1,200.50.", "month 3|name ana diaz|number 1200.5|number 2020|number 5"),
        ("It ran from 2020-03-05 to May.", "month 3|month 5|number 2020|number 5"),
        (
            "二〇二〇年三月五日，张伟教授说有十二个人，星期三去上海市。",
            "month 3|name 上海|name 张伟|number 12|number 2020|number 5|weekday 3",
        ),
        ("2020年3月5日读《红楼梦》", "month 3|name 红楼梦|number 2020|number 5"),
        ("You may march on; three of us met on Tue.", "number 3|weekday 2"),
        ("However, Ben's friend from the Bank of Norway left.", "name bank of norway|name ben"),
        ("Police are here. The report is out.", ""),
        ("no facts at all", ""),
        ("", ""),
        ("№ ½ 😀 \ud83d", "number 1|number 2"),
    ],
)
def test_facts_are_names_numbers_and_dates(text: str, expected: str) -> None:
    assert "|".join(sorted(facts(text))) == expected


def test_a_fact_is_supported_however_the_source_writes_it() -> None:
    source = "The United Nations met on 2020-03-05. Mrs. Ana Diaz of NATO spoke to three envoys for 1200 seconds."
    assert supported("Diaz told the U.N. on 5 March 2020 that 3 envoys had 1,200 seconds.", source) == (7, 7)
    assert supported("Ben Diaz told the EU in April.", source) == (0, 3)
    assert supported("Rain fell.", source) == (0, 0)
    assert supported("三月五日", "会议在2020年3月5日举行") == (2, 2)


def test_a_name_at_the_start_of_a_sentence_is_known_by_its_other_uses() -> None:
    assert facts("Karan left.", beside="She met Karan.") == {"name karan"}
    assert facts("Karan left.") == frozenset()


def test_consistency_is_a_share_of_all_facts_of_all_texts_and_undefined_without_any() -> None:
    metric = find("consistency")
    source = "Ana paid 30 euros in Rome."
    assert value(metric, ["In Rome it cost 30 euros.", "It was 50."], ["", ""], source=source) == pytest.approx(2 / 3)
    assert math.isnan(value(metric, ["", "nothing"], ["", ""], source=source))
    with pytest.raises(UserError, match="needs `meta` with the summarized text"):
        value(metric, ["x"], ["y"])


# Entailment


def save_classifier(folder: Path, labels: Sequence[str]) -> Path:
    """Saves a random classifier of pairs of texts."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = tiny_config("llama", context=2048)
    config.id2label, config.label2id = dict(enumerate(labels)), {name: n for n, name in enumerate(labels)}
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_entailment_is_the_classifiers_and_a_sentence_counts_with_its_best_passage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = save_classifier(tmp_path / "nli", ["contradiction", "Entailment", "neutral"])
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def probability(premise: str, hypothesis: str) -> float:
        with torch.inference_mode():
            logits = model(**tokenizer(premise, hypothesis, return_tensors="pt")).logits
        return float(logits.softmax(-1)[0, 1])

    monkeypatch.setattr("harness.metrics.entailment.PASSAGE_CHARACTERS", 60)
    source = "It rained in Rome. A long day it was, and nobody came. 下雨了。没人来。 Then the sun shone on all of the many hills."
    premises, said = passages(source), ["Rome was wet.", "没人来。"]
    assert len(premises) == 2
    expected = sum(max(probability(premise, sentence) for premise in premises) for sentence in said) / 2
    metric = entailment_by(str(folder))
    assert value(metric, [" ".join(said)], [""], source=source) == pytest.approx(expected, abs=1e-5)
    assert math.isnan(value(metric, [""], [""], source=source))
    assert value(metric, ["Something."], [""], source="") == 0.0
    child = judge(str(folder))._helper._child
    assert child is not None
    child.kill()
    with pytest.raises(UserError, match="its process ended"):
        value(metric, ["Something."], [""], source=source)


def test_a_classifier_without_entailment_says_which_classes_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_classifier(tmp_path / "sentiment", ["good", "bad"])
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO('[["a", "b"]]\n'))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    entailment_model.main(str(folder))
    assert capsys.readouterr().out == '"none of its classes is entailment: good, bad"\n'
