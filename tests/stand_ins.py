"""Registers a random selection in place of the controls that this state of the package lacks."""

from det_seg_agent.strategies import register, strategy_class, strategy_names

for name in ("even", "quality"):
    if name not in strategy_names():
        register(name)(type(name, (strategy_class("random"),), {}))
