"""Intervals and tests: paired differences, proportions, resampling, seeds."""
