"""A step of reinforcement learning (GRPO): rollouts, rewards, log-probabilities, update, weights on their way back."""
