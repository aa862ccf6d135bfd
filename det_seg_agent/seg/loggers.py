"""The run's pictures in the visualizer's backends."""

from typing import Any

from det_seg_agent.reporting.report import Report

LOCAL = "LocalVisBackend"


def show_pictures(runner: Any, report: Report) -> None:
    """Give a run's pictures to the visualizer; not where it only has backends that would copy them in the work dir."""
    backends = (runner.cfg.get("visualizer") or {}).get("vis_backends") or []
    kinds = [getattr(backend["type"], "__name__", str(backend["type"])) for backend in backends]
    if not kinds or any(kind.rpartition(".")[2] != LOCAL for kind in kinds):
        report.show(lambda name, image: runner.visualizer.add_image(name, image, step=runner.iter))
