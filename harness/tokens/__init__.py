"""From prompts to token ids, labels and packs. No torch."""
