"""Benchmarks, one file each. Found by `harness.registry.find`; import nothing from here by hand."""
