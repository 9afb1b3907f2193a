"""The report of `pocketvlm verify --quality`: plain values for JSON, and the tables made of them.

Tables are Markdown, aligned so that a terminal shows them as well; the one in a page of the repository stands
between two markers and is made anew from the report.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version
from PIL import features

from .. import __version__, _core
from ..demo_model.scenes import KINDS
from ..errors import FormatError
from ..gguf_files import find_model_files
from .markdown_page import markdown_table
from .quality import Outcome, Question, Subject

PAGE_PART = "quality"  # what the markers around the tables are called

Report = dict[str, Any]


def make_report(
    checkpoint: Path,
    model: Path,
    reference: Subject,
    questions: Sequence[Question],
    outcomes: Sequence[Outcome],
) -> Report:
    """Returns everything that was found as plain values.

    Args:
        checkpoint: What was examined.
        model: One export of it, for the identity of the weights.
        reference: What the others were held against.
        questions: All that were asked.
        outcomes: What came out, in the order of the tables.
    """
    pair = find_model_files(model)
    return {
        "checkpoint": checkpoint.resolve().name,
        "pair_id": _core.GgufFile(pair.text).require_string("pocketvlm.pair_id"),
        "pocketvlm": __version__,
        # What the pixels of the pictures depend on.
        "pillow": pillow_version,
        "freetype": features.version("freetype2"),
        "reference": {"type": reference.type, "isa": reference.isa},
        "subjects": [_entry(outcome, questions) for outcome in outcomes],
    }


def _entry(outcome: Outcome, questions: Sequence[Question]) -> Report:
    kinds = [question.kind for question in questions[: len(outcome.right)]]
    asked = Counter(kinds)
    right = Counter(kind for kind, is_right in zip(kinds, outcome.right, strict=True) if is_right)
    return {
        "type": outcome.subject.type,
        "isa": outcome.subject.isa,
        "outliers": outcome.subject.outliers,
        "asked": {kind: asked[kind] for kind in KINDS},
        "right": {kind: right[kind] for kind in KINDS},
        "wrong": [i for i, is_right in enumerate(outcome.right) if not is_right],
        "top1": outcome.top1,
        "kl_mean": outcome.kl_mean,
        "kl_max": outcome.kl_max,
    }


def read_report(path: Path) -> Report:
    """Reads what `write_report` wrote. Raises FormatError if it is something else."""
    try:
        report: Report = json.loads(path.read_text(encoding="utf-8"))
        to_markdown(report)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FormatError(f"{path}: cannot be read as a report of verify --quality: {error!r}") from error
    return report


def write_report(path: Path, report: Report) -> None:
    """Writes a report as JSON, a line for each subject."""
    facts = {name: value for name, value in report.items() if name != "subjects"}
    subjects = ",\n".join(f"  {json.dumps(subject)}" for subject in report["subjects"])
    head = json.dumps(facts, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "subjects": [\n{subjects}\n ]\n}}\n', encoding="utf-8")


def points(subject: Report, *, first: int | None = None) -> float:
    """Returns how many of the questions were answered right, of the `first` ones if given, in percent."""
    asked = sum(subject["asked"].values()) if first is None else first
    wrong = sum(i < asked for i in subject["wrong"])
    return float(100 * (asked - wrong) / asked)


def to_markdown(report: Report) -> str:
    """Returns the tables: types on the reference's row, the other rows, outlier twins."""
    subjects = report["subjects"]
    isa = report["reference"]["isa"]
    plain = [subject for subject in subjects if subject["outliers"] == 1]
    best = [subject for subject in plain if subject["isa"] == isa]
    parts = [_types_table(report, best)] if best else []
    if len(plain) > len(best):
        parts.append(_rows_table(plain, isa))
    if len(subjects) > len(plain):
        parts.append(_twins_table(subjects, isa))
    return "\n\n".join(parts)


def _types_table(report: Report, best: Sequence[Report]) -> str:
    rows = [
        [
            f"`{subject['type']}`",
            f"{points(subject):.1f}",
            *(_percent(subject["right"][kind], subject["asked"][kind]) for kind in KINDS),
            f"{100 * subject['top1']:.2f}",
            f"{subject['kl_mean']:.1e}",
        ]
        for subject in best
    ]
    asked = max(sum(subject["asked"].values()) for subject in best)
    caption = (
        f"Right answers in percent, to {asked:,} questions about pictures that training never saw, on the\n"
        f"kernels `{report['reference']['isa']}`. top-1 (percent) and KL (nats, mean) hold the next token\n"
        "against that of f32, over f32's answers:"
    )
    return f"{caption}\n\n{markdown_table(['weights', 'all', *KINDS, 'top-1', 'KL'], rows)}"


def _rows_table(plain: Sequence[Report], isa: str) -> str:
    """Differences, and those over the same questions: a slow row may have been asked fewer."""
    of_best = {subject["type"]: subject for subject in plain if subject["isa"] == isa}
    types = list(dict.fromkeys(subject["type"] for subject in plain))
    rows = []
    for row in dict.fromkeys(subject["isa"] for subject in plain):
        found = {subject["type"]: subject for subject in plain if subject["isa"] == row}
        # Reports of several runs may be put together.
        counts = sorted({sum(subject["asked"].values()) for subject in found.values()})
        cells = []
        for type in types:
            if type not in found or (row != isa and type not in of_best):
                cells.append("")
            elif row == isa:
                cells.append(f"{points(found[type]):.1f}")
            else:
                first = min(sum(subject["asked"].values()) for subject in (found[type], of_best[type]))
                cells.append(_signed(points(found[type], first=first) - points(of_best[type], first=first)))
        rows.append([f"`{row}`", " or ".join(f"{count:,}" for count in counts), *cells])
    caption = "Other kernels, as the difference in points from these over the same questions:"
    return f"{caption}\n\n{markdown_table(['kernels', 'questions', *(f'`{type}`' for type in types)], rows)}"


def _twins_table(subjects: Sequence[Report], isa: str) -> str:
    on_row = [subject for subject in subjects if subject["isa"] == isa]
    types = list(dict.fromkeys(subject["type"] for subject in on_row))
    rows = []
    for factor in dict.fromkeys(subject["outliers"] for subject in on_row):
        found = {subject["type"]: subject for subject in on_row if subject["outliers"] == factor}
        cells = [f"{points(found[type]):.1f}" if type in found else "" for type in types]
        rows.append(["none" if factor == 1 else f"{factor:g}x", *cells])
    caption = (
        "Right answers in percent when a few channels of every layer are made larger, and the weights\n"
        "that read them smaller by as much:"
    )
    return f"{caption}\n\n{markdown_table(['outliers', *(f'`{type}`' for type in types)], rows)}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""


def _signed(difference: float) -> str:
    return f"{difference:+.1f}" if abs(difference) >= 0.05 else "0.0"
