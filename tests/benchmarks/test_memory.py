"""The measuring of memory from outside, and the figures it was written for: `describe` on the 256M shape."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.benchmarks.memory import measure, parse_size
from pocketvlm.errors import InputError

ONE_GB = 1_000_000_000

# A child that makes argv[1] bytes resident and prints a word.
TOUCH = "import sys; b = bytearray(int(sys.argv[1])); b[::4096] = b'x' * len(b[::4096]); print('done')"


def touch(size: int) -> list[str]:
    return [sys.executable, "-c", TOUCH, str(size)]


def bench(*arguments: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run `pocketvlm bench memory --json`: the finished process and the object it printed."""
    command = [sys.executable, "-m", "pocketvlm", "bench", "memory", "--json", *arguments]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.stdout, finished.stderr
    return finished, json.loads(finished.stdout)


class TestMeasure:
    def test_counts_what_a_child_touches(self) -> None:
        idle, busy = measure(touch(0)), measure(touch(200_000_000))
        assert busy.stdout == "done\n"
        assert busy.peak_rss_bytes - idle.peak_rss_bytes == pytest.approx(200_000_000, rel=0.03)

    def test_samples_what_is_held_for_a_moment(self) -> None:
        held = "import time; x = bytearray(b'x') * 200_000_000; time.sleep(0.3)"
        report = measure([sys.executable, "-c", held])
        assert 200_000_000 < report.sampled_peak_bytes <= report.peak_rss_bytes

    def test_counts_a_grandchild(self) -> None:
        relay = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"
        report = measure([sys.executable, "-c", relay, *touch(200_000_000)])
        assert report.exit_code == 0
        assert report.peak_rss_bytes > 200_000_000

    def test_does_not_count_the_memory_of_the_measuring_process(self) -> None:
        """ru_maxrss of a child starts at the peak of the process that forked it."""
        ours = bytearray(b"x") * 300_000_000
        report = measure([sys.executable, "-c", "import time; time.sleep(0.1)"])
        assert report.peak_rss_bytes < 100_000_000 < len(ours)

    def test_does_not_count_what_starting_the_child_took(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The measuring process may be at its peak while it forks, and higher than it was just before."""
        growth = []

        def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
            own_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            growth.append(bytearray(b"x") * max(own_peak, 200_000_000))
            return popen(*arguments, **options)

        popen = subprocess.Popen
        monkeypatch.setattr(subprocess, "Popen", start)
        measured = measure([sys.executable, "-c", "import time; time.sleep(0.1)"]).peak_rss_bytes
        assert measured < 100_000_000 < resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def test_reports_how_the_child_failed(self) -> None:
        report = measure([sys.executable, "-c", "import sys; sys.exit('no such thing')"])
        assert (report.exit_code, report.killed_for_memory) == (1, False)
        assert report.stderr == "no such thing\n"


@pytest.mark.usefixtures("control_groups")
class TestHardLimit:
    def test_a_child_below_the_limit_survives(self) -> None:
        report = measure(touch(100_000_000), limit_bytes=300_000_000)
        assert (report.exit_code, report.killed_for_memory) == (0, False)
        assert report.control_group_peak_bytes is None or report.control_group_peak_bytes > 100_000_000

    def test_a_child_above_the_limit_is_reported_as_killed(self) -> None:
        report = measure(touch(300_000_000), limit_bytes=100_000_000)
        assert report.killed_for_memory
        assert report.exit_code == -9
        assert report.stdout == ""

    def test_a_kill_in_a_grandchild_is_noticed_too(self) -> None:
        relay = "import subprocess, sys; subprocess.run(sys.argv[1:])"
        report = measure([sys.executable, "-c", relay, *touch(300_000_000)], limit_bytes=100_000_000)
        assert report.killed_for_memory


class TestDescribe:
    """The promise of the README: one photo on the 256M shape in q8_0, the whole process under 1 GB."""

    def test_peak_is_under_one_gigabyte(self, photo: Path, model_256m_q8_0: Path) -> None:
        finished, report = bench(str(photo), "-m", str(model_256m_q8_0))
        assert finished.returncode == 0, finished.stderr
        assert report["result"]["image_tokens"] == 832
        assert report["peak_rss_bytes"] < ONE_GB
        weights = sum(path.stat().st_size for path in model_256m_q8_0.glob("*.gguf"))
        assert report["peak_rss_bytes"] > weights / 2, (
            "less than the weights: the measurement missed the process"
        )
        inside = report["result"]["memory"]["peak_bytes"]
        assert inside == pytest.approx(report["peak_rss_bytes"], rel=0.05), (
            "the figure in --json is another one"
        )

    @pytest.mark.usefixtures("control_groups")
    def test_a_hard_limit_of_one_gigabyte_is_survived(self, photo: Path, model_256m_q8_0: Path) -> None:
        finished, report = bench(str(photo), "-m", str(model_256m_q8_0), "--limit", "1GB")
        assert finished.returncode == 0, finished.stderr
        assert not report["killed_for_memory"]
        assert len(report["result"]["token_ids"]) > 0

    @pytest.mark.usefixtures("control_groups")
    def test_a_limit_too_small_is_noticed(self, photo: Path, model_256m_q8_0: Path) -> None:
        finished, report = bench(str(photo), "-m", str(model_256m_q8_0), "--limit", "150MB")
        assert finished.returncode == 1
        assert report["result"] is None
        refused = finished.stderr.startswith("pocketvlm: error: memory: ")
        assert report["killed_for_memory"] or refused, finished.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("1gib", 2**30), ("1.5 MB", 1_500_000), ("512KiB", 524_288), ("7B", 7), ("42", 42)],
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1XB", "1 G B", "one"])
def test_parse_size_names_what_it_expects(text: str) -> None:
    with pytest.raises(InputError, match="expected a number with one of B, KB"):
        parse_size(text)
