"""IFEval: each of the 25 kinds of instruction, the four metrics, and rows that cannot be checked.

`goldens/ifeval.json` holds verdicts (strict, loose) of lm-evaluation-harness 0.4.13. It received our sentence splitter, because the
model of nltk needs a network, and seed 0 for langdetect.
"""

import builtins
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Generate, Output, UserError, inst_loose, inst_strict, prompt_loose, prompt_strict
from harness.metrics import language
from harness.metrics import sentences as sentences_module
from harness.metrics.ifeval import CHECKS, followed, followed_loosely
from harness.metrics.language import language_of
from harness.metrics.sentences import sentences, words
from harness.prompts.render import render
from harness.registry.find import find
from harness.registry.load import load_task

CASES = json.loads((Path(__file__).parents[1] / "goldens" / "ifeval.json").read_text(encoding="utf-8"))
METRICS = (prompt_strict, inst_strict, prompt_loose, inst_loose)


@pytest.fixture(autouse=True)
def _without_trained_sentences(monkeypatch):
    """Splits sentences the same way on every machine, with or without the data of nltk."""
    monkeypatch.setattr(nltk.data, "path", [])
    sentences_module._splitter.cache_clear()
    yield
    sentences_module._splitter.cache_clear()


@pytest.mark.parametrize("instruction", CHECKS)
def test_verdicts_are_those_of_lm_evaluation_harness(instruction):
    cases = [case for case in CASES if case[0] == instruction]
    assert {strict for *_, strict, _ in cases} == {0, 1}
    for _, parameters, text, strict, loose in cases:
        assert [followed(text, instruction, parameters), followed_loosely(text, instruction, parameters)] == [
            strict,
            loose,
        ], f"{text!r} with {parameters}"


def test_there_are_25_kinds_of_instruction():
    assert len(CHECKS) == 25


def test_the_made_up_rows_hold_every_kind_with_all_it_needs(made_up_hub):
    items = render("ifeval", load_task(find("task", "ifeval"), {}))
    assert {each for item in items for each in item.sample.meta["instruction_id_list"]} == set(CHECKS)
    for item in items:
        for metric in METRICS:
            metric.measure(Output(texts=("Some answer.",)), item.sample)


def sample(*instructions):
    names, parameters = zip(*instructions, strict=True)
    return Generate("prompt", "", meta={"instruction_id_list": list(names), "kwargs": list(parameters)})


def test_a_prompt_counts_when_all_of_its_instructions_are_followed_and_an_instruction_by_itself():
    asked = sample(("punctuation:no_comma", {}), ("detectable_format:title", {}))
    output = Output(texts=("Here, a title:\n<<Rain>>",))
    assert [metric.measure(output, asked) for metric in METRICS] == [0.0, (1.0, 2.0), 1.0, (2.0, 2.0)]
    assert inst_strict.value((1.0 + 2.0, 2.0 + 2.0)) == 0.75


def test_an_empty_response_follows_nothing():
    for instruction in ("punctuation:no_comma", "change_case:english_lowercase"):
        assert not followed(" \n", instruction, {}) and not followed_loosely("", instruction, {})


def test_parameters_that_the_hub_fills_with_none_are_as_good_as_missing():
    filled = {"num_words": 3, "relation": "less than", "language": None, "keywords": None}
    assert followed("two words", "length_constraints:number_words", filled)
    with pytest.raises(UserError, match=r"`length_constraints:number_words` needs `num_words`"):
        followed("two words", "length_constraints:number_words", {"num_words": None, "relation": "less than"})


def test_parameters_that_lm_evaluation_harness_draws_at_random_are_used_as_given():
    assert followed(
        "a # b # c", "keywords:letter_frequency", dict(letter="#", let_frequency=2, let_relation="at least")
    )
    assert not followed("no number sign", "keywords:letter_frequency", dict(letter="#", let_frequency=1, let_relation="at least"))  # fmt: skip
    nothing = {"capital_frequency": 0, "capital_relation": "at least"}
    assert followed("none here", "change_case:capital_word_frequency", nothing)


def test_a_keyword_that_is_not_a_regular_expression_is_literal():
    assert followed("I like C++ :-(", "keywords:existence", {"keywords": ["C++", ":-("]})


def test_what_cannot_be_checked_is_named():
    with pytest.raises(UserError, match="unknown IFEval instruction `keywords:existance`") as error:
        followed("text", "keywords:existance", {})
    assert "`keywords:existence`" in error.value.hint
    with pytest.raises(UserError, match="unknown relation `at most`"):
        followed("text", "length_constraints:number_words", {"num_words": 3, "relation": "at most"})


@pytest.mark.parametrize("meta", [{}, {"instruction_id_list": ["punctuation:no_comma"]}])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_sample_without_instructions_is_refused(metric, meta):
    with pytest.raises(UserError, match=f"metric `{metric.name}` needs `meta` with `instruction_id_list`"):
        metric.measure(Output(texts=("text",)), Generate("prompt", "", meta=meta))


def test_deeply_nested_json_is_an_answer_not_a_crash():
    assert not followed("[" * 100_000, "detectable_format:json_format", {})


@pytest.mark.parametrize("text", ["x" + "\n" * 20_000 + "y", "*" * 20_000, "- " * 10_000])
def test_a_long_degenerate_response_is_judged_at_once(text):
    followed_loosely(text, "detectable_format:number_bullet_lists", {"num_bullets": 1})
    followed_loosely(text, "detectable_format:number_highlighted_sections", {"num_highlights": 1})


@settings(max_examples=100, deadline=None)
@given(
    st.text(alphabet="aA \n*-\"',.<>[]{}1é中", max_size=60),
    st.sampled_from([case[:2] for case in CASES if not case[0].startswith(("language", "change"))]),
)
def test_what_is_followed_strictly_is_followed_loosely(text, case):
    assert followed_loosely(text, *case) >= followed(text, *case)


# Sentences


def test_abbreviations_numbers_and_initials_do_not_end_a_sentence():
    assert sentences("Dr. J. Ho paid $3.50 to Acme Inc. on Jan. 3. It was too much!  Was it?") == [
        "Dr. J. Ho paid $3.50 to Acme Inc. on Jan. 3.",
        "It was too much!",
        "Was it?",
    ]
    assert sentences("") == []


def test_a_sentence_may_begin_after_an_abbreviation():
    assert len(sentences("They sell pens, ink etc. The shop is small.")) == 2


def test_words_are_nltk_s_tokens():
    assert words("I can't. STATE-OF-THE-ART!") == ["I", "ca", "n't", ".", "STATE-OF-THE-ART", "!"]


def test_nltk_s_own_parameters_are_taken_where_they_are(tmp_path, monkeypatch):
    folder = tmp_path / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name, text in {"abbrev_types.txt": "messrs", "collocations.tab": "", "sent_starters.txt": "", "ortho_context.tab": ""}.items():  # fmt: skip
        (folder / name).write_text(text)
    assert len(sentences("Ask Messrs. Ho.")) == 2
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    sentences_module._splitter.cache_clear()
    assert len(sentences("Ask Messrs. Ho.")) == 1


# Languages


def test_the_detected_language_is_the_same_every_time():
    mixed = "Hola amigo, how are you heute Abend mon ami?"
    language_of.cache_clear()
    first = language_of(mixed)
    for _ in range(5):
        language_of.cache_clear()
        assert language_of(mixed) == first


def test_languages_are_detected_from_several_threads():
    texts = ["Der Regen fällt auf das Dach.", "The rain falls on the roof.", "La pluie tombe sur le toit."] * 10
    language_of.cache_clear()
    language._factory.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(language_of, texts)) == ["de", "en", "fr"] * 10


def test_a_text_without_letters_has_no_language_and_passes():
    assert language_of("12 + 34 = 46") is None
    assert followed("12 + 34 = 46", "language:response_language", {"language": "de"})


def test_without_langdetect_the_error_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.startswith("langdetect"):
            raise ImportError(name)
        return real_import(name, *arguments, **options)

    language._factory.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match="needs langdetect") as error:
        language_of("never seen before")
    assert error.value.hint == "`pip install langdetect`"
