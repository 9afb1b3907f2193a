"""`pocketvlm bench preprocess`: what it compares, in which order, its table and JSON, and what it refuses.

transformers and OpenCV are stand-ins here, written out below: what is tested is that they are asked, timed
and compared, not what the real ones give.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pocketvlm.benchmarks import bench_preprocess
from pocketvlm.benchmarks.bench_preprocess import Absent, Measured, PictureReport, Report
from pocketvlm.benchmarks.machine import this_machine
from pocketvlm.benchmarks.picture import noisy_pixels
from pocketvlm.benchmarks.preprocess_subjects import Job, bytes_of_patch_rows, bytes_of_pixel_values
from pocketvlm.benchmarks.report import Spread
from pocketvlm.benchmarks.transformers_process import TransformersProcess
from pocketvlm.cli import main
from pocketvlm.config import ProcessorConfig
from pocketvlm.errors import BackendError, Error, InputError
from pocketvlm.processor import ImageSize, plan_tiles

CONFIG = ProcessorConfig(64, 32, 4, True, 1, (0.5,) * 3, (0.5,) * 3, 0.00392156862745098)
SMALL = "100x20"  # -> 2048x410 -> 2048x512: 4 tiles and the global one

# Knows one size of picture, and does with it what the reference does.
TRANSFORMERS = """
import numpy as np

class Idefics3ImageProcessorPil:
    @classmethod
    def from_pretrained(cls, folder):
        assert (__import__("pathlib").Path(folder) / "preprocessor_config.json").is_file()
        print("a word on stdout that is no answer")
        return cls()

    def __call__(self, image, return_tensors):
        assert image.mode == "RGB" and image.size == (100, 20) and return_tensors == "np"
        image = image.resize((2048, 410), 1).resize((2048, 512), 1)
        tiles = [image.crop((x, 0, x + 512, 512)) for x in range(0, 2048, 512)]
        tiles.append(image.resize((512, 512), 1))
        pixels = np.stack([np.asarray(tile).transpose(2, 0, 1) for tile in tiles])
        CHANGE
        rescaled = (pixels.astype(np.float64) * 0.00392156862745098).astype(np.float32)
        return {"pixel_values": (rescaled - np.float32(0.5))[None] / np.float32(0.5)}
"""

OPENCV = """
import numpy as np
from types import SimpleNamespace

__version__ = "0.0.stand-in"
INTER_LANCZOS4 = 4
num_threads = []
setNumThreads = num_threads.append

def resize(source, size, interpolation):
    assert interpolation == INTER_LANCZOS4
    return np.zeros((size[1], size[0], 3), np.uint8)

def blob_from_images(tiles, scalefactor, mean):
    assert np.allclose((0 - mean[0]) * scalefactor, -1) and np.allclose((255 - mean[2]) * scalefactor, 1)
    assert [tile.shape for tile in tiles] == [(512, 512, 3)] * 5
    return np.zeros((5, 3, 512, 512), np.float32)

dnn = SimpleNamespace(blobFromImages=blob_from_images)
"""


@pytest.fixture(autouse=True)
def nothing_else_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides what this machine may have; a test brings in its own."""
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POCKETVLM_TRANSFORMERS_PYTHON", raising=False)
    monkeypatch.setattr(bench_preprocess, "opencv_is_there", lambda: False)


def install_transformers(folder: Path, monkeypatch: pytest.MonkeyPatch, *, change: str = "pass") -> None:
    """Puts a stand-in where the interpreters that are started from here find it."""
    package = folder / "transformers" / "models" / "idefics3"
    package.mkdir(parents=True)
    (folder / "transformers" / "__init__.py").write_text("__version__ = '0.0.stand-in'\n")
    (package / "image_processing_pil_idefics3.py").write_text(TRANSFORMERS.replace("CHANGE", change))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def install_opencv(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cv2.py").write_text(OPENCV)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setattr(bench_preprocess, "opencv_is_there", lambda: True)


def bench(*arguments: str | Path) -> int:
    return main(["bench", "preprocess", *map(str, arguments)])


def table_rows(printed: str) -> list[list[list[str]]]:
    """The rows of each table, cut where there are two spaces."""
    tables, inside = [], False
    for line in printed.splitlines():
        if line.startswith("----"):
            tables.append([])
            inside = True
        elif not line:
            inside = False
        elif inside:
            tables[-1].append([cell.strip() for cell in line.split("  ") if cell.strip()])
    return tables


class TestCommand:
    def test_measures_ours_and_pillow_and_lists_what_is_not_there(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out.json"
        options = ["--repeat", "2", "--threads", "2", "--isas", "scalar", "--json", out]
        assert bench("--sizes", f"{SMALL},20x100", *options) == 0
        printed = capsys.readouterr().out
        assert "transformers. To prepare it: pocketvlm bench prepare transformers" in printed
        assert "Not measured: OpenCV. To prepare it: pip install '.[bench]'" in printed
        assert "100x20 -> 2048x410 -> 2048x512: 4 tiles and the global one." in printed
        assert "Equal in every pixel: Pillow + NumPy, ours." in printed
        tables = table_rows(printed)
        names = [row[:2] for row in tables[0]]
        assert names[:5] == [
            ["Pillow, resizes alone", "1"],
            ["Pillow + NumPy", "1"],
            ["ours, bf16 patch rows", "1"],
            ["ours, bf16 patch rows", "2"],
            ["ours, bf16 patch rows, new array", "2"],
        ]
        assert names[5:7] == [["ours, uint8 tiles", "1"], ["ours, uint8 tiles", "2"]]
        scalar = [["ours, bf16 patch rows, scalar", threads] for threads in "12"]
        assert names[7:] == (scalar if this_machine().isa != "scalar" else [])
        assert [[row[:2] for row in rows] for rows in tables] == [names] * 2
        assert tables[0][0][5:] == ["1.00x", "-"]

        report = json.loads(out.read_text())
        assert report.keys() == {
            "measurement",
            "machine",
            "versions",
            "repeat",
            "seed",
            "processor",
            "absent",
            "pictures",
        }
        assert (report["measurement"], report["repeat"], report["machine"]["threads"]) == ("preprocess", 2, 2)
        assert report["versions"].keys() == {"Pillow", "NumPy"}
        assert report["processor"] == {
            "longest_edge": 2048,
            "tile_size": 512,
            "resample": 1,
            "patch_size": 16,
        }
        assert [absent["name"] for absent in report["absent"]] == ["transformers", "opencv"]
        wide, tall = report["pictures"]
        assert wide["size"] == {"height": 20, "width": 100}
        assert (wide["resized"], wide["tiles"]) == ({"height": 410, "width": 2048}, 5)
        assert (tall["split"], tall["tiles"]) == ({"height": 2048, "width": 512}, 5)
        assert [[s["title"], str(s["threads"])] for s in wide["subjects"]] == names
        resizes = wide["subjects"][0]
        assert (resizes["name"], resizes["equal_pixels"], resizes["isa"]) == ("pillow_resizes", None, None)
        for subject in wide["subjects"][1:]:
            assert subject["equal_pixels"] is True
            seconds = subject["seconds"]
            assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"]
            ratio = resizes["seconds"]["median"] / seconds["median"]
            assert subject["times_as_fast_as_pillow_resizes"] == pytest.approx(ratio)
            assert subject["times_as_fast_as_transformers"] is None
        assert {s["isa"] for s in wide["subjects"][2:]} == {this_machine().isa, "scalar"}

    def test_measures_transformers_and_opencv_where_they_are(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install_transformers(tmp_path, monkeypatch)
        install_opencv(tmp_path, monkeypatch)
        monkeypatch.setenv("POCKETVLM_TRANSFORMERS_PYTHON", sys.executable)
        out = tmp_path / "out.json"
        assert bench("--sizes", SMALL, "--repeat", "1", "--threads", "2", "--json", out) == 0
        printed = capsys.readouterr().out
        assert "OpenCV 0.0.stand-in, transformers 0.0.stand-in, its Pillow " in printed
        assert "Equal in every pixel: Pillow + NumPy, transformers, ours." in printed
        assert "Not measured" not in printed
        rows = table_rows(printed)[0]
        assert [row[:2] for row in rows[2:7]] == [
            ["transformers, PIL processor", "1"],
            ["OpenCV LANCZOS4, resizes alone", "1"],
            ["OpenCV LANCZOS4, normalised", "1"],
            ["OpenCV LANCZOS4, resizes alone", "2"],
            ["OpenCV LANCZOS4, normalised", "2"],
        ]
        assert rows[2][6] == "1.00x"
        # Each of the four is told before each of its calls.
        told = sys.modules["cv2"].num_threads
        assert told[:8] == [1, 1, 2, 2] * 2
        assert told[8:] == sorted(told[8:]) and {1, 2} == set(told[8:])
        report = json.loads(out.read_text())
        assert report["absent"] == []
        subjects = report["pictures"][0]["subjects"]
        assert [s["equal_pixels"] for s in subjects[:7]] == [None, True, True, None, None, None, None]
        ratio = subjects[2]["seconds"]["median"] / subjects[-1]["seconds"]["median"]
        assert subjects[-1]["times_as_fast_as_transformers"] == pytest.approx(ratio)

    def test_other_pixels_end_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install_transformers(tmp_path, monkeypatch, change="pixels[4, 1, 2, 3] ^= 1")
        assert bench("--sizes", SMALL, "--repeat", "1", "--transformers-python", sys.executable) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "error: transformers, PIL processor (1 thread): 1 of 3,932,160 values" in captured.err
        assert "the first at tile 4, channel 1, row 2, column 3: found " in captured.err

    def test_transformers_that_fails_is_quoted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install_transformers(tmp_path, monkeypatch, change="raise MemoryError('so many floats')")
        assert bench("--sizes", SMALL, "--repeat", "1", "--transformers-python", sys.executable) == 1
        ended = "error: the process of transformers ended: exit code 1: MemoryError: so many floats"
        assert ended in capsys.readouterr().err

    def test_an_interpreter_without_transformers_is_told_what_it_lacks(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "transformers.py").write_text("raise ModuleNotFoundError('No module of that name')\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        assert bench("--sizes", SMALL, "--transformers-python", sys.executable) == 1
        error = capsys.readouterr().err
        assert f"--transformers-python: {sys.executable}: exit code 1: ModuleNotFoundError: No mod" in error
        assert "pocketvlm bench prepare transformers" in error

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--sizes", "640"], "--sizes: found '640', expected width x height, such as 640x480"),
            (["--sizes", "640x480,"], "--sizes: found '', expected width x height"),
            (["--sizes", "0x480"], "--sizes: 0x480 pixels, expected at least 1x1"),
            (["--sizes", "60000x60000"], "--sizes: 60000x60000 is 3,600,000,000 pixels, pixel_limit is"),
            (["--isas", "scalar,mmx"], "--isas: found 'mmx', expected some of "),
            (["--json", "missing/out.json"], "missing/out.json: cannot be written"),
            (
                ["--transformers-python", "missing/python"],
                "missing/python: no such interpreter; pocketvlm bench",
            ),
        ],
    )
    def test_what_cannot_work_is_said_before_anything_is_measured(
        self, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert bench(*options) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("pocketvlm: error: ")
        assert message in captured.err
        assert "measuring" not in captured.err

    def test_a_row_of_kernels_that_is_not_there(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POCKETVLM_ISA", "mmx")
        assert bench("--sizes", SMALL) == 1
        assert "error: POCKETVLM_ISA: found 'mmx', expected some of " in capsys.readouterr().err

    @pytest.mark.parametrize("option", ["--repeat", "--threads"])
    def test_counts_are_at_least_one(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit:
            bench(option, "0")
        assert exit.value.code == 2
        assert f"argument {option}: found 0, expected at least 1" in capsys.readouterr().err


def test_a_file_that_is_no_program_is_no_interpreter(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_bytes(b"\x7fELF and no more")
    program.chmod(0o755)
    with pytest.raises(InputError, match="python: Exec format error"):
        TransformersProcess(str(program), tmp_path)


@dataclass
class Stub:
    """A subject that notes its turns; its k-th run takes k times `step` seconds."""

    name: str
    turns: list[str]
    pixels: NDArray[np.uint8] | None = None
    isa: str | None = None
    threads: int = 1
    step: float = 1.0
    runs: int = field(default=0, init=False)

    @property
    def title(self) -> str:
        return f"stub {self.name}"

    def run(self) -> float:
        self.turns.append(self.name)
        self.runs += 1
        return self.runs * self.step

    def tiles(self) -> NDArray[np.uint8] | None:
        return self.pixels


def stub_pixels() -> NDArray[np.uint8]:
    return np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)


class TestMeasuring:
    def test_subjects_take_turns_and_the_first_two_do_not_count(self) -> None:
        turns: list[str] = []
        measured = bench_preprocess.measure([Stub("a", turns), Stub("b", turns, stub_pixels())], 3)
        assert turns == ["a", "b"] * 2 + ["a", "a", "b", "b"] * 3
        assert [m.first_seconds for m in measured] == [Spread(median=5.0, min=3.0, max=7.0)] * 2
        assert [m.seconds for m in measured] == [Spread(median=6.0, min=4.0, max=8.0)] * 2
        assert [m.equal_pixels for m in measured] == [None, True]

    def test_a_turn_takes_as_many_calls_as_fill_it(self) -> None:
        turns: list[str] = []
        (measured,) = bench_preprocess.measure([Stub("quick", turns, step=0.004)], 1)
        # Runs 3 to 5 take 12 + 16 + 20 ms, which is less than 50, and run 6 another 24.
        assert len(turns) == 6
        assert measured.first_seconds.median == pytest.approx(0.012)
        assert measured.seconds.median == pytest.approx(0.024)

    def test_the_first_pixels_are_what_all_others_must_equal(self) -> None:
        wrong = stub_pixels()
        wrong[1, 2, 0, 1] = 99
        wrong[1, 2, 1, 1] = 98
        subjects = [Stub("a", []), Stub("b", [], stub_pixels()), Stub("c", [], wrong, "avx2", 2)]
        with pytest.raises(Error) as error:
            bench_preprocess.measure(subjects, 1)
        assert str(error.value) == (
            "stub c (2 threads, avx2): 2 of 24 values are wrong, the first at tile 1, channel 2, row 0, "
            "column 1: found 99, expected 21, that of stub b"
        )

    def test_other_shapes_are_not_equal(self) -> None:
        subjects = [Stub("a", [], stub_pixels()), Stub("b", [], stub_pixels()[:1])]
        message = r"stub b \(1 thread\): found tiles \[1, 3, 2, 2\], expected \[2, 3, 2, 2\], those of stub a"
        with pytest.raises(Error, match=message):
            bench_preprocess.compare_pixels(subjects)


class TestReadingPixelsBack:
    def test_pixel_values_of_every_byte(self) -> None:
        pixels = np.resize(np.arange(256, dtype=np.uint8), (2, 3, 32, 32))
        rescaled = (pixels.astype(np.float64) * CONFIG.rescale_factor).astype(np.float32)
        values = (rescaled - np.float32(0.5)) / np.float32(0.5)
        assert np.array_equal(bytes_of_pixel_values(values, CONFIG), pixels)
        values[1, 2, 3, 4] = np.nextafter(values[1, 2, 3, 4], np.float32(2.0))
        with pytest.raises(BackendError, match="of bytes p"):
            bytes_of_pixel_values(values, CONFIG)

    def test_patch_rows_of_every_byte(self) -> None:
        size = ImageSize(30, 40)
        job = Job(noisy_pixels(30, 40, seed=1), plan_tiles(size, CONFIG, split=True), CONFIG, 16)
        pixels = np.random.default_rng(2).integers(0, 256, job.tiles_shape, np.uint8)
        rows = np.empty(job.rows_shape, np.uint16)
        for place in np.ndindex(*job.tiles_shape):
            tile, channel, y, x = place
            bits = np.float32(2.0 * pixels[place] - 255.0).view(np.uint32)
            rows[tile, y // 16 * 2 + x // 16, channel * 256 + y % 16 * 16 + x % 16] = bits >> 16
        assert np.array_equal(bytes_of_patch_rows(rows, job), pixels)
        rows[0, 1, 2] = np.float32(0.5).view(np.uint32) >> 16
        with pytest.raises(BackendError, match="of bytes p"):
            bytes_of_patch_rows(rows, job)


def test_pictures_are_the_same_every_time_and_of_any_size() -> None:
    picture = noisy_pixels(48, 64, seed=3)
    assert (picture.shape, picture.dtype) == ((48, 64, 3), np.uint8)
    assert np.array_equal(picture, noisy_pixels(48, 64, seed=3))
    assert not np.array_equal(picture, noisy_pixels(48, 64, seed=4))
    assert len(np.unique(picture)) > 100
    assert noisy_pixels(1, 1, seed=3).shape == (1, 1, 3)


def test_the_table_shows_medians_ends_and_ratios() -> None:
    size = ImageSize(1152, 1536)
    processing = bench_preprocess.read_processing()
    plan = plan_tiles(size, processing.config, split=True)

    def measured(name: str, title: str, milliseconds: float, **facts: Any) -> Measured:
        seconds = Spread(milliseconds / 1e3, milliseconds / 2e3, milliseconds / 5e2)
        first = Spread(milliseconds / 8e2, 0.0, 1.0)
        return Measured(name, title, facts.get("threads", 1), None, facts.get("equal"), seconds, first)

    report = Report(
        this_machine(),
        processing,
        20,
        {"Pillow": "13.0.0"},
        [Absent("opencv", "OpenCV", "install it")],
        [
            PictureReport(
                size,
                plan,
                [
                    measured("pillow_resizes", "Pillow, resizes alone", 60.0),
                    measured("transformers", "transformers, PIL processor", 180.0, equal=True),
                    measured("ours_rows", "ours, bf16 patch rows", 2.0, threads=2, equal=True),
                ],
            )
        ],
    )
    lines = bench_preprocess.to_text(report).splitlines()
    assert lines[2:7] == [
        "Pillow 13.0.0",
        "An RGB array becomes the input of SmolVLM-256M: longest edge 2048, tiles of 512, LANCZOS, "
        "patches of 16.",
        "Median of 20 turns, and the lowest and highest, of the last of several calls; first: of the",
        "first, with caches and clock as other subjects left them; x: how many times as fast by the median.",
        "Not measured: OpenCV. To prepare it: install it",
    ]
    assert lines[8] == (
        "1536x1152 -> 2048x1536: 12 tiles and the global one. Equal in every pixel: transformers, ours."
    )
    assert lines[10:16] == [
        "                                                       first  vs Pillow  vs trans-",
        "                             threads    ms   low-high     ms    resizes    formers",
        "---------------------------  -------  ----  ---------  -----  ---------  ---------",
        "Pillow, resizes alone              1  60.0   30.0-120   75.0      1.00x      3.00x",
        "transformers, PIL processor        1   180   90.0-360    225     0.333x      1.00x",
        "ours, bf16 patch rows              2  2.00  1.00-4.00   2.50      30.0x      90.0x",
    ]
