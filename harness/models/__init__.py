"""Loads models, attaches adapters, restores the original weights, measures memory and time. Child processes only."""
