"""Tools for authors of tasks and methods: checks, templates, previews of prompts and training rows."""
