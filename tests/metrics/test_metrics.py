"""Metrics compared with the libraries and rules that they follow."""

import math
import pkgutil
import random
import subprocess
import sys

import pytest

from harness import metrics
from harness.api import Choose, Generate, Metric, Output, Text
from harness.errors import UserError
from harness.metrics import find, names
from harness.metrics.ngram import signature


def said(metric, text, target):
    return find(metric).measure(Output(texts=(text,)), Generate("prompt", target))


def chosen(metric, loglikelihoods, choices, answer):
    return find(metric).measure(Output(loglikelihoods=tuple(loglikelihoods)), Choose("prompt", choices, answer))


def corpus(metric, texts, targets):
    metric = find(metric)
    rows = [
        metric.measure(Output(texts=(text,)), Generate("", target)) for text, target in zip(texts, targets, strict=True)
    ]
    return metric.value(tuple(map(sum, zip(*rows, strict=True))))


# Choices


def test_acc_takes_the_likeliest_choice():
    assert chosen("acc", [-3, -1, -2], ["a", "b", "c"], answer=1) == 1.0
    assert chosen("acc", [-3, -1, -2], ["a", "b", "c"], answer=2) == 0.0


def test_acc_gives_ties_to_the_first_choice():
    assert chosen("acc", [-2, -1, -1], ["a", "b", "c"], answer=1) == 1.0
    assert chosen("acc", [-2, -1, -1], ["a", "b", "c"], answer=2) == 0.0


def test_acc_accepts_any_of_several_answers():
    assert chosen("acc", [-3, -1, -2], ["a", "b", "c"], answer=(0, 1)) == 1.0
    assert chosen("acc", [-3, -1, -2], ["a", "b", "c"], answer=(0, 2)) == 0.0


def test_acc_norm_divides_by_characters_and_not_by_bytes():
    assert chosen("acc_norm", [-5, -9], ["Rom", "Konstantinopel"], answer=1) == 1.0
    assert chosen("acc", [-5, -9], ["Rom", "Konstantinopel"], answer=1) == 0.0
    # the first choice has 12 bytes and would win by bytes
    assert chosen("acc_norm", [-4, -5], ["四个汉字", "abcdef"], answer=0) == 0.0


def test_acc_of_an_unknown_loglikelihood_is_unknown():
    assert math.isnan(chosen("acc", [-1, math.nan], ["a", "b"], answer=0))


def test_an_answer_that_is_not_a_choice_is_an_error():
    with pytest.raises(UserError, match="answer 2"):
        chosen("acc", [-1, -2], ["a", "b"], answer=2)


def test_an_empty_choice_is_never_the_best_by_length():
    assert chosen("acc_norm", [-9, -1], ["a", ""], answer=0) == 1.0
    assert chosen("acc_bytes", [-9, -1], ["a", ""], answer=0) == 1.0


# Texts


def test_exact_match_ignores_white_space_at_the_ends_only():
    assert said("exact_match", "  Paris\n", "Paris") == 1.0
    assert said("exact_match", "paris", "Paris") == 0.0
    assert said("exact_match", "New  York", "New York") == 0.0


def test_any_of_several_targets_will_do():
    assert said("exact_match", "Den Haag", ("The Hague", "Den Haag")) == 1.0


GOLD = "She sold 48/2 = <<48/2=24>>24 clips in May.\n#### 1,072"


@pytest.mark.parametrize(
    ("text", "is_strict", "is_flexible"),
    [
        ("so it is 1072.\n#### 1072", 1, 1),
        ("#### 1,072.", 1, 1),
        ("#### 1072\nQuestion: 1 + 1?\n#### 2", 1, 0),  # strict takes the first, flexible the last
        ("#### 5 or rather\n#### 1072", 0, 1),
        ("The answer is $1,072.", 0, 1),
        ("####1072", 0, 1),
        ("#### $1072", 0, 1),
        ("1072 it is ...", 0, 0),  # a run of dots is the last "number"
        ("#### -1072", 0, 0),
        ("one thousand", 0, 0),
        ("", 0, 0),
    ],
)
def test_gsm8k_answers_are_read_as_lm_eval_reads_them(text, is_strict, is_flexible):
    assert (said("strict", text, GOLD), said("flexible", text, GOLD)) == (is_strict, is_flexible)


def test_a_text_without_a_number_is_wrong_even_when_the_target_is_empty():
    assert said("strict", "none", "") == said("flexible", "none", "") == 0.0


def test_f1_counts_shared_words_as_squad_does():
    assert said("f1", "The cat, a black cat!", "black cats and the cat") == pytest.approx(2 * 2 / (3 + 4))
    assert said("f1", "the", "an") == 1.0  # both texts are empty once articles are removed
    assert said("f1", "", "cat") == 0.0
    assert said("f1", "dog", ("cat", "a dog")) == 1.0


def test_f1_takes_a_chinese_character_for_a_word():
    assert said("f1", "北京。", "在北京") == pytest.approx(2 * 2 / (2 + 3))


# Corpora


def sentences(seed, alphabet, count=40):
    generator = random.Random(seed)
    targets = [generator.choices(alphabet, k=generator.randint(1, 14)) for _ in range(count)]
    texts = [[w if generator.random() < 0.7 else generator.choice(alphabet) for w in words] for words in targets]
    texts[3], texts[4] = [], texts[4][:1]
    return texts, targets


WORDS = ["the", "cat", "sat,", "on", "3.5", "mats.", "It's", "“big”", "U.S.", "dog", "&", "runs;", "well-known", "état"]
CHINESE = [*"我爱北京天安门，。", "GPU", "3.5"]


@pytest.mark.parametrize("seed", [0, 1])
def test_corpus_bleu_equals_sacrebleu_to_the_last_digit(seed):
    import sacrebleu

    texts, targets = ([" ".join(words) for words in side] for side in sentences(seed, WORDS))
    assert corpus("bleu", texts, targets) == sacrebleu.corpus_bleu(texts, [targets]).score > 0
    assert corpus("bleu", texts[:6], targets[:6]) == sacrebleu.corpus_bleu(texts[:6], [targets[:6]]).score
    for text, target in zip(texts, targets, strict=True):  # short texts: smoothing, brevity penalty, no n-gram at all
        assert corpus("bleu", [text], [target]) == sacrebleu.corpus_bleu([text], [[target]]).score


@pytest.mark.parametrize("seed", [0, 1])
def test_corpus_bleu_of_chinese_equals_sacrebleu_with_zh_tokens(seed):
    import sacrebleu

    texts, targets = (["".join(words) for words in side] for side in sentences(seed, CHINESE))
    expected = sacrebleu.corpus_bleu(texts, [targets], tokenize="zh").score
    assert corpus("bleu_zh", texts, targets) == expected > 0
    assert corpus("bleu", texts, targets) != expected


@pytest.mark.parametrize("seed", [0, 1])
def test_corpus_chrf_equals_sacrebleu_to_the_last_digit(seed):
    import sacrebleu

    texts, targets = ([" ".join(words) for words in side] for side in sentences(seed, WORDS))
    assert corpus("chrf", texts, targets) == sacrebleu.corpus_chrf(texts, [targets]).score > 0
    for text, target in zip(texts, targets, strict=True):
        assert corpus("chrf", [text], [target]) == sacrebleu.corpus_chrf([text], [[target]]).score


def test_several_targets_are_counted_as_sacrebleu_counts_them():
    import sacrebleu

    texts, first = ([" ".join(words) for words in side] for side in sentences(2, WORDS))
    second = [" ".join(words) for words in sentences(3, WORDS)[1]]
    targets = list(zip(first, second, strict=True))
    assert corpus("bleu", texts, targets) == sacrebleu.corpus_bleu(texts, [first, second]).score
    assert corpus("chrf", texts, targets) == sacrebleu.corpus_chrf(texts, [first, second]).score


def test_signature_is_that_of_the_corpus_score():
    import sacrebleu
    from sacrebleu.metrics import BLEU

    scorer = BLEU(tokenize="zh")
    scorer.corpus_score(["我"], [["我"], ["你"]])
    assert signature("bleu_zh", references=2) == str(scorer.get_signature())
    assert signature("bleu") == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    with pytest.raises(UserError, match="no sacrebleu signature"):
        signature("rouge1")


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_of_english_is_that_of_rouge_score_with_stemming(name):
    from rouge_score.rouge_scorer import RougeScorer

    target = "Police are hunting two men.\nThe men robbed banks in St. John's, and are armed."
    text = "The police hunts men who were robbing a bank.\nThey are armed (in St. John's)."
    expected = RougeScorer([name], use_stemmer=True).score(target, text)[name].fmeasure
    assert said(name, text, target) == expected > 0


def test_rouge_takes_a_chinese_character_for_a_word():
    assert said("rouge1", "我爱北京", "我在北京") == pytest.approx(3 / 4)
    assert said("rouge2", "我爱北京", "我在北京") == pytest.approx(1 / 3)
    assert said("rougeL", "京北 GPUs", "北京 GPU") == pytest.approx(2 / 3)


def test_rouge_of_an_empty_text_is_zero():
    assert [said(name, "", "a target") for name in ("rouge1", "rouge2", "rougeL", "rougeLsum")] == [0, 0, 0, 0]


# Perplexity


def test_perplexities_divide_by_words_bytes_and_tokens_of_all_texts():
    texts = ["one two", "drei  vier\nfünf"]
    outputs = [Output(loglikelihoods=(-3.0,), tokens=3), Output(loglikelihoods=(-9.0,), tokens=5)]

    def value(name):
        metric = find(name)
        rows = [metric.measure(output, Text(text)) for output, text in zip(outputs, texts, strict=True)]
        assert not metric.higher_is_better
        return metric.value(tuple(map(sum, zip(*rows, strict=True))))

    assert value("word_ppl") == pytest.approx(math.exp(12 / 5))
    assert value("byte_ppl") == pytest.approx(math.exp(12 / (7 + 16)))
    assert value("bits_per_byte") == pytest.approx(math.log2(value("byte_ppl")))
    assert value("token_ppl") == pytest.approx(math.exp(12 / 8))


def test_words_and_bytes_are_those_of_the_original_text():
    output, sample = Output(loglikelihoods=(-4.0,), tokens=4), Text("don't", meta={"original": " do n't "})
    # white space at an end counts as a word, as in lm-eval
    assert find("word_ppl").measure(output, sample) == (-4.0, 4.0)
    assert find("byte_ppl").measure(output, sample) == (-4.0, 8.0)
    assert find("token_ppl").measure(output, sample) == (-4.0, 4.0)


# Names and imports


@pytest.mark.parametrize("name", names())
def test_a_metric_has_its_name_and_refuses_samples_of_another_kind(name):
    metric = find(name)
    assert isinstance(metric, Metric)
    assert metric.name == name or (name, metric.name) == ("meteor", "meteor_no_synonyms")  # without WordNet
    assert getattr(metrics, name) is metric
    chooses = metrics._HOMES[name] in ("harness.metrics.choice", "harness.metrics.labels")
    wrong = Text("text") if chooses else Choose("prompt", ["a"], 0)
    with pytest.raises(UserError, match=f"`{metric.name}`"):
        metric.measure(Output(texts=("a",), loglikelihoods=(-1.0,), tokens=1), wrong)


def test_no_metric_is_hidden_by_a_module():
    """A module `harness.metrics.meteor` would replace the metric of that name once it is imported."""
    assert {module.name for module in pkgutil.iter_modules(metrics.__path__)} & set(names()) == set()


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(UserError, match="unknown metric `rogue1`") as error:
        find("rogue1")
    assert "`rouge1`" in error.value.hint


def test_one_metric_does_not_load_the_libraries_of_the_others():
    program = (
        "import sys; from harness import acc, bleu, rouge1, word_ppl;"
        "print([name for name in ('torch', 'sacrebleu', 'rouge_score', 'nltk', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_statistics_do_not_load_torch():
    program = "import sys, harness.stats.paired; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
