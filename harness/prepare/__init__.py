"""Everything about a run that is known before a model loads, and every check of it."""
