"""The packages of the extra `report`, which the core does without: `Report` asks here for what needs them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from det_seg_agent.reporting.trace import Trace

OUTPUTS = {"pyarrow": "trace, samples.parquet", "matplotlib": "plots", "PIL": "contact sheets, data.html"}  # by module


def missing() -> dict[str, str]:
    """Return the modules of `OUTPUTS` that cannot be imported, with the reasons."""
    found = {}
    for name in OUTPUTS:
        try:
            importlib.import_module(name)
        except Exception as error:  # an installation for another NumPy or Python raises many kinds
            found[name] = str(error) or type(error).__name__
    return found


def notice(missing: dict[str, str]) -> str:
    """Return a line on what a run goes without."""
    return (
        f"no {', '.join(OUTPUTS[name] for name in missing)} in this run: {'; '.join(missing.values())}. "
        "The run goes on without. To have them: pip install 'det_seg_agent[report]'"
    )


def open_trace(folder: Path) -> Trace:
    """Return the writer of a run's trace."""
    from det_seg_agent.reporting.trace import Trace

    return Trace(folder)


def passes_of(trace: Trace | None, warn: Callable[[str], object]) -> Iterable[tuple[int, Any]]:
    """Return what the plot reads of a trace; nothing without one."""
    if trace is None:
        return ()
    from det_seg_agent.reporting.trace import read_passes

    return read_passes(trace.folder, ["selected", "score"], warn)
