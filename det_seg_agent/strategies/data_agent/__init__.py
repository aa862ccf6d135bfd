"""The agent as one package: options and strategy, levels, reward, policy and PPO (Data Agent, arXiv 2603.07433)."""
