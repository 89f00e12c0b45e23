"""Intervals and tests, one method for each kind of metric: single scores, paired differences, seeds, ranks."""
