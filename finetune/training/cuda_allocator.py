"""Simulates torch's allocator of GPU memory, which reserves more than tensors take.

It asks the driver for segments, cuts blocks from them, and keeps what is freed: a tensor fits into a free block only if that is
large enough in one piece. The sizes are those of torch's default settings (`c10/cuda/CUDACachingAllocator.cpp`), without
expandable segments.

Example:
    >>> allocator = CachingAllocator()
    >>> block = allocator.allocate(30 << 20)
    >>> allocator.free(block)
    >>> _ = allocator.allocate(31 << 20)
    >>> allocator.reserved_bytes >> 20  # the freed segment is too small
    62
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import count

ROUNDED_TO = 512
"""Sizes are rounded up to a multiple of this many bytes."""
_SMALL = 1 << 20
"""Blocks up to this size have segments of their own; a larger block is cut only if more than this is left."""
_SMALL_SEGMENT, _LARGE_SEGMENT = 2 << 20, 20 << 20
_LARGE = 10 << 20
"""A block of this size or more has a segment of its size, rounded up to 2 MiB."""


@dataclass(eq=False)
class MemoryBlock:
    """A part of a segment, between its neighbours."""

    size: int
    small: bool
    free: bool = False
    before: MemoryBlock | None = None
    after: MemoryBlock | None = None


class CachingAllocator:
    """Allocates and frees blocks, and counts the bytes that are reserved for them."""

    def __init__(self) -> None:
        self.reserved_bytes = 0
        self._free: dict[bool, list[tuple[int, int, MemoryBlock]]] = {True: [], False: []}
        """Free blocks in ascending order of size, of small and large segments."""
        self._numbers = count()

    def allocate(self, size: int) -> MemoryBlock:
        """Takes the smallest free block that is large enough, or reserves a segment.

        Args:
            size: Bytes, a multiple of `ROUNDED_TO`.
        """
        small = size <= _SMALL
        free = self._free[small]
        at = bisect_left(free, size, key=lambda entry: entry[0])
        block = free.pop(at)[2] if at < len(free) else self._reserve(size, small)
        left = block.size - size
        if left >= ROUNDED_TO if small else left > _SMALL:
            rest = MemoryBlock(left, small, before=block, after=block.after)
            if block.after is not None:
                block.after.before = rest
            block.size, block.after = size, rest
            self._keep(rest)
        block.free = False
        return block

    def free(self, block: MemoryBlock) -> None:
        """Frees a block, and joins it with free neighbours."""
        for neighbour in (block.before, block.after):
            if neighbour is None or not neighbour.free:
                continue
            free = self._free[block.small]
            at = bisect_left(free, neighbour.size, key=lambda entry: entry[0])
            free.pop(next(place for place in range(at, len(free)) if free[place][2] is neighbour))
            first, second = (neighbour, block) if neighbour is block.before else (block, neighbour)
            first.size, first.after = first.size + second.size, second.after
            if second.after is not None:
                second.after.before = first
            block = first
        self._keep(block)

    def _reserve(self, size: int, small: bool) -> MemoryBlock:
        if small:
            segment = _SMALL_SEGMENT
        elif size < _LARGE:
            segment = _LARGE_SEGMENT
        else:
            segment = -(-size // _SMALL_SEGMENT) * _SMALL_SEGMENT
        self.reserved_bytes += segment
        return MemoryBlock(segment, small)

    def _keep(self, block: MemoryBlock) -> None:
        block.free = True
        insort(self._free[block.small], (block.size, next(self._numbers), block))
