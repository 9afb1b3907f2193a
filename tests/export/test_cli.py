"""The commands as a person runs them: what they print, exit codes, Ctrl-C, peak memory."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import gguf
import pytest

from pocketvlm import hub
from pocketvlm.export import cli
from pocketvlm.export.quantize import TYPES
from pocketvlm.export.synthetic import DEFAULT_SEED, write_weights

COMMAND = [sys.executable, "-P", "-m", "pocketvlm.export"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def large_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a text model of 61 million parameters: a file of 122 MB, no tensor above 17 MB."""
    folder = tmp_path_factory.mktemp("large") / "large"
    folder.mkdir()
    for path in checkpoint.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 1024,
        "intermediate_size": 8192,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder, seed=0)
    return folder


def test_both_commands(checkpoint: Path, tmp_path: Path) -> None:
    synthetic = run("synthetic", "tiny", tmp_path / "tiny")
    assert (synthetic.returncode, synthetic.stdout) == (0, f"{tmp_path / 'tiny'}\n")
    assert synthetic.stderr == ""
    for path in checkpoint.iterdir():
        assert (tmp_path / "tiny" / path.name).read_bytes() == path.read_bytes()
    types = ["--type", "q4_0", "--vision-type", "f16", "--embedding-type", "bf16"]
    exported = run("gguf", tmp_path / "tiny", tmp_path / "out", *types)
    assert (exported.returncode, exported.stderr) == (0, "")
    assert exported.stdout.splitlines() == [
        str(tmp_path / "out" / "tiny-Q4_0.gguf"),
        str(tmp_path / "out" / "mmproj-tiny-F16.gguf"),
    ]
    tensors = gguf.GGUFReader(tmp_path / "out" / "tiny-Q4_0.gguf").tensors
    assert {tensor.name: tensor.tensor_type.name for tensor in tensors}["token_embd.weight"] == "BF16"


def test_errors_are_one_line_and_exit_code_1(checkpoint: Path, tmp_path: Path) -> None:
    missing = run("gguf", tmp_path / "absent", tmp_path / "out", "--type", "f32")
    assert missing.returncode == 1
    assert missing.stderr == f"pocketvlm: error: {tmp_path / 'absent'}: there is no such folder\n"
    occupied = run("synthetic", "tiny", checkpoint)
    assert occupied.returncode == 1
    assert "is not empty; --force replaces it" in occupied.stderr
    unwritable = run("synthetic", "tiny", "/proc/pocketvlm")
    assert unwritable.returncode == 1
    assert unwritable.stderr.startswith("pocketvlm: error: ") and unwritable.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["gguf"],
        ["gguf", "a", "b"],
        ["gguf", "a", "b", "--type", "q9"],
        ["gguf", "a", "b", "--type", "q4_0", "--embedding-type", "q4_0"],
        ["synthetic", "3b", "x"],
        ["synthetic", "tiny", "x", "--seed", "one"],
        ["synthetic", "tiny", "x", "--colour"],
    ],
)
def test_usage_errors_are_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_help_says_what_the_arguments_are(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("gguf", "synthetic"):
        with pytest.raises(SystemExit) as caught:
            cli.main([command, "--help"])
        assert caught.value.code == 0
    printed = capsys.readouterr().out
    for part in (
        "CHECKPOINT",
        "{f32,f16,bf16,q8_0,q4_0}",
        "--vision-type {f32,f16,bf16,q8_0,q4_0}",
        "--embedding-type {f32,f16,bf16,q8_0}",
        "256m, 500m, 2.2b, tiny",
        f"default: {DEFAULT_SEED}",
        "--force",
    ):
        assert part in printed


def test_loading_converts_to_every_type_there_is() -> None:
    """runtime does not import export, so it has a list of its own."""
    assert tuple(TYPES) == hub.TYPES


def test_a_bar_is_drawn_on_a_terminal(large_checkpoint: Path, tmp_path: Path) -> None:
    """Without one nothing is: see test_both_commands."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    arguments = [*COMMAND, "gguf", str(large_checkpoint), str(tmp_path / "out"), "--type", "f32"]
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=theirs) as child:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # the terminal is gone when the child is
                break
            if not part:
                break
            drawn += part
    os.close(ours)
    assert child.returncode == 0
    assert b"text:" in drawn and b"%|" in drawn


def test_ctrl_c_stops_and_leaves_nothing(large_checkpoint: Path, tmp_path: Path) -> None:
    arguments = [*COMMAND, "gguf", str(large_checkpoint), str(tmp_path / "out"), "--type", "f32"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out.*.partial/*.gguf")):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said == "pocketvlm: interrupted\n"
    assert list(tmp_path.iterdir()) == []


# Runs its arguments as statements and prints the peak resident memory in MB.
PEAK_OF = """
import sys
from pathlib import Path
from pocketvlm.export.cli import main
from pocketvlm.export.synthetic import write_weights
exec(sys.argv[1])
status = Path("/proc/self/status").read_text()
print(next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")))
"""


def peak_above_imports(statement: str) -> float:
    """Runs a statement in a child; returns by how many MB its peak lies above that of doing nothing."""
    peaks = []
    for code in (statement, "pass"):
        command = [sys.executable, "-P", "-c", PEAK_OF, code]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks.append(float(printed.splitlines()[-1]))
    return peaks[0] - peaks[1]


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the peak from Linux' /proc"
)


@needs_proc
@pytest.mark.parametrize("type", TYPES)
def test_export_keeps_memory_near_one_piece_of_a_tensor(
    large_checkpoint: Path, tmp_path: Path, type: str
) -> None:
    """A piece is 1 MB of float32, with all temporaries and the vocabulary some 15 MB; the file is 122 MB."""
    arguments = ["gguf", str(large_checkpoint), str(tmp_path / "out"), "--type", type]
    assert peak_above_imports(f"main({arguments!r})") < 25


@needs_proc
def test_writing_weights_keeps_memory_near_one_piece(large_checkpoint: Path, tmp_path: Path) -> None:
    """A piece is 8 MB of random bits and a few arrays of half that; the file is 122 MB."""
    (tmp_path / "config.json").write_bytes((large_checkpoint / "config.json").read_bytes())
    assert peak_above_imports(f"import pathlib; write_weights(pathlib.Path({str(tmp_path)!r}), 0)") < 60


def test_onnx(checkpoint: Path, tmp_path: Path) -> None:
    exported = run("onnx", checkpoint, tmp_path / "out", "--type", "fp32,q4", "--threads", "1")
    assert (exported.returncode, exported.stderr) == (0, "")
    graphs = ("vision_encoder", "embed_tokens", "decoder_model_merged")
    assert exported.stdout.splitlines() == [
        str(tmp_path / "out" / "onnx" / f"{graph}{suffix}.onnx") for suffix in ("", "_q4") for graph in graphs
    ]
    again = run("onnx", checkpoint, tmp_path / "out")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"pocketvlm: error: {tmp_path / 'out'}: is not empty; --force replaces it\n"
    unknown = run("onnx", checkpoint, tmp_path / "other", "--type", "q5")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "--type: found 'q5', expected some of fp32," in unknown.stderr
