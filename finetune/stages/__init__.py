"""The stages of training: supervised, reward model, DPO, GRPO, PPO."""
