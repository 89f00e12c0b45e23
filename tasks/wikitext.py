r"""wikitext: perplexity on WikiText-2, articles of Wikipedia.

Dataset: https://huggingface.co/datasets/EleutherAI/wikitext_document_level (config `wikitext-2-raw-v1`; test 62 rows, train 629);
https://huggingface.co/datasets/Salesforce/wikitext for `wikitext_tokens` (the same text by line; test 4,358 rows), CC BY-SA 3.0 licence.
Paper: Merity et al., "Pointer Sentinel Mixture Models", ICLR 2017 (arXiv 1609.07843).
Protocol: `wikitext` is lm-evaluation-harness's task of that name: each page is detokenised and scored in windows of the model's
context, every token once; words and bytes are counted in the page as it was.
`wikitext_tokens` is what papers report, perplexity by token over all lines joined by empty lines: with `window=2048` and
`stride=2048` that of papers on quantization (GPTQ), which score each window by itself and without its first token (and drop
the last, short one, which counts here); with `stride=512`, that of the guide of transformers. It is one text: its number has no
interval. With `by=page` every page is a text of its own, which gives an interval and a slightly higher number.

Example:
     = Robert Boulter =
     Robert Boulter is an English film , television and theatre actor .
    becomes
     = Robert Boulter =
    Robert Boulter is an English film, television and theatre actor.
"""

import re
from typing import Literal

from harness import Row, Task, Text, bits_per_byte, byte_ppl, hub, rows, task, token_ppl, word_ppl

PAGES = hub("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", split="test")
LINES = "Salesforce/wikitext"


@task
def wikitext() -> Task:
    """Perplexity by word and byte, as lm-evaluation-harness has it."""
    return Task(
        PAGES,
        lambda row: Text(detokenised(row["page"]), meta={"original": row["page"]}),
        [word_ppl, byte_ppl, bits_per_byte],
        train=hub("EleutherAI/wikitext_document_level", "wikitext-2-raw-v1", split="train"),
    )


@task
def wikitext_tokens(
    *,
    config: str = "wikitext-2-raw-v1",
    split: str = "test",
    window: int = 2048,
    stride: int = 2048,
    by: Literal["corpus", "page"] = "corpus",
) -> Task:
    """Perplexity by token over the joined text, as papers report it."""

    def sample(row: Row) -> Text:
        return Text(row["text"], window=window, stride=stride)

    lines = [row["text"] for row in rows(hub(LINES, config, split=split))]
    texts = ["\n\n".join(part) for part in (_pages(lines) if by == "page" else [lines])]
    return Task([{"text": text} for text in texts], sample, [token_ppl])


def _pages(lines: list[str]) -> list[list[str]]:
    """The lines of each page: it begins with a heading of the first level."""
    pages: list[list[str]] = []
    for line in lines:
        if not pages or re.fullmatch(r" = [^=].* = \n?", line):
            pages.append([])
        pages[-1].append(line)
    return [page for page in pages if "".join(page).strip()]


def detokenised(page: str) -> str:
    """A page as people write it, to the byte as lm-evaluation-harness has it, with the slips that it keeps."""
    page = page.replace("s '", "s'")
    page = re.sub("/' [0-9]/", "/'[0-9]/", page)
    for sign in "-,.":
        page = page.replace(f" @{sign}@ ", sign)
    for sign in ":;.!?,":
        page = page.replace(f" {sign} ", f"{sign} ")
    for opened, closed in ("()", "[]", "{}", '""', "''"):
        inside = rf"\s*([^{re.escape(closed)}]*?)\s*"
        page = re.sub(re.escape(opened) + inside + re.escape(closed), rf"{opened}\1{closed}", page)
    for signs in "= = = =", "= = =", "= =":
        page = page.replace(signs, signs.replace(" ", ""))
    page = page.replace(" ° ", "°").replace(" \n", "\n").replace("\n ", "\n")
    return page.replace(" N ", " 1 ").replace(" 's", "'s")
