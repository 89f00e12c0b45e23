"""Everything that a user sees of a run: the screen, tables, costs, progress."""
