"""The Ultralytics adapter."""

from det_seg_agent.hosts.versions import check_hosts

check_hosts("det")
