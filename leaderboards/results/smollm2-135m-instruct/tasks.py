"""The tasks of this table: parts of real benchmarks that two CPU cores can score for six variants in half an hour.

Variants are trained for `captions`. `dialogues`, `articles` and the built-in `mmlu` show what they keep and lose.
"""

from dataclasses import replace

from harness import Task, hub, rougeL, rows, task
from harness.tasks.summarization import summarization
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
    """DialogSum: summaries of 60 dialogues, with the first of three references."""
    given = rows(hub(DIALOGUES, split="test"))
    few = [given[number] for number in range(0, 180, 3)]
    solved = hub(DIALOGUES, split="validation")
    whole = summarization(max_tokens=64)
    return replace(whole, data=few, shots_from=solved, train=None, cluster=None, metrics=[rougeL])


@task
def articles() -> Task:
    """WikiText-2: the first 3,000 characters of 40 pages of Wikipedia."""
    few = [{"page": row["page"][:3000]} for row in rows(PAGES)][:40]
    return replace(wikitext(), data=few, train=None)
