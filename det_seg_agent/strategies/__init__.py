"""The strategies, used by `Selector`; importing this package registers them."""

from det_seg_agent.strategies.afss import Afss
from det_seg_agent.strategies.base import (
    NoOptions,
    Request,
    Selection,
    Strategy,
    register,
    resolve,
    strategy_class,
    strategy_names,
)
from det_seg_agent.strategies.baselines import Full, Random, TopEntropy, TopLoss
from det_seg_agent.strategies.classwise import Curated, RepeatFactor
from det_seg_agent.strategies.data_agent.agent import Agent
from det_seg_agent.strategies.data_agent_paper import DataAgentPaper
from det_seg_agent.strategies.infobatch import InfoBatch
from det_seg_agent.strategies.quality import Even, Quality

__all__ = [
    "Afss",
    "Agent",
    "Curated",
    "DataAgentPaper",
    "Even",
    "Full",
    "InfoBatch",
    "NoOptions",
    "Quality",
    "Random",
    "RepeatFactor",
    "Request",
    "Selection",
    "Strategy",
    "TopEntropy",
    "TopLoss",
    "register",
    "resolve",
    "strategy_class",
    "strategy_names",
]
