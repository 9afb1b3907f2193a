"""What peers make of a checkpoint before they can load it; made once, by scripts in their environments."""

if __name__ != "pocketvlm.benchmarks.conversions":
    raise ImportError(
        f"this folder is the package pocketvlm.benchmarks.conversions, not {__name__!r}: "
        "install the project (pip install .) and import that"
    )

import shutil
import sys
import time
from pathlib import Path

import filelock

from pocketvlm.errors import BackendError

from ..environments import ENVIRONMENTS, environment_folder, python_environment
from ..exports import checkpoint_identity
from ..logged_command import run_logged

# name -> (script in this folder: python SCRIPT CHECKPOINT OUT, environment it runs in)
CONVERSIONS = {
    "openvino-int8": ("openvino_int8.py", "openvino"),
    "plain-onnx": ("plain_onnx.py", "onnxruntime"),
}


def convert(name: str, checkpoint: Path, work_dir: Path) -> Path:
    """Returns the folder that a conversion makes of a checkpoint; made unless that was done before.

    What was made is used again as long as checkpoint, script and environment stay what they were. What the
    script says goes into a file beside it. Of several processes one makes it, the others wait.

    Raises:
        BackendError: The script failed; nothing is left of what it wrote.
    """
    script, environment = CONVERSIONS[name]
    script_path = Path(__file__).parent / script
    made_by = f"{ENVIRONMENTS[environment]!r}\n".encode() + script_path.read_bytes()
    identity = checkpoint_identity(checkpoint, made_by)
    folder = work_dir.expanduser().resolve() / "converted" / f"{checkpoint.name}--{name}--{identity}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        staging = Path(f"{folder}.partial")  # under the lock: left by a process that was killed
        shutil.rmtree(staging, ignore_errors=True)
        log = Path(f"{folder}.log")
        log.unlink(missing_ok=True)
        print(f"converting {checkpoint.name} for {environment}, once", file=sys.stderr)
        started = time.perf_counter()
        python = environment_folder(environment, work_dir) / "bin" / "python"
        command = [str(python), "-P", str(script_path), str(checkpoint), str(staging)]
        try:
            if failure := run_logged(command, log, python_environment()):
                raise BackendError(f"{checkpoint}: cannot be converted for {environment}: {failure}")
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        print(f"converted after {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return folder
