"""Deployed forms: the tools that convert weights to what a server loads, found, run and cached. No torch."""
