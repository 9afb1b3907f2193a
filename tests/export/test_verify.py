"""`pocketvlm verify --quality`: what is asked, what is counted, what stands in the tables, what is refused.

On the tiny model, which knows no right answer: how good the demo model is, tests/demo_model says.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import pocketvlm
from pocketvlm import _core, demo_model
from pocketvlm.demo_model.scenes import KINDS, held_out
from pocketvlm.errors import FormatError, InputError
from pocketvlm.export.quality import (
    Examinee,
    Outcome,
    Question,
    Reference,
    Subject,
    ask,
    ask_reference,
    prepare_questions,
)
from pocketvlm.export.quality_report import (
    Report,
    make_report,
    points,
    read_report,
    to_markdown,
    write_report,
)
from pocketvlm.export.verify import demo_checkpoint, plan_subjects

COUNT = len(KINDS)
ISAS = _core.isas()
F32 = Subject("f32", ISAS[0])
BEGIN, END = "<!-- quality -->", "<!-- /quality -->"


def nothing() -> None:
    """In the place of a progress bar."""


@pytest.fixture(scope="module")
def pool() -> _core.ThreadPool:
    return _core.ThreadPool(2)


@pytest.fixture(scope="module")
def questions(tiny_f32: Path, pool: _core.ThreadPool) -> list[Question]:
    return list(prepare_questions(tiny_f32, COUNT, pool))


@pytest.fixture(scope="module")
def references(tiny_f32: Path, questions: list[Question], pool: _core.ThreadPool) -> list[Reference]:
    return ask_reference(Examinee(tiny_f32, ISAS[0], pool), questions, nothing)


class TestExamination:
    def test_one_question_of_each_kind(self, questions: list[Question]) -> None:
        assert [question.kind for question in questions] == list(KINDS)
        assert [question.answer for question in questions] == [example.answer for example in held_out(COUNT)]

    @pytest.mark.parametrize("type", ["f32", "q8_0"])
    def test_answers_are_those_of_the_public_api(
        self,
        type: str,
        request: pytest.FixtureRequest,
        questions: list[Question],
        references: list[Reference],
        pool: _core.ThreadPool,
    ) -> None:
        """Prompts, tiles, stop tokens and text, by another way; also where an answer is used again."""
        folder: Path = request.getfixturevalue(f"tiny_{type}")
        model = pocketvlm.load(folder, isa=ISAS[0])
        expected = [
            model.generate(example.question, images=example.images, max_new_tokens=96).text.strip()
            for example in held_out(COUNT)
        ]
        examinee = Examinee(folder, ISAS[0], pool)
        outcome = ask(examinee, Subject(type, ISAS[0]), questions, references, nothing)
        assert outcome.answers == expected
        assert any(expected)

    def test_right_is_what_equals_the_answer(
        self,
        tiny_f32: Path,
        questions: list[Question],
        references: list[Reference],
        pool: _core.ThreadPool,
    ) -> None:
        examinee = Examinee(tiny_f32, ISAS[0], pool)
        answers = ask(examinee, F32, questions, references, nothing).answers
        known = [
            replace(question, answer=answer) for question, answer in zip(questions, answers, strict=True)
        ]
        known[1] = replace(known[1], answer=f"{answers[1]}!")
        outcome = ask(examinee, F32, known, references, nothing)
        assert outcome.right == [i != 1 for i in range(COUNT)]

    def test_the_reference_agrees_with_itself_and_a_type_less_so(
        self,
        tiny_f32: Path,
        tiny_q8_0: Path,
        questions: list[Question],
        references: list[Reference],
        pool: _core.ThreadPool,
    ) -> None:
        itself, other = (
            ask(Examinee(folder, ISAS[0], pool), F32, questions, references, nothing)
            for folder in (tiny_f32, tiny_q8_0)
        )
        assert (itself.top1, itself.kl_mean, itself.kl_max) == (1.0, 0.0, 0.0)
        assert other.top1 <= 1
        assert 0 < other.kl_mean < other.kl_max

    def test_progress_is_told_for_every_question(
        self, tiny_f32: Path, questions: list[Question], pool: _core.ThreadPool
    ) -> None:
        counter = itertools.count()
        ask_reference(Examinee(tiny_f32, ISAS[0], pool), questions[:2], lambda: next(counter))
        assert next(counter) == 2

    def test_twins_are_examined_on_the_first_row_alone(self) -> None:
        assert plan_subjects(["f32", "q8_0"], ["avx2", "scalar"], [1, 20]) == [
            *(Subject("f32", "avx2"), Subject("q8_0", "avx2")),
            *(Subject("f32", "scalar"), Subject("q8_0", "scalar")),
            *(Subject("f32", "avx2", 20), Subject("q8_0", "avx2", 20)),
        ]


def outcome(subject: Subject, right: str, *, top1: float = 1.0, kl: float = 0.0) -> Outcome:
    """An outcome in which "+" is a right answer."""
    return Outcome(subject, [""] * len(right), [sign == "+" for sign in right], top1, kl, kl)


@pytest.fixture
def report(tiny_f32: Path, questions: list[Question]) -> Report:
    """Two rows and a twin; the second row was asked but half of the questions."""
    best, slow = Subject("f32", "avx2"), Subject("f32", "scalar")
    outcomes = [
        outcome(best, "+++--+"),
        outcome(Subject("q8_0", "avx2"), "++-+-+", top1=0.875, kl=0.25),
        outcome(slow, "++-"),
        outcome(Subject("q8_0", "scalar"), "++-"),
        outcome(Subject("q8_0", "avx2", 20), "------", kl=1.0),
    ]
    return make_report(tiny_f32, tiny_f32, best, questions, outcomes)


TABLES = """\
Right answers in percent, to 6 questions about pictures that training never saw, on the
kernels `avx2`. top-1 (percent) and KL (nats, mean) hold the next token
against that of f32, over f32's answers:

| weights |  all | describe |  sign | count | colour | where | change |  top-1 |      KL |
| ------- | ---: | -------: | ----: | ----: | -----: | ----: | -----: | -----: | ------: |
| `f32`   | 66.7 |    100.0 | 100.0 | 100.0 |    0.0 |   0.0 |  100.0 | 100.00 | 0.0e+00 |
| `q8_0`  | 66.7 |    100.0 | 100.0 |   0.0 |  100.0 |   0.0 |  100.0 |  87.50 | 2.5e-01 |

Other kernels, as the difference in points from these over the same questions:

| kernels  | questions | `f32` | `q8_0` |
| -------- | --------: | ----: | -----: |
| `avx2`   |         6 |  66.7 |   66.7 |
| `scalar` |         3 | -33.3 |    0.0 |

Right answers in percent when a few channels of every layer are made larger, and the weights
that read them smaller by as much:

| outliers | `f32` | `q8_0` |
| -------- | ----: | -----: |
| none     |  66.7 |   66.7 |
| 20x      |       |    0.0 |"""


class TestReport:
    def test_the_tables(self, report: Report) -> None:
        assert to_markdown(report) == TABLES

    def test_points_of_the_first_questions(self, report: Report) -> None:
        subject = report["subjects"][0]
        assert (points(subject), points(subject, first=4)) == (pytest.approx(100 * 4 / 6), 75.0)

    def test_the_facts(self, report: Report, tiny_f32: Path) -> None:
        (text,) = (path for path in tiny_f32.glob("*.gguf") if not path.name.startswith("mmproj"))
        assert report["pair_id"] == _core.GgufFile(text).require_string("pocketvlm.pair_id")
        assert report["reference"] == {"type": "f32", "isa": "avx2"}
        assert report["subjects"][2]["asked"] == dict.fromkeys(KINDS, 0) | dict.fromkeys(KINDS[:3], 1)
        assert report["subjects"][2]["right"] == dict.fromkeys(KINDS, 0) | dict.fromkeys(KINDS[:2], 1)
        assert report["subjects"][2]["wrong"] == [2]

    def test_what_is_written_is_read(self, report: Report, tmp_path: Path) -> None:
        path = tmp_path / "report.json"
        write_report(path, report)
        assert read_report(path) == report
        assert len(path.read_text().splitlines()) == 14 + len(report["subjects"]) - 1

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"subjects": [1], "reference": {"isa": "avx2"}}'])
    def test_something_else_is_not_a_report(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "report.json"
        path.write_text(content)
        with pytest.raises(FormatError, match=r"report\.json: cannot be read as a report"):
            read_report(path)


def verify(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pocketvlm", "verify", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, env=os.environ)


class TestCommand:
    def test_examines_and_puts_the_findings_where_they_are_wanted(
        self, tiny_checkpoint: Path, tmp_path: Path
    ) -> None:
        page, out = tmp_path / "page.md", tmp_path / "out.json"
        page.write_text(f"{BEGIN}\n{END}\n")
        isas = ",".join(ISAS[:1] + ISAS[-1:])
        size = ["--examples", "3", "--scalar-examples", "1", "--isas", isas]
        what = ["--types", "q8_0,q4_0/q8_0", "--outliers", "1,20"]
        files = ["--json", out, "--markdown", page]
        finished = verify("--quality", tiny_checkpoint, *size, *what, *files, folder=tmp_path)
        assert (finished.returncode, finished.stderr) == (0, "")
        report = json.loads(out.read_text())
        found = [(s["type"], s["isa"], s["outliers"], sum(s["asked"].values())) for s in report["subjects"]]
        first, last = ISAS[0], ISAS[-1]
        asked_first, asked_last = (1 if isa == "scalar" else 3 for isa in (first, last))
        rows = [(first, 1, asked_first), (last, 1, asked_last), (first, 20, asked_first)]
        assert found == [(type, *row) for row in rows for type in ("q8_0", "q4_0/q8_0")]
        assert report["reference"] == {"type": "f32", "isa": first}
        kl = {(s["type"], s["isa"], s["outliers"]): s["kl_mean"] for s in report["subjects"]}
        assert 0 < kl["q8_0", first, 1] < kl["q4_0/q8_0", first, 1]

        assert finished.stdout == to_markdown(report) + "\n"
        assert page.read_text() == f"{BEGIN}\n{to_markdown(report)}\n{END}\n"
        again = verify("--quality", "--from", out, folder=tmp_path)
        assert again.stdout == finished.stdout

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--types", "f32,q9"], "--types: found 'q9', expected some of f32,f16,bf16,q8_0,q4_0"),
            (["--types", "q8_0/"], "--types: found ''"),
            (["--isas", "sse"], "--isas: found 'sse', expected some of"),
            (["--json", "missing/out.json"], "missing/out.json: cannot be written"),
            (["--markdown", "missing.md"], "missing.md: there is no such file"),
            (["--markdown", "page.md"], "page.md: expected one line <!-- quality -->"),
            (["--from", "page.md"], "page.md: cannot be read as a report"),
        ],
    )
    def test_what_cannot_be_is_said_before_anything_is_asked(
        self, arguments: list[str], message: str, tmp_path: Path
    ) -> None:
        (tmp_path / "page.md").write_text("no markers")
        finished = verify("--quality", "no-such-checkpoint", *arguments, folder=tmp_path)
        assert finished.returncode == 1
        assert finished.stderr.startswith(f"pocketvlm: error: {message}")
        assert len(finished.stderr.splitlines()) == 1

    @pytest.mark.parametrize("factors", ["0", "-1", "nan", "inf", "1,x", ""])
    def test_factors_are_positive_numbers(self, factors: str, tmp_path: Path) -> None:
        finished = verify("--quality", f"--outliers={factors}", folder=tmp_path)
        assert finished.returncode == 2
        assert "argument --outliers" in finished.stderr

    def test_a_folder_that_is_no_checkpoint(self, tmp_path: Path) -> None:
        finished = verify("--quality", tmp_path, folder=tmp_path)
        assert finished.returncode == 1
        assert len(finished.stderr.splitlines()) == 1

    def test_without_a_checkpoint_it_says_where_there_is_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(demo_model, "__file__", str(tmp_path / "__init__.py"))
        with pytest.raises(InputError, match="Run this in a clone of pocketvlm's repository"):
            demo_checkpoint()
        inside = Path("examples") / "demo_model" / "checkpoint"
        inside.mkdir(parents=True)
        assert demo_checkpoint() == inside
