"""The MMEngine/MMSegmentation adapter; importing it registers `AgentHook`, `AgentSampler` and the two loops."""

from det_seg_agent.hosts.versions import check_hosts

check_hosts("seg")

from det_seg_agent.seg.compat import prepare_host  # noqa: E402  (report missing packages before importing them)

prepare_host()

from det_seg_agent.seg.hook import AgentHook  # noqa: E402  (prepare the host before importing its modules)
from det_seg_agent.seg.loops import AgentEpochLoop, AgentIterLoop  # noqa: E402
from det_seg_agent.seg.sampler import AgentSampler  # noqa: E402

__all__ = ["AgentEpochLoop", "AgentHook", "AgentIterLoop", "AgentSampler"]
