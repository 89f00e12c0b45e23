"""Metrics of texts in every script: equal texts score best, and all words count, not the Latin ones alone."""

import random
import unicodedata

import pytest

from harness.api import Generate, Metric, Output, Sample
from harness.metrics import find
from harness.metrics.ngram import bleu_for
from harness.metrics.signatures import signatures
from harness.metrics.unicode_words import unicode_words

TEXTS = {
    "Russian": ("Вчера компания купила фирму в Киеве.", "Кот съел рыбу на кухне."),
    "Arabic": ("هل تسافر إلى القاهرة غدا؟", "الكتاب على الطاولة."),
    "Hebrew": ("הוא גר בתל אביב.", "ספר על שולחן"),
    "Hindi": ("मैं कल दिल्ली गया था।", "किताब मेज पर है।"),
    "Thai": ("ฉันไปโรงเรียนเมื่อวาน", "แมวกินปลา"),
    "Burmese": ("ကျွန်တော်သွားသည်", "ခွေး"),
    "Khmer": ("ខ្ញុំទៅសាលារៀន", "ឆ្មា"),
    "Greek": ("Η Αθήνα είναι μεγάλη πόλη.", "ο σκύλος τρέχει"),
    "Georgian": ("თბილისი დიდი ქალაქია", "ძაღლი გარბის"),
    "Armenian": ("Երևանը մեծ քաղաք է։", "շունը վազում"),
    "Korean": ("서울은 큰 도시이다.", "개가 뛴다"),
    "Japanese": ("東京は大きい都市です。", "カエル"),
    "German": ("Größe über Äpfel", "Öl für Übung"),
    "Vietnamese": ("Hà Nội là thành phố lớn", "chó chạy nhanh"),
    "emoji": ("🎉🇩🇪👍🏽❤️", "😢🇫🇷👎"),
}
WORDS = ["rouge1", "rouge2", "rougeL", "rougeLsum", "f1"]


def said(name: str, text: str, target: str) -> float:
    return float(find(name).measure(Output(texts=(text,)), Generate("", target)))


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("name", WORDS)
def test_equal_texts_score_best_and_different_ones_do_not(name: str, language: str) -> None:
    text, other = TEXTS[language]
    assert said(name, text, text) > 0.99
    assert said(name, other, text) < 0.4


def test_one_latin_word_does_not_decide() -> None:
    assert said("rouge1", "Google съела кота.", "Вчера Google купила фирму в Киеве.") == pytest.approx(2 / 9)
    assert said("rouge1", "gr e ber pfel", "Größe über Äpfel") == 0
    assert said("rouge1", "🎉 yes", "😢 yes") == 0.5


def test_words_end_at_unicodes_boundaries_and_latin_ones_as_in_rouge_score() -> None:
    assert unicode_words("п'ять яблук, don't; COVID-19!") == ["пять", "яблук", "don", "t", "covid", "19"]
    assert unicode_words("Μάιος ΤΟΥ 2020: ΣΑΣ") == ["μάιος", "του", "2020", "σας"]
    assert unicode_words("می‌خواهم «سلام»") == ["میخواهم", "سلام"]
    assert unicode_words("हिन्दी।") == ["हिन्दी"]
    assert unicode_words("1️⃣ m² 20 °C ☑ © ½") == ["1", "m", "20", "c", "☑"]


@pytest.mark.parametrize("name", ["rouge1", "rougeL"])
def test_texts_whose_words_are_ascii_equal_rouge_score_whatever_their_punctuation(name: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], use_stemmer=True)
    generator = random.Random(3)
    pieces = ["runs", "running", "It’s", "“stopped”", "e-mail", "x_y", "3,000.5", "U.S.", "—", "…", "€5", "20°"]
    for _ in range(200):
        text, target = (" ".join(generator.choices(pieces, k=12)) for _ in range(2))
        assert said(name, text, target) == scorer.score(target, text)[name].fmeasure


def test_latin_words_with_diacritics_are_stemmed_and_others_are_not() -> None:
    assert said("rouge1", "the résumés", "the résumé") == 1
    assert said("rouge1", "ис клиентs", "ис клиент") == 0.5


def test_composed_and_decomposed_letters_are_the_same_words() -> None:
    for language in ("German", "Hindi", "Korean", "Vietnamese", "Russian"):
        text = TEXTS[language][0]
        assert said("rougeL", unicodedata.normalize("NFD", text), text) == 1


def test_f1_and_em_ignore_the_punctuation_of_other_scripts_as_mlqa_does() -> None:
    for text, target in [
        ("«Москва».", "Москва"),
        ("दिल्ली।", "दिल्ली"),
        ("القاهرة،", "القاهرة"),
        ("צה״ל", "צהל"),
        ("北京。", "北京"),
    ]:
        assert said("em", text, target) == said("f1", text, target) == 1
    assert said("em", "“Paris”", "Paris") == 0  # as the official script of SQuAD, which knows ASCII punctuation only
    assert 0.5 < said("f1", "กรุงเทพ", "กรุงเทพมหานคร") < 1


def test_meteor_of_equal_texts_is_high_in_every_script() -> None:
    for text, other in (texts for language, texts in TEXTS.items() if language != "emoji"):
        assert said("meteor_no_synonyms", text, text) > 0.98 > 0.4 > said("meteor_no_synonyms", other, text)


def test_meteor_separates_the_punctuation_of_other_scripts() -> None:
    assert said("meteor_no_synonyms", "मैं घर गया", "मैं घर गया।") > 0.7
    assert said("meteor_no_synonyms", "แมวกินปลา", "แมวกินหมู") > 0.5


def test_diversity_does_not_split_words_at_vowel_signs() -> None:
    distinct = find("distinct_1").whole
    assert distinct is not None
    assert distinct([["हिन्दी भाषा हिन्दी भाषा"]]) == 0.5
    assert distinct([["แมว"]]) == 1


def test_the_code_of_a_language_may_have_three_letters() -> None:
    assert [bleu_for(code).name for code in ("zho_Hans", "tha_Thai", "deu_Latn", "bod")] == [
        *("bleu_zh", "bleu_char", "bleu", "bleu_char"),
    ]


def test_the_protocol_says_how_other_scripts_are_tokenised() -> None:
    metrics: list[Metric] = [
        find("rougeL"),
        find("f1"),
        find("meteor_no_synonyms"),
        Metric("em", score=lambda output, sample: 0.0),
    ]
    english: list[Sample] = [Generate("", "It’s a “cat” – 20°")]
    assert signatures(metrics, english) == {}
    assert signatures(metrics, [*english, Generate("", ("a", "Äpfel"))]) == {
        "rougeL": "tok:uax29|stem:porter, latin words"
    }
    assert signatures(metrics, [Generate("", "кот")]).keys() == {"rougeL", "f1", "meteor_no_synonyms"}


def test_the_letter_of_a_choice_may_be_in_full_width_marks() -> None:
    sample = Generate("", "(B)", meta={"choices": ["罗马", "巴黎"]})
    for text in ("答案：B", "答案是（B）。"):
        assert find("choice_letter").measure(Output(texts=(text,)), sample) == 1
