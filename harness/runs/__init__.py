"""The run folder on disk: storage, resume, reuse of trained artifacts."""
