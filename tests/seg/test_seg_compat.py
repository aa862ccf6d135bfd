import os
import subprocess
import sys
from pathlib import Path

IMPORT_WHILE_THE_CACHE_IS_WRITTEN = """
import importlib.util, pathlib, sys, threading
import numpy, torch
from det_seg_agent.hosts import versions

cut = [pathlib.Path(path) for path in sys.argv[1:]]
whole = [path.read_bytes() for path in cut]
for path in cut:
    path.write_bytes(b"")

def write():
    for path, content in zip(cut, whole):
        path.write_bytes(content)

threading.Timer(0.7, write).start()
from det_seg_agent.seg import AgentHook
"""


def python(code: str, cache: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return subprocess.run([sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True)


def test_processes_that_start_together_wait_for_yapfs_cache(tmp_path):
    python("import yapf", tmp_path)
    written = [str(path) for path in tmp_path.rglob("*.pickle")]
    assert written

    process = python(IMPORT_WHILE_THE_CACHE_IS_WRITTEN, tmp_path, *written)

    assert process.returncode == 0, process.stderr
