"""Detects the language of a text.

>>> language_of("Der Hund schläft im Garten, und die Katze auch.")
'de'
"""

from __future__ import annotations

import threading
from functools import cache, lru_cache
from typing import Any

from harness.errors import UserError

_loading = threading.Lock()


@lru_cache(maxsize=4096)
def language_of(text: str) -> str | None:
    """Returns the ISO 639-1 code of the likeliest of langdetect's 55 languages; None for a text without letters.

    langdetect samples n-grams; the seed is always 0, so that a score is the same in every run.

    Raises:
        UserError: langdetect is not installed.
    """
    with _loading:
        factory = _factory()
    from langdetect.lang_detect_exception import LangDetectException

    detector = factory.create()
    detector.append(text)
    try:
        return str(detector.detect())
    except LangDetectException:
        return None


@cache
def _factory() -> Any:
    try:
        from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory
    except ImportError as error:
        raise UserError("detecting a text's language needs langdetect", hint="`pip install langdetect`") from error
    factory = DetectorFactory()
    factory.load_profile(PROFILES_DIRECTORY)
    factory.seed = 0
    return factory
