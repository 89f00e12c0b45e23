"""The simulated allocator of GPU memory: segments, blocks that are cut and joined, and what is reserved but not used."""

from harness.finetune.training.cuda_allocator import ROUNDED_TO, CachingAllocator

MIB = 1 << 20


def test_small_blocks_share_segments_of_two_mebibytes() -> None:
    allocator = CachingAllocator()
    for _ in range(2 * MIB // ROUNDED_TO):
        allocator.allocate(ROUNDED_TO)
    assert allocator.reserved_bytes == 2 * MIB
    allocator.allocate(ROUNDED_TO)
    assert allocator.reserved_bytes == 4 * MIB


def test_medium_blocks_share_segments_of_twenty_and_large_ones_have_their_own() -> None:
    allocator = CachingAllocator()
    for _ in range(4):
        allocator.allocate(5 * MIB)
    assert allocator.reserved_bytes == 20 * MIB
    allocator.allocate(10 * MIB + ROUNDED_TO)
    assert allocator.reserved_bytes == 32 * MIB


def test_a_freed_block_is_used_again_and_only_cut_if_much_is_left() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(32 * MIB))
    assert allocator.allocate(31 * MIB).size == 32 * MIB  # 1 MiB is left unused
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(32 * MIB))
    assert [allocator.allocate(16 * MIB).size for _ in range(2)] == [16 * MIB] * 2
    assert allocator.reserved_bytes == 32 * MIB


def test_free_neighbours_are_joined_in_any_order() -> None:
    for order in ((0, 1, 2), (0, 2, 1), (1, 2, 0), (2, 1, 0)):
        allocator = CachingAllocator()
        allocator.free(allocator.allocate(60 * MIB))
        blocks = [allocator.allocate(20 * MIB) for _ in range(3)]
        for index in order:
            allocator.free(blocks[index])
        allocator.allocate(60 * MIB)
        assert allocator.reserved_bytes == 60 * MIB


def test_what_is_free_in_pieces_does_not_fit() -> None:
    allocator = CachingAllocator()
    allocator.free(allocator.allocate(60 * MIB))
    first, _, last = (allocator.allocate(20 * MIB) for _ in range(3))
    allocator.free(first)
    allocator.free(last)
    allocator.allocate(40 * MIB)
    assert allocator.reserved_bytes == 100 * MIB


def test_the_smallest_block_that_fits_is_taken() -> None:
    allocator = CachingAllocator()
    large, small = allocator.allocate(40 * MIB), allocator.allocate(20 * MIB)
    allocator.free(large)
    allocator.free(small)
    assert allocator.allocate(19 * MIB + ROUNDED_TO) is small
