"""Reports of a run, used by every adapter: log lines, trace, plots, contact sheets and `metrics.json`."""
