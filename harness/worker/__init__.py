"""The child process that holds a model, and the server that starts it for the parent."""
