"""Loads models, attaches adapters, restores pristine weights, measures memory. Child processes only."""
