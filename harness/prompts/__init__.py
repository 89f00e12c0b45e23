"""From rows to samples, and from samples to the prompts that are scored and trained on."""
