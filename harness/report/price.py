"""The price of the machine, and what training and tokens cost at that price.

Costs in money follow from measured seconds, so a price can be given when a run is made, or when it is shown.

Example:
    >>> read_price("2.5 EUR"), read_price(0.9)
    (Price(per_hour=2.5, currency='EUR'), Price(per_hour=0.9, currency='$'))
"""

from __future__ import annotations

import math
import re

from harness.results import Inference, Money, Price, Run, Variant

DEFAULT_CURRENCY = "$"
_PRICE = re.compile(
    r"(?P<before>[A-Za-z]{1,8}|[^\w\s.,+-])?\s*(?P<amount>\d+\.?\d*|\.\d+)\s*(?P<after>[A-Za-z]{1,8}|[^\w\s.,+-])?"
)
_MILLION = 1e6
_SECONDS_PER_HOUR = 3600


def read_price(value: str | float) -> Price:
    """Reads the price of an hour: a number, with its currency before or after it.

    Raises:
        ValueError: It is not a price.
    """
    found = _PRICE.fullmatch(str(value).strip())
    if found is None or (found["before"] and found["after"]) or not 0 < float(found["amount"]) < math.inf:
        raise ValueError("expected the price of an hour, such as 2.5 or `2.5 EUR`")
    return Price(per_hour=float(found["amount"]), currency=found["before"] or found["after"] or DEFAULT_CURRENCY)


def price_text(price: Price) -> str:
    """Formats a price as `read_price` reads it.

    Example:
        >>> price_text(read_price("EUR 2.50"))
        '2.5 EUR'
    """
    return f"{price.per_hour:g} {price.currency}"


def priced(run: Run, price: Price | None) -> Run:
    """Adds the costs in money to a run; without a price, those that it has stay.

    Generated tokens are priced at the largest batch size that was measured for every timed variant, so that the costs of
    variants can be compared; prompt tokens at that of `Inference.batch_size`, usually one.
    """
    if price is None:
        return run
    sizes = [_throughputs(variant.inference).keys() for variant in run.variants if variant.inference]
    size = max(set.intersection(*map(set, sizes)), default=1) if sizes else 1
    variants = tuple(variant.model_copy(update={"money": _money(variant, price, size)}) for variant in run.variants)
    return run.model_copy(update={"price": price, "variants": variants})


def _money(variant: Variant, price: Price, size: int) -> Money | None:
    inference, per_second = variant.inference, price.per_hour / _SECONDS_PER_HOUR
    if variant.train is None and inference is None:
        return None
    generated = _throughputs(inference).get(size) if inference else None
    return Money(
        training=variant.train.train_seconds * per_second if variant.train else None,
        million_prompt_tokens=(
            _MILLION * per_second * inference.prefill_seconds_p50 / (inference.prompt_tokens * inference.batch_size)
            if inference
            else None
        ),
        million_generated_tokens=_MILLION * per_second / generated if generated else None,
        batch_size=size if generated else None,
    )


def _throughputs(inference: Inference) -> dict[int, float]:
    """Generated tokens per second, by batch size; without other figures, from the time per token."""
    each, rows = inference.decode_seconds_per_token_p50, inference.batch_size
    known = {rows: rows / each} if each else {}
    return known | {point.batch_size: point.tokens_per_second for point in inference.throughput}
