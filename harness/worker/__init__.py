"""The child process that holds a model: its server in the parent, and the child itself."""
