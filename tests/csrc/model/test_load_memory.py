"""What a model costs while it is loaded: little more than its packed weights at any moment."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOAD = """
import json, sys
from pocketvlm import _core

def kib(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

pool = _core.ThreadPool(2)
before = kib("VmRSS")
model = _core.Model(sys.argv[1], sys.argv[2], pool=pool)
print(json.dumps({"peak": (kib("VmHWM") - before) * 1024, "packed": model.weight_bytes}))
"""


def test_peak_is_packed_size_and_32_mb(model_256m_q8_0: Path) -> None:
    """Packing gives mapped pages back as it goes: the files are never held beside the packed weights."""
    (projector,) = model_256m_q8_0.glob("mmproj-*.gguf")
    (text,) = (path for path in model_256m_q8_0.glob("*.gguf") if path != projector)
    child = [sys.executable, "-c", LOAD, str(text), str(projector)]
    figures = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    assert figures["packed"] > 240e6
    assert figures["packed"] < figures["peak"] < figures["packed"] + 32e6
