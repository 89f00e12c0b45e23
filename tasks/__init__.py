"""Benchmarks, one file each. `harness.registry.find` finds them; do not import them directly."""
