"""The Ultralytics adapter: trainers for its tasks, COCO evaluation, and the command line."""

from det_seg_agent.hosts.versions import check_hosts

check_hosts("det")
