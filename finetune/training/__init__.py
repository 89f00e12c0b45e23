"""The training loop: batches, loss, optimizers, checkpoints, memory."""
