"""Results of other tools, read into the same document as our own runs: one reader for each format."""
