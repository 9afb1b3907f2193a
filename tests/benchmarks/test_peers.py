"""Every peer for real, on the tiny model: its environment made, the model converted, answers measured."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pocketvlm.benchmarks.environments import ENVIRONMENTS
from pocketvlm.benchmarks.subjects import CHECKPOINT_SUBJECTS, PEERS
from pocketvlm.cli import main


@pytest.mark.full
def test_each_peer_is_prepared_and_measured(tmp_path: Path) -> None:
    """Environments take minutes and 4 GB: `make test-full` keeps them where it lets POCKETVLM_PEERS say."""
    work_dir = os.environ.get("POCKETVLM_PEERS") or str(tmp_path / "work")
    assert main(["bench", "prepare", *ENVIRONMENTS, "--work-dir", work_dir]) == 0
    out = tmp_path / "out.json"
    options = ["--synthetic", "tiny", "--compare", ",".join(PEERS), "--repeat", "1", "--new-tokens", "8"]
    options += ["--contexts", "64", "--work-dir", work_dir, "--json", str(out)]
    assert main(["bench", "run", *options]) == 0
    subjects = json.loads(out.read_text())["subjects"]
    assert list(subjects) == ["native", "llama.cpp", *CHECKPOINT_SUBJECTS]
    for name, subject in subjects.items():
        assert subject["status"] == "ok", name
        assert subject["tiles"] == 13, name
        # llama.cpp joins the markers of tiles in another way.
        assert subject["prompt_tokens"] == pytest.approx(250, abs=8 if name == "llama.cpp" else 0), name
        # Ours puts a template around a text.
        assert subject["decode_by_context"][0]["context"] == pytest.approx(64, abs=16), name
