r"""perplexity: perplexity of a model on any text, per byte, word and token.

Dataset: any text (`data`): a file, a folder of files, or `hub:OWNER/NAME:CONFIG:SPLIT`; by default the pages of
https://huggingface.co/datasets/EleutherAI/wikitext_document_level (config `wikitext-2-raw-v1`; test 62 rows), CC BY-SA
3.0 licence.
Paper: Jelinek et al., "Perplexity: a measure of the difficulty of speech recognition tasks", JASA 1977.
Protocol: our own. `by` defines one text: `row` (a line of a .txt file, or a cell of `column` in other files), `file`
(each .txt or .md file of a folder) or `corpus` (all rows joined by `separator`; a single text, so there is no
interval). Every token is scored once, the first after a prefix token, in windows of the model's context
(lm-evaluation-harness's rolling windows). With `stride`, windows of `window` tokens start `stride` tokens apart, the
first token is not scored, and `token_ppl` is the only metric: the number in papers. Empty texts are ignored.

Example:
    The quick brown fox jumps over the lazy dog.
"""

from pathlib import Path
from typing import Literal

from harness import Task, Text, UserError, bits_per_byte, byte_ppl, rows, task, token_ppl, word_ppl

ENDINGS = (".txt", ".md")


@task
def perplexity(
    *,
    data: str = "hub:EleutherAI/wikitext_document_level:wikitext-2-raw-v1:test",
    column: str | None = None,
    by: Literal["row", "file", "corpus"] = "row",
    separator: str = "\n\n",
    window: int | None = None,
    stride: int | None = None,
) -> Task:
    """Perplexity of a model on any text."""
    texts = _files(Path(data).expanduser()) if by == "file" else _cells(data, column)
    if by == "corpus":
        texts = [separator.join(texts)]
    return Task(
        [{"text": text} for text in texts if text.strip()],
        lambda row: Text(row["text"], window=window, stride=stride),
        [token_ppl] if stride else [byte_ppl, bits_per_byte, word_ppl, token_ppl],
    )


def _cells(data: str, column: str | None) -> list[str]:
    found = rows(data)
    column = column or next((name for name in ("text", "page", "content") if name in found[0]), "text")
    for number, row in enumerate(found):
        if not isinstance(row.get(column), str):
            problem = f"is {row[column]!r}" if column in row else "is missing"
            raise UserError(
                f"`{data}`: the column `{column}` {problem} in row {number}",
                hint=f"`-T column=…`; the columns are: {', '.join(row)}",
            )
    return [row[column] for row in found]


def _files(place: Path) -> list[str]:
    """Reads a file, or all text files of a folder and its subfolders, sorted by name."""
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if file.suffix in ENDINGS)
    if not files:
        raise UserError(
            f"no text file in `{place}`", hint=f"`by=file` takes a file, or a folder of {' and '.join(ENDINGS)} files"
        )
    texts = []
    for file in files:
        try:
            texts.append(file.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"could not read `{file}` as UTF-8 text: {error}") from error
    return texts
