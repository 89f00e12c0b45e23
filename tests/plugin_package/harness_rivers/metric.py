"""A metric of a third-party package."""

from harness import Metric


def _score(prediction: str, target: str) -> float:
    return float(prediction.strip()[:1].lower() == target[:1].lower())


same_letter = Metric("same_letter", score=_score)
"""0–1. The text begins with the letter that the target begins with."""
