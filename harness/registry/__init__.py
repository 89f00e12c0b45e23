"""Finds tasks, methods and metrics without importing them, and loads those that are used."""
