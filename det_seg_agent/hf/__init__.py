"""The adapter for the Hugging Face `transformers.Trainer`: `AgentTrainer` in its place."""

from det_seg_agent.hosts.versions import check_hosts

check_hosts("hf")

from det_seg_agent.hf.trainer import AgentMixin, AgentTrainer  # noqa: E402  (report missing packages first)

__all__ = ["AgentMixin", "AgentTrainer"]
