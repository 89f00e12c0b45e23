r"""summarization: summaries of articles and dialogues in a few sentences.

Dataset: https://huggingface.co/datasets/abisee/cnn_dailymail (config `3.0.0`; test 11,490 rows, train 287,113),
Apache-2.0 licence; https://huggingface.co/datasets/EdinburghNLP/xsum (test 11,334 rows, train 204,045), licence
unknown; https://huggingface.co/datasets/knkarthick/dialogsum (test 1,500 rows, train 12,460), CC BY-NC-SA 4.0 licence;
or any other.
Paper: See et al., "Get To The Point: Summarization with Pointer-Generator Networks", ACL 2017; Narayan et al., "Don't
Give Me the Details, Just the Summary!", EMNLP 2018; Chen et al., "DialogSum: A Real-Life Scenario Dialogue
Summarization Dataset", ACL 2021.
Protocol: for CNN/DailyMail, lm-evaluation-harness's `cnn_dailymail_abisee`: its prompt, greedy, at most 128 tokens, up
to an empty line; the other datasets in the same form. ROUGE is computed by rouge_score with stemming, METEOR by nltk
(`meteor_no_synonyms` without WordNet), both per character for Chinese. `consistency` is the share of names, numbers and
dates that the source also contains; diversity is over the whole set. `data` is `cnn_dailymail`, `xsum`, `dialogsum`, a
file, or `hub:OWNER/NAME:CONFIG:SPLIT`; `document` and `summary` are the columns of such a file or dataset. `nli` names
an entailment classifier (on the Hub or in a folder) and adds the metric `entailment`.

Example:
    Summarize the following dialogue:

    Ann: Are you coming at six?
    Ben: Seven, I have to work. I'll bring soup.

    Summary: Ben comes at seven because of work and brings soup.
"""

from typing import NamedTuple

from harness import (
    Generate,
    Row,
    Task,
    consistency,
    distinct_1,
    distinct_2,
    distinct_3,
    entailment_by,
    hub,
    meteor,
    rouge1,
    rouge2,
    rougeL,
    rougeLsum,
    self_bleu,
    task,
)


class Corpus(NamedTuple):
    """A benchmark: the place of its rows, and their columns."""

    repo: str
    config: str | None
    kind: str
    document: str
    summary: str


CORPORA = {
    "cnn_dailymail": Corpus("abisee/cnn_dailymail", "3.0.0", "article", "article", "highlights"),
    "xsum": Corpus("EdinburghNLP/xsum", None, "article", "document", "summary"),
    "dialogsum": Corpus("knkarthick/dialogsum", None, "dialogue", "dialogue", "summary"),
}


@task
def summarization(
    *,
    data: str = "dialogsum",
    train: str | None = None,
    document: str = "document",
    summary: str = "summary",
    kind: str = "text",
    nli: str | None = None,
    max_tokens: int = 128,
) -> Task:
    """Summaries of articles and dialogues in a few sentences: ROUGE, METEOR, consistency, diversity."""
    corpus = CORPORA.get(data)
    if corpus is not None:
        document, summary, kind = corpus.document, corpus.summary, corpus.kind

    def sample(row: Row) -> Generate:
        return Generate(
            f"Summarize the following {kind}:\n\n{row[document]}\n\nSummary:",
            row[summary],
            stop=("\n\n",),
            max_tokens=max_tokens,
            meta={"source": row[document]},
        )

    metrics = [rougeL, rouge1, rouge2, rougeLsum, meteor, consistency, distinct_1, distinct_2, distinct_3, self_bleu]
    solved = hub(corpus.repo, corpus.config, split="train") if corpus else train
    return Task(
        hub(corpus.repo, corpus.config, split="test") if corpus else data,
        sample,
        [*metrics, entailment_by(nli)] if nli else metrics,
        train=solved,
        shots_from=solved,
        cluster=document if data == "dialogsum" else None,  # three summaries of each dialogue
    )
