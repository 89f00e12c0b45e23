"""Rows of datasets and files of models, from the Hub or from disk."""
