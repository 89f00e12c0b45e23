"""Groups of variants that are not shown to differ: a compact letter display.

Two variants share a letter exactly if no difference between them was shown. "Not shown to differ" is not "equal": groups overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def tie_groups(names: Sequence[str], differ: Callable[[str, str], bool]) -> dict[str, tuple[int, ...]]:
    """Numbers the groups of each variant: a greedy cover of all pairs that are not shown to differ by cliques.

    The classical insert-and-absorb algorithm gives the same kind of display, but is exponential where verdicts are scattered:
    113 s for 60 variants on 12 tasks.

    Args:
        names: The variants, best first; the first group has the best variant.
        differ: Whether two variants were shown to differ.

    Example:
        >>> tie_groups(["full", "lora", "base"], lambda a, b: {a, b} == {"full", "base"})
        {'full': (0,), 'lora': (0, 1), 'base': (1,)}
    """
    count = len(names)
    tied = [0] * count
    for one in range(count):
        for other in range(one):
            if not differ(names[one], names[other]):
                tied[one] |= 1 << other
                tied[other] |= 1 << one
    covered = [1 << index for index in range(count)]
    cliques: list[int] = []
    for one in range(count):
        while (left := tied[one] & ~covered[one]) or not any(clique >> one & 1 for clique in cliques):
            clique, fitting = 1 << one, tied[one]
            if left:
                partner = (left & -left).bit_length() - 1
                clique, fitting = clique | 1 << partner, fitting & tied[partner]
            for index in range(count):
                if fitting >> index & 1 and not clique >> index & 1:
                    clique, fitting = clique | 1 << index, fitting & tied[index]
            cliques.append(clique)
            for index in range(count):
                if clique >> index & 1:
                    covered[index] |= clique
    cliques = [
        each for each in dict.fromkeys(cliques) if not any(each != other and each & other == each for other in cliques)
    ]
    cliques.sort(key=lambda clique: [index for index in range(count) if clique >> index & 1])
    return {
        name: tuple(group for group, clique in enumerate(cliques) if clique >> index & 1)
        for index, name in enumerate(names)
    }


def letters(groups: Sequence[int]) -> str:
    """Formats groups as letters, with a dash for three or more in a row.

    Example:
        >>> letters([0, 1, 2, 5]), letters([0, 1]), letters([27])
        ('a–cf', 'ab', 'b2')
    """
    parts: list[list[int]] = []
    for group in groups:
        if parts and group == parts[-1][1] + 1:
            parts[-1][1] = group
        else:
            parts.append([group, group])
    return "".join(
        _letter(first) if first == last else f"{_letter(first)}{'–' if last > first + 1 else ''}{_letter(last)}"
        for first, last in parts
    )


def _letter(group: int) -> str:
    turn, place = divmod(group, len(_LETTERS))
    return _LETTERS[place] + (str(turn + 1) if turn else "")
