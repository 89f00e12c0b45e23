"""The stages of training: supervised, reward model, DPO, KTO, GRPO, PPO."""
