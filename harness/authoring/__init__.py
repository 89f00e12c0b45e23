"""Help for people who write tasks and methods: checks, templates, previews of prompts and training rows."""
