"""Ways of fine-tuning, one file each, and what they share: training, file formats, loss curves."""
