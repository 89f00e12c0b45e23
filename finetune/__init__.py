"""Fine-tuning methods, one file each, and their shared code: training, file formats, loss curves."""
