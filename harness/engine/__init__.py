"""Runs requests on a model: `plain` is the oracle, `auto` the fast path, and both give the same scores."""
