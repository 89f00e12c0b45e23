r"""translation: sentences from one language into another, from WMT or your own data.

Dataset: https://huggingface.co/datasets/wmt/wmt16 (config `de-en`; test 2,999 rows, validation 2,169), unknown licence.
Paper: Bojar et al., "Findings of the 2016 Conference on Machine Translation", WMT 2016 (W16-2301).
Protocol: lm-evaluation-harness's `wmt16-de-en` (and the like): greedy, one line of at most 256 tokens; 0 shots by
default; `-f N` draws shots from the validation split as lm-evaluation-harness does. Two spaces precede each answer, as
there. BLEU, chrF and TER are sacrebleu's; their signatures are in `run.json`. BLEU uses the tokenizer
for the target language (`zh`, `ja-mecab`, …). `data` (another dataset), `shots_from` and `train` are files or
`hub:OWNER/NAME:CONFIG:SPLIT`, for example `-T data=hub:wmt/wmt14:fr-en:test -T source=fr` or
`-T data=hub:bentrevett/multi30k::test -T source=en -T target=de`; `source` and `target` are language codes. The two
texts are in a column `translation` (WMT), or in the columns `source_column` and `target_column`, which default to the
language codes.

Example:
    German phrase: Ein Hund läuft durch den Schnee.
    English phrase:  A dog runs through the snow.
"""

from collections.abc import Mapping

from harness import Generate, Row, Task, UserError, bleu_for, chrf, task, ter

WMT16 = "hub:wmt/wmt16:de-en:test"
LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fi": "Finnish",
    "fr": "French",
    "gu": "Gujarati",
    "ha": "Hausa",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "ja": "Japanese",
    "kk": "Kazakh",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
"""ISO 639 names, which lm-evaluation-harness's prompts use; any other code is used unchanged."""


@task
def translation(
    *,
    data: str = WMT16,
    source: str = "de",
    target: str = "en",
    source_column: str | None = None,
    target_column: str | None = None,
    shots_from: str | None = None,
    train: str | None = None,
    max_tokens: int = 256,
) -> Task:
    """Sentences from one language into another: BLEU, chrF, TER."""
    if data.startswith("hub:wmt/") and data.endswith(":test"):
        shots_from = shots_from or data.removesuffix(":test") + ":validation"

    def sample(row: Row) -> Generate:
        text, wanted = _text(row, source_column or source), _text(row, target_column or target)
        return Generate(
            f"{_language(source)} phrase: {text}\n{_language(target)} phrase:",
            wanted,
            stop=("\n",),
            max_tokens=max_tokens,
        )

    return Task(
        data,
        sample,
        [bleu_for(target), chrf, ter],
        train=train,
        shots_from=shots_from or train,
        shots_order="lm-eval",
        delimiter="  ",
    )


def _language(code: str) -> str:
    return LANGUAGES.get(code.partition("-")[0].lower(), code)


def _text(row: Row, column: str) -> str:
    """Returns a text of the row, or of the row's column `translation`."""
    nested = row.get("translation")
    text = nested.get(column) if isinstance(nested, Mapping) and column not in row else row[column]
    if not isinstance(text, str):
        there = f"of its languages {', '.join(nested)}" if isinstance(nested, Mapping) else "a text"
        raise UserError(
            f"`{column}` is {text!r} in a row: not {there}",
            hint="`-T source=… -T target=…` name the languages or columns",
        )
    return text
