"""Benchmarks, one file each. Found by `harness.registry`; import nothing from here by hand."""
