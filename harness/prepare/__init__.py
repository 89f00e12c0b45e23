"""Preparation of a run: all that is known before a model loads, and every check of it."""
