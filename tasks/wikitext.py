r"""wikitext: perplexity on WikiText-2, articles from Wikipedia.

Dataset: https://huggingface.co/datasets/EleutherAI/wikitext_document_level (config `wikitext-2-raw-v1`; test 62 rows,
train 629); https://huggingface.co/datasets/Salesforce/wikitext for `wikitext_tokens` (the same text in lines; test
4,358 rows), CC BY-SA 3.0 licence.
Paper: Merity et al., "Pointer Sentinel Mixture Models", ICLR 2017 (arXiv 1609.07843).
Protocol: `wikitext` is lm-evaluation-harness's task of that name: each page is detokenised and scored in windows of the
model's context, every token once; words and bytes are counted in the original page. `wikitext_tokens` is the number in
papers, perplexity per token over all lines joined by empty lines. With `window=2048` and `stride=2048` it is that of
papers on quantization (GPTQ), which score each window separately and without its first token (they drop the last, short
window, which counts here); with `stride=512`, that of the transformers guide. It is a single text, so the number has no
interval. With `by=page` every page is a text, which gives an interval and a slightly higher number.

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
    """Perplexity per word and byte, as in lm-evaluation-harness."""
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
    """Perplexity per token over the joined text, as in papers."""

    def sample(row: Row) -> Text:
        return Text(row["text"], window=window, stride=stride)

    lines = [row["text"] for row in rows(hub(LINES, config, split=split))]
    texts = ["\n\n".join(part) for part in (_pages(lines) if by == "page" else [lines])]
    return Task([{"text": text} for text in texts], sample, [token_ppl])


def _pages(lines: list[str]) -> list[list[str]]:
    """Returns the lines of each page; a page begins with a heading of the first level."""
    pages: list[list[str]] = []
    for line in lines:
        if not pages or re.fullmatch(r" = [^=].* = \n?", line):
            pages.append([])
        pages[-1].append(line)
    return [page for page in pages if "".join(page).strip()]


def detokenised(page: str) -> str:
    """Undoes the tokenisation of a page, byte for byte as lm-evaluation-harness does, with its mistakes."""
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
