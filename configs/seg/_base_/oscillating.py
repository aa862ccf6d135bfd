# The same budget by turns of a low and a high ratio (PODS, arXiv 2605.14773).
_base_ = "./agent.py"
agent = dict(schedule="oscillating", low=0.3, high=0.9, period=2)
