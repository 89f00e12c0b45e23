"""The tasks of this table: parts of real benchmarks that two CPU cores can score for six variants in a quarter of an hour.

Variants are trained for `captions`. `dialogues`, `articles` and the built-in `mmlu` show what they keep and lose.
"""

from dataclasses import replace

from harness import Generate, Row, Task, hub, rougeL, rows, task
from harness.tasks.translation import translation
from harness.tasks.wikitext import PAGES, wikitext

CAPTIONS = "hub:bentrevett/multi30k"
DIALOGUES = "knkarthick/dialogsum"


@task
def captions() -> Task:
    """Multi30k: captions of photographs, from German into English."""
    return translation(data=f"{CAPTIONS}::test", train=f"{CAPTIONS}::train", max_tokens=64)


@task
def dialogues() -> Task:
    """DialogSum: summaries of 60 dialogues, scored against the first of three references.

    The prompt is that of `summarization`. Its stop string, an empty line, is not: the model begins its answers with one.
    """
    given = rows(hub(DIALOGUES, split="test"))

    def sample(row: Row) -> Generate:
        asked = f"Summarize the following dialogue:\n\n{row['dialogue']}\n\nSummary:"
        return Generate(asked, row["summary"], stop=("\n\nSummarize",), max_tokens=64)

    return Task(
        [given[number] for number in range(0, 180, 3)],
        sample,
        [rougeL],
        shots_from=hub(DIALOGUES, split="validation"),
    )


@task
def articles() -> Task:
    """WikiText-2: the first 3,000 characters of 24 pages of Wikipedia."""
    pages = [{"page": row["page"][:3000]} for row in rows(PAGES)]
    return replace(wikitext(), data=pages[:24], train=None)
