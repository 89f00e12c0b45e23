"""The order of variants: ranks that ties share, and Pareto fronts of quality and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


def ranks(names: Sequence[str], better: Callable[[str, str], bool]) -> dict[str, int]:
    """Ranks variants: 1 + the number of variants shown to be better, so variants that cannot be told apart share a rank.

    Args:
        names: The variants.
        better: Whether the first was shown to be better than the second.

    Example:
        >>> ranks(["base", "lora", "qlora"], lambda a, b: b == "base" and a == "lora")
        {'base': 2, 'lora': 1, 'qlora': 1}
    """
    return {name: 1 + sum(better(other, name) for other in names if other != name) for name in names}


def pareto(points: Mapping[str, tuple[float, float]], *, higher_is_better: bool = True) -> list[str]:
    """Finds the variants that no other variant dominates.

    A variant dominates another if it is as good at a lower cost, or better at the same cost or less.

    Args:
        points: (quality, cost) by name; a lower cost is better. A point with NaN is on no front.
        higher_is_better: Direction of the quality.

    Returns:
        Names in the order of `points`; equal points are all kept.

    Example:
        >>> pareto({"base": (0.3, 0), "full": (0.5, 9), "lora": (0.5, 4), "prefix": (0.4, 6)})
        ['base', 'lora']
    """
    sign = 1 if higher_is_better else -1
    signed = {name: (sign * quality, cost) for name, (quality, cost) in points.items() if quality == quality}
    signed = {name: point for name, point in signed.items() if point[1] == point[1]}

    def dominated(point: tuple[float, float]) -> bool:
        return any(q >= point[0] and cost <= point[1] and (q, cost) != point for q, cost in signed.values())

    return [name for name, point in signed.items() if not dominated(point)]
