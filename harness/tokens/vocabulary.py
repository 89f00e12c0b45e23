"""Compares a tokenizer with the model's embedding: the id of a token without a row is an index error inside torch.

Tokens are added to a tokenizer with `add_tokens`; the model has rows for them only after `resize_token_embeddings`. This is
known from the configuration, before weights are loaded. More rows than tokens are harmless: most models are padded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError


@dataclass(frozen=True)
class Surplus:
    """Tokens of a tokenizer for which a model has no row."""

    tokenizer: Any
    folder: Path
    """The model's."""
    ids: frozenset[int]
    rows: int
    """Of the embedding."""

    def __str__(self) -> str:
        named = ", ".join(f"`{self._name(token)}`" for token in sorted(self.ids)[:3])
        return (
            f"the tokenizer in `{self.folder}` has {len(self.ids)} tokens more than the model has rows ({self.rows}):"
            f" {named}{' …' if len(self.ids) > 3 else ''}"
        )

    def refuse(self, ids: Iterable[int], where: str) -> None:
        """Refuses a text that holds such a token.

        Args:
            ids: Of the text.
            where: The text, for the message.

        Raises:
            UserError: One of the ids has no row.
        """
        held = self.ids.intersection(ids)
        if held:
            raise UserError(
                f"{where} holds `{self._name(min(held))}`, but {self}",
                hint="resize the model (`model.resize_token_embeddings(len(tokenizer))`) and save it, or use the tokenizer"
                " that it was trained with",
            )

    def _name(self, token: int) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(token))


def surplus(tokenizer: Any, config: Any, folder: Path) -> Surplus | None:
    """Finds the tokens for which a model has no row.

    Args:
        tokenizer: The model's.
        config: Its configuration.
        folder: Its files, for messages.

    Returns:
        None if there are none, or the configuration does not name the size of the vocabulary.
    """
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is None:
        return None
    beyond = frozenset(number for number in tokenizer.get_vocab().values() if number >= rows)
    return Surplus(tokenizer, folder, beyond, rows) if beyond else None
