"""The agent: `agent.py` is the strategy, `state.py` what it sees; `learner.py`, `reward.py`, `ppo.py` train it."""
