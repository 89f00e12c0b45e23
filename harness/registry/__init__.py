"""Finds tasks, methods and metrics, without importing them."""
