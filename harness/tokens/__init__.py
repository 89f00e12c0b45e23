"""Turns prompts into token ids, training labels and packs. No torch."""
