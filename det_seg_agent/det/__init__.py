"""The Ultralytics adapter."""

from det_seg_agent.versions import check_hosts

check_hosts("det")
