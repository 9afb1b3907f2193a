"""`pocketvlm bench run`: what a turn measures, what the command prints, writes and refuses.

The subject of most tests is a stand-in that says what it is told to; ours and llama.cpp run for real, on the
tiny model. What the other peers give, `make test-full` shows.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image

from pocketvlm.benchmarks import bench_run, environments
from pocketvlm.benchmarks.environments import environment_folder
from pocketvlm.benchmarks.subject_process import SubjectProcess
from pocketvlm.benchmarks.turn import Question, run_turn
from pocketvlm.cli import main
from pocketvlm.errors import BackendError

from ..llama.test_llama_parity import HOW_TO_PREPARE

# Answers about a.png take 1 s to preprocess, 2 x 2 s for 4 tiles, 5 s for 10 prompt tokens, then 4 tokens/s;
# those about b.png half of that.
STAND_IN = """
import sys, time

class Runner:
    versions = {"stand-in": "1.0"}
    described = []

    def describe(self, image, question, new_tokens):
        self.described.append((image[-5:], question, new_tokens))
        print(self.described, file=sys.stderr)
        scale = 1.0 if image.endswith("a.png") else 0.5
        t = time.perf_counter()
        marks = [t + scale * s for s in (0, 1, 3, 4, 6, 10)]
        return {
            "started": t,
            "spans": [
                ("preprocess", marks[0], marks[1]), ("vision", marks[1], marks[2]),
                ("prefill", marks[2], marks[3]), ("vision", marks[3], marks[4]),
                ("prefill", marks[4], marks[5]),
            ],
            "tiles": 4,
            "prompt_tokens": 10,
            "token_times": [marks[5] + 0.25 * scale * i for i in range(new_tokens)],
            "token_ids": [7] * new_tokens,
        }

    def continue_text(self, text, new_tokens):
        n = len(text.split())
        return {
            "started": 0.0, "spans": [], "tiles": 0, "prompt_tokens": n,
            "token_times": [n * i for i in range(new_tokens)], "token_ids": [7] * new_tokens,
        }

def load(model, threads):
    assert model == {"a": "b"} and threads == 2, (model, threads)
    print("a word on stdout that is no answer")
    return Runner()
"""


def turn(module: Path, images: list[str], **options: Any) -> Any:
    question = Question(tuple(map(Path, images)), "Why?", 5)
    with SubjectProcess("stand-in", str(module), None) as process:
        return run_turn(process, {"a": "b"}, question, threads=2, **options)


def write_stand_in(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in STAND_IN
    path = folder / "stand_in.py"
    path.write_text(STAND_IN.replace(old, new) if old else STAND_IN)
    return path


class TestTurn:
    def test_sums_the_spans_of_each_stage(self, tmp_path: Path) -> None:
        measured = turn(write_stand_in(tmp_path), ["a.png"], contexts=[3, 8])
        metrics = measured.metrics
        assert metrics["preprocess_s"] == pytest.approx(1.0)
        assert metrics["vision_tile_s"] == pytest.approx(4.0 / 4)
        assert metrics["prefill_tokens_per_s"] == pytest.approx(10 / 5)
        assert metrics["time_to_first_token_s"] == pytest.approx(10.0)
        assert metrics["decode_tokens_per_s"] == pytest.approx(4.0)
        assert metrics["end_to_end_s"] == pytest.approx(11.0)
        assert 0 < metrics["load_s"] < 60
        assert measured.versions == {"stand-in": "1.0"}
        assert (measured.tiles, measured.prompt_tokens) == (4, 10)
        assert measured.decode_by_context == [(3, pytest.approx(1 / 3)), (8, pytest.approx(1 / 8))]

    def test_gives_the_mean_of_several_images(self, tmp_path: Path) -> None:
        measured = turn(write_stand_in(tmp_path), ["a.png", "b.png"])
        metrics = measured.metrics
        assert metrics["preprocess_s"] == pytest.approx((1.0 + 0.5) / 2)
        assert metrics["vision_tile_s"] == pytest.approx(6.0 / 8)
        assert metrics["prefill_tokens_per_s"] == pytest.approx(20 / 7.5)
        assert metrics["time_to_first_token_s"] == pytest.approx(7.5)
        assert metrics["decode_tokens_per_s"] == pytest.approx(8 / 1.5)
        assert metrics["end_to_end_s"] == pytest.approx((11.0 + 5.5) / 2)
        assert (measured.tiles, measured.prompt_tokens) == (8, 20)

    def test_asks_the_same_question_with_few_tokens_first(self, tmp_path: Path) -> None:
        path = write_stand_in(
            tmp_path,
            "print(self.described, file=sys.stderr)",
            "assert len(self.described) < 2, self.described",
        )
        with pytest.raises(BackendError, match=r"\[\('a.png', 'Why\?', 2\), \('a.png', 'Why\?', 5\)\]"):
            turn(path, ["a.png"])

    def test_names_its_spans_in_the_order_of_time(self, tmp_path: Path) -> None:
        spans = turn(write_stand_in(tmp_path), ["a.png"]).spans
        stages = ["preprocess", "vision", "prefill", "vision", "prefill", "decode"]
        assert [span.name for span in spans] == ["start", "load", "warm-up", *stages]

    def test_sees_memory_that_is_there_for_a_moment(self, tmp_path: Path) -> None:
        quiet = turn(write_stand_in(tmp_path), ["a.png"]).metrics
        filled = "    x = bytearray(b'x') * 300_000_000; time.sleep(0.2)\n    return Runner()"
        used = turn(write_stand_in(tmp_path, "    return Runner()", filled), ["a.png"]).metrics
        for name in ("peak_memory_bytes", "peak_memory_high_water_bytes"):
            assert 290e6 < used[name] - quiet[name] < 330e6

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("    return Runner()", "    raise RuntimeError('no such thing')", "RuntimeError: no such thing"),
            ("import sys, time", "import nothing", "exit code 1: .*No module named 'nothing'"),
            ("range(new_tokens)", "range(new_tokens - 1)", "1 tokens came, 2 were asked for"),
            (
                "        scale =",
                "        import os; os.kill(os.getpid(), 9)\n        scale =",
                "exit code -9",
            ),
        ],
    )
    def test_says_what_a_subject_said_last(self, tmp_path: Path, old: str, new: str, message: str) -> None:
        with pytest.raises(BackendError, match=message):
            turn(write_stand_in(tmp_path, old, new), ["a.png"])


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def peers_run(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts an interpreter where the prepared environment of a peer would be."""

    def install(name: str, script: str) -> None:
        folder = environment_folder(name, work_dir)
        python = folder / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        environments._stamp(folder).write_text(environments._content(name))

    return install


def bench(work_dir: Path, *arguments: str | Path) -> int:
    options = ["--synthetic", "tiny", "--new-tokens", "4", "--threads", "2", "--work-dir", work_dir]
    return main(["bench", *map(str, options), *map(str, arguments)])


def validated(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    schema = json.loads((files("pocketvlm.benchmarks") / "run.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema, cls=jsonschema.Draft202012Validator)
    return content


class TestCommand:
    def test_measures_ours_in_turns_and_lists_peers_that_are_not_there(
        self, work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, plot = tmp_path / "out.json", tmp_path / "out.png"
        options = [
            "--type",
            "q8_0,f32",
            "--compare",
            "openvino,onnxruntime",
            "--repeat",
            "2",
            "--contexts",
            "20,90,4000",
        ]
        assert bench(work_dir, *options, "--json", out, "--plot", plot) == 0
        said = capsys.readouterr()
        turns = [line.split(":")[1].split()[0] for line in said.err.splitlines() if line.startswith("turn ")]
        assert turns == ["native-q8_0", "native-f32"] * 2
        assert (
            "absent  onnxruntime, plain export, fp32: pocketvlm bench prepare onnxruntime --work-dir"
            in said.out
        )
        assert "a context of 4000 is left out: the model holds 2016 and an answer" in said.err
        assert "tokens/s after texts of about so many tokens" in said.out

        content = validated(out)
        assert list(content["subjects"]) == [
            "native-q8_0", "native-f32", "openvino", "onnxruntime-fp32", "onnxruntime-int8",
        ]  # fmt: skip
        assert content["subjects"]["openvino"]["how_to_prepare"].startswith(
            "pocketvlm bench prepare openvino"
        )
        for name in ("native-q8_0", "native-f32"):
            subject = content["subjects"][name]
            assert (subject["tiles"], subject["prompt_tokens"]) == (13, 250)
            assert all(len(spread["values"]) == 2 for spread in subject["metrics"].values())
            metrics = {metric: spread["median"] for metric, spread in subject["metrics"].items()}
            assert metrics["time_to_first_token_s"] < metrics["end_to_end_s"]
            assert metrics["peak_memory_bytes"] > 30e6  # the interpreter and NumPy alone
            assert [point["context"] > 20 for point in subject["decode_by_context"]] == [True, True]
            # The stages end where the answer ends.
            parts = (
                metrics["preprocess_s"]
                + 13 * metrics["vision_tile_s"]
                + 250 / metrics["prefill_tokens_per_s"]
            )
            assert parts == pytest.approx(metrics["time_to_first_token_s"], rel=0.5)
            stages = [span["name"] for span in subject["last_turn"]["spans"]]
            assert stages == ["start", "load", "warm-up", "preprocess", "vision", "prefill", "decode"]
        assert content["machine"]["threads"] == 2
        assert content["machine"]["compiler"].split()[0] in ("GNU", "Clang")
        assert content["model"] == {"name": "synthetic tiny", "synthetic": True}
        with Image.open(plot) as image:
            assert image.width > 1000

    def test_measures_graphs_of_each_type_beside_a_pair(
        self, work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, plot = tmp_path / "out.json", tmp_path / "out.png"
        options = ["--backend", "onnx,native", "--type", "fp32,int8,f32", "--vision-compute", "auto,int8"]
        options += ["--repeat", "1", "--contexts", "20", "--json", str(out), "--plot", str(plot)]
        assert bench(work_dir, *options) == 0
        printed = capsys.readouterr().out
        assert "pocketvlm onnx, int8" in printed
        assert printed.count("How much better") == 1  # no peer to hold the others against
        subjects = validated(out)["subjects"]
        assert [(name, subject["backend"], subject["arithmetic"]) for name, subject in subjects.items()] == [
            ("onnx-fp32", "onnx", "fp32"),
            ("onnx-int8", "onnx", "int8"),
            ("native", "native", "fp32"),
            ("native-int8", "native", "fp32"),
        ]
        for subject in subjects.values():
            assert (subject["tiles"], subject["prompt_tokens"]) == (13, 250)
            assert ("onnxruntime" in subject["versions"]) == (subject["backend"] == "onnx")
        assert plot.stat().st_size > 10_000

    def test_takes_a_checkpoint_or_its_graphs_for_the_backend_onnx(
        self, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out.json"
        options = ["--backend", "onnx", "--new-tokens", "2", "--repeat", "1", "--contexts", ""]
        options += ["--work-dir", str(tmp_path), "--json", str(out)]
        assert main(["bench", "-m", str(tiny_checkpoint), *options]) == 0
        (graphs,) = [path for path in (tmp_path / "graphs").iterdir() if path.is_dir()]
        assert graphs.name.startswith(f"{tiny_checkpoint.name}--int8--")
        assert capsys.readouterr().err.count("making") == 1
        for source in (tiny_checkpoint, graphs):
            assert main(["bench", "-m", str(source), *options]) == 0
            assert "making" not in capsys.readouterr().err
            assert validated(out)["subjects"]["onnx"]["title"] == "pocketvlm onnx, int8"
        assert main(["bench", "-m", str(graphs), *options, "--type", "q4"]) == 1
        assert "has int8 of decoder_model_merged" in capsys.readouterr().err

    def test_measures_llama_cpp_on_the_pair_that_we_exported(
        self,
        work_dir: Path,
        tmp_path: Path,
        peers_run: Callable[[str, str], None],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        python = os.environ.get("POCKETVLM_LLAMA_PYTHON")
        if not python:
            pytest.fail(HOW_TO_PREPARE)
        peers_run("llama.cpp", f'exec {Path(python).absolute()} "$@"')
        out = tmp_path / "out.json"
        options = ["--backend", "onnx,native", "--type", "fp32,f32", "--compare", "llama.cpp"]
        assert bench(work_dir, *options, "--repeat", "1", "--contexts", "20", "--json", out) == 0
        tables = capsys.readouterr().out.split("How much better ")[1:]
        for table, name, others in zip(
            tables, ["onnx, fp32", "native, f32"], [["pocketvlm", "llama.cpp,"], ["llama.cpp,"]], strict=True
        ):
            rows = table.split("\n\n")[0].splitlines()
            assert rows[0].startswith(f"pocketvlm {name} is than")
            assert [row.split()[0] for row in rows[3:]] == others
        llama = validated(out)["subjects"]["llama.cpp"]
        assert llama["versions"] == {"llama-cpp-python": "0.3.36"}
        assert llama["tiles"] == 13
        assert llama["prompt_tokens"] == pytest.approx(250, abs=8)
        assert llama["decode_by_context"][0]["context"] == 20

    def test_goes_on_without_a_peer_that_fails(
        self,
        work_dir: Path,
        tmp_path: Path,
        peers_run: Callable[[str, str], None],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        peers_run("llama.cpp", "echo out of luck >&2; exit 3")
        out = tmp_path / "out.json"
        options = ["--compare", "llama.cpp", "--repeat", "2", "--contexts", "", "--json", out]
        assert bench(work_dir, *options) == 1
        subjects = validated(out)["subjects"]
        assert subjects["native"]["status"] == "ok"
        assert len(subjects["native"]["metrics"]["load_s"]["values"]) == 2
        assert subjects["llama.cpp"]["status"] == "failed"
        assert "exit code 3: out of luck" in subjects["llama.cpp"]["error"]
        assert "failed  llama.cpp, q8_0: the process of llama.cpp ended" in capsys.readouterr().out

    def test_compares_with_a_baseline_and_exits_1_when_worse(
        self, work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "old.json"
        options = ["--repeat", "2", "--contexts", ""]
        assert bench(work_dir, *options, "--json", out) == 0
        assert bench(work_dir, *options, "--baseline", out, "--threshold", "1e6") == 0
        assert "nothing is worse" in capsys.readouterr().out

        content = json.loads(out.read_text())
        spread = content["subjects"]["native"]["metrics"]["decode_tokens_per_s"]
        spread["values"] = [1e9 * value for value in spread["values"]]
        out.write_text(json.dumps(content))
        assert bench(work_dir, *options, "--baseline", out, "--threshold", "1e6") == 1
        printed = capsys.readouterr().out
        worse = [line.split() for line in printed.splitlines() if line.endswith("WORSE")]
        assert [line[:2] for line in worse] == [["native", "decode_tokens_per_s"]]

    def test_takes_an_exported_folder_and_says_what_peers_lack(
        self,
        tiny_f32: Path,
        work_dir: Path,
        tmp_path: Path,
        peers_run: Callable[[str, str], None],
        photo: Path,
    ) -> None:
        peers_run("transformers", "exit 1")
        out = tmp_path / "out.json"
        options = ["-m", tiny_f32, "--new-tokens", "2", "--repeat", "1", "--contexts", "", "--json", out]
        options += ["--images", photo, photo, "--compare", "transformers-bf16", "--work-dir", work_dir]
        assert main(["bench", "run", *map(str, options)]) == 0
        content = validated(out)
        assert content["model"] == {"name": str(tiny_f32), "synthetic": False}
        assert "it takes a checkpoint" in content["subjects"]["transformers-bf16"]["how_to_prepare"]
        assert [image["width"] for image in content["request"]["images"]] == [1536, 1536]
        native = content["subjects"]["native"]
        assert native["tiles"] == 26
        assert (native["title"], native["arithmetic"]) == ("pocketvlm native, f32", "fp32")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--type", "q9"], "--type: found 'q9', expected some of f32"),
            (["--type", "int8"], "--type: found int8, native takes some of f32,"),
            (["--type", "int8,q8_0"], "--type: found 'int8', which is not for native"),
            (
                ["--type", "int8", "--backend", "onnx", "--compare", "llama.cpp"],
                "llama.cpp takes some of f32,",
            ),
            (
                ["--backend", "onnx", "-m", "demo"],
                "demo: expected a checkpoint, or a folder with the subfolder",
            ),
            (["--backend", "abacus"], "--backend: found 'abacus', expected some of native"),
            (["--compare", "llama"], "--compare: found 'llama', expected some of llama.cpp"),
            (["--new-tokens", "1"], "expected at least 2"),
            (["--contexts", "1k"], "--contexts: found '1k', expected numbers"),
            (["--contexts", "0"], "--contexts: found '0', expected numbers of at least 1"),
            (["--images", "missing.jpg"], "missing.jpg: no such file"),
            (["--images", __file__], "not an image that can be read"),
            (["--json", "missing/out.json"], "missing/out.json: cannot be written"),
            (["--plot", "out.bmp"], "found .bmp, expected one of .png, .svg, .pdf"),
            (["--baseline", "missing.json"], "missing.json: cannot be read"),
            (["--baseline", __file__], "not JSON"),
            (["-m", "nowhere"], "nowhere: no such folder"),
        ],
    )
    def test_refuses(self, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", *options]) == 1
        said = capsys.readouterr()
        assert message in said.err
        assert said.out == ""

    def test_refuses_a_baseline_of_something_else(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for content in (
            "[]",
            "{}",
            '{"schema": 2, "measurement": "run"}',
            '{"schema": 1, "measurement": "sizes"}',
        ):
            path = tmp_path / "other.json"
            path.write_text(content)
            assert main(["bench", "--baseline", str(path)]) == 1
            assert "expected the --json of `pocketvlm bench run`, schema 1" in capsys.readouterr().err

    def test_asks_for_matplotlib_before_it_measures(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert main(["bench", "--plot", str(tmp_path / "out.png")]) == 1
        assert "pip install 'pocketvlm[bench]'" in capsys.readouterr().err

    def test_is_what_bench_alone_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        monkeypatch.setattr(bench_run, "run_command", lambda args: asked.append(args.synthetic) or 0)
        assert main(["bench"]) == 0
        assert main(["bench", "--synthetic", "500m"]) == 0
        assert main(["bench", "run", "--synthetic", "tiny"]) == 0
        assert asked == [None, "500m", "tiny"]
        with pytest.raises(SystemExit) as stopped:
            main(["bench", "--help"])
        assert stopped.value.code == 0
