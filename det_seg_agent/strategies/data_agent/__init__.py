"""The agent: `agent.py` is the strategy, `state.py` what it sees, `reward.py`, `ppo.py` how it learns, `options.py`."""
