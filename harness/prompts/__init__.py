"""Converts rows to samples, and samples to the prompts for scoring and training."""
