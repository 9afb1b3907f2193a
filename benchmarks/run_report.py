"""What `pocketvlm bench run` found, as a table for people and as JSON, whose schema is run.schema.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pocketvlm.config import ModelConfig
from pocketvlm.processor import ImageSize

from .ideal_times import Work, roof_fractions
from .machine import Machine
from .report import Spread, number, table
from .roofs import Roofs
from .subjects import Subject
from .turn import Question, Turn

SCHEMA = 1


@dataclass(frozen=True)
class Metric:
    """One figure of a turn."""

    heading: str
    divisor: float = 1.0
    higher_is_better: bool = False


# JSON has the metrics by these names; those with a heading are columns of the table.
METRICS = {
    "load_s": Metric("load\ns"),
    "preprocess_s": Metric("preprocess\ns"),
    "vision_tile_s": Metric("vision\ns/tile"),
    "prefill_tokens_per_s": Metric("prefill\ntok/s", higher_is_better=True),
    "time_to_first_token_s": Metric("1st token\ns"),
    "decode_tokens_per_s": Metric("decode\ntok/s", higher_is_better=True),
    "end_to_end_s": Metric("in all\ns"),
    "peak_memory_bytes": Metric("peak\nMB", 1e6),
    "peak_memory_high_water_bytes": Metric("high water\nMB", 1e6),
    "energy_j": Metric("energy\nJ"),
}
_MOST_SAMPLES = 300  # of memory over time, kept in JSON


@dataclass
class Result:
    """What came of one subject: turns; or why there are none."""

    subject: Subject
    turns: list[Turn] = field(default_factory=list)
    how_to_prepare: str | None = None  # it is absent
    error: str | None = None  # it failed

    @property
    def status(self) -> str:
        if self.error is not None:
            return "failed"
        return "absent" if self.how_to_prepare is not None else "ok"

    def spreads(self) -> dict[str, Spread]:
        """Returns metric -> its spread over the turns, of those that every turn has."""
        return {
            name: Spread.of([turn.metrics[name] for turn in self.turns])
            for name in METRICS
            if all(name in turn.metrics for turn in self.turns)
        }


@dataclass(frozen=True)
class Report:
    """All that one run of the command found."""

    machine: Machine
    model: str
    synthetic: bool
    config: ModelConfig
    question: Question
    images: list[tuple[str, ImageSize]]  # (name, size)
    repeat: int
    contexts: list[int]  # that decoding was measured at, roughly
    roofs: Roofs
    results: list[Result]

    @property
    def measured(self) -> list[Result]:
        return [result for result in self.results if result.status == "ok"]

    def roof_fractions(self, result: Result) -> dict[str, float]:
        """Returns metric -> how much of the roof the median reaches."""
        turn = result.turns[0]
        side = self.config.vision.image_size
        decoded = sum(3 * size.height * size.width for _, size in self.images)
        work = Work(
            config=self.config,
            images=len(self.images),
            image_bytes=decoded + 3 * side * side * turn.tiles,
            tiles=turn.tiles,
            prompt_tokens=turn.prompt_tokens,
            new_tokens=self.question.new_tokens,
        )
        medians = {name: spread.median for name, spread in result.spreads().items()}
        return roof_fractions(result.subject, medians, work, self.roofs)


def to_text(report: Report) -> str:
    """Lays out the table, what it is relative to ours, and what is missing."""
    parts = [_head(report)]
    if report.measured:
        parts.append(_figures(report))
        parts += _ratios(report)
    if report.measured and report.contexts:
        parts.append(_decode_by_context(report))
    if report.measured and not any("energy_j" in result.spreads() for result in report.measured):
        parts.append("Energy is not shown: this machine does not let RAPL's counters be read.")
    absent = [
        f"absent  {result.subject.title}: {result.how_to_prepare}"
        for result in report.results
        if result.status == "absent"
    ]
    failed = [
        f"failed  {result.subject.title}: {result.error}"
        for result in report.results
        if result.status == "failed"
    ]
    if absent or failed:
        parts.append("\n".join(absent + failed))
    return "\n\n".join(parts)


def _head(report: Report) -> str:
    roofs = report.roofs
    images = ", ".join(f"{name} {size.width}x{size.height}" for name, size in report.images)
    turns = (
        "one turn of each"
        if report.repeat == 1
        else f"median of {report.repeat} turns, below it lowest-highest"
    )
    return "\n".join(
        [
            report.machine.to_text(),
            f"Roofs on {report.machine.threads} threads: read {number(roofs.read_gb_s)} GB/s, "
            f"fp32 {number(roofs.fp32_gflop_s)} GFLOP/s, bf16 {number(roofs.bf16_gflop_s)} GFLOP/s, "
            f"int8 {number(roofs.int8_gop_s)} GOP/s",
            f"{report.model}; {images}; {report.question.new_tokens} new tokens; {turns},",
            "then the fraction of what the roofs allow (of the peak: how much of it the weights are)",
        ]
    )


def _figures(report: Report) -> str:
    columns = {
        name: metric
        for name, metric in METRICS.items()
        if any(name in result.spreads() for result in report.measured)
    }
    lines: list[list[str]] = []
    for result in report.measured:
        spreads, fractions = result.spreads(), report.roof_fractions(result)
        rows: list[list[str]] = [[result.subject.title], [""], [""]]
        for name, metric in columns.items():
            spread = spreads.get(name)
            if spread is None:
                cells = ["", "", ""]
            else:
                ends = (spread.min / metric.divisor, spread.max / metric.divisor)
                cells = [
                    number(spread.median / metric.divisor),
                    f"{number(ends[0])}-{number(ends[1])}",
                    f"{fractions[name]:.3f}" if name in fractions else "",
                ]
            for row, cell in zip(rows, cells, strict=True):
                row.append(cell)
        lines += [rows[0], *(rows[1:2] if report.repeat > 1 else []), rows[2]]
    return table(["", *(metric.heading for metric in columns.values())], lines)


def _ratios(report: Report) -> list[str]:
    """How all others compare with the first subject, and the peers with every further one of ours."""
    first, *others = report.measured
    peers = [other for other in others if other.subject.backend is None]
    parts = [_ratios_to(first, others)] if others else []
    if peers:
        parts += [_ratios_to(result, peers) for result in others if result.subject.backend is not None]
    return parts


def _ratios_to(first: Result, others: Sequence[Result]) -> str:
    """A table of how others compare with one: times as fast, times the memory."""
    names = [name for name in METRICS if name in first.spreads() and name != "peak_memory_high_water_bytes"]
    lines = []
    for other in others:
        ours, theirs = first.spreads(), other.spreads()
        cells = [
            number(
                ours[name].median / theirs[name].median
                if METRICS[name].higher_is_better
                else theirs[name].median / ours[name].median
            )
            if name in theirs
            else ""
            for name in names
        ]
        lines.append([other.subject.title, *cells])
    headings = [METRICS[name].heading.split("\n")[0] for name in names]
    return f"How much better {first.subject.title} is than ... (times as fast, times less memory):\n" + table(
        ["", *headings], lines
    )


def _decode_by_context(report: Report) -> str:
    rows = [
        [result.subject.title, *(number(rate) for _, rate in result.turns[-1].decode_by_context)]
        for result in report.measured
    ]
    headings = [f"{context:,}" for context in report.contexts]
    return "Decoding, tokens/s after texts of about so many tokens:\n" + table(["", *headings], rows)


def to_dict(report: Report) -> dict[str, Any]:
    """Returns the content of --json, as run.schema.json describes it."""
    return {
        "schema": SCHEMA,
        "measurement": "run",
        "machine": asdict(report.machine),
        "model": {"name": report.model, "synthetic": report.synthetic},
        "request": {
            "prompt": report.question.text,
            "images": [
                {"name": name, "height": size.height, "width": size.width} for name, size in report.images
            ],
            "new_tokens": report.question.new_tokens,
        },
        "repeat": report.repeat,
        "roofs": asdict(report.roofs),
        "subjects": {result.subject.name: _result(report, result) for result in report.results},
    }


def _result(report: Report, result: Result) -> dict[str, Any]:
    about: dict[str, Any] = {"status": result.status, "title": result.subject.title}
    if result.subject.backend is not None:
        about["backend"] = result.subject.backend
    if result.status == "absent":
        return about | {"how_to_prepare": result.how_to_prepare}
    if result.status == "failed":
        return about | {"error": result.error}
    last = result.turns[-1]
    start = last.spans[0].start
    return about | {
        "versions": last.versions,
        "arithmetic": result.subject.arithmetic,
        "tiles": last.tiles,
        "prompt_tokens": last.prompt_tokens,
        "metrics": {
            name: spread.to_dict() | {"values": [turn.metrics[name] for turn in result.turns]}
            for name, spread in result.spreads().items()
        },
        "roof_fractions": report.roof_fractions(result),
        "decode_by_context": [
            {"context": context, "tokens_per_s": rate} for context, rate in last.decode_by_context
        ],
        "last_turn": {
            "spans": [
                {"name": span.name, "start_s": span.start - start, "end_s": span.end - start}
                for span in last.spans
            ],
            "memory": [{"time_s": time - start, "bytes": bytes} for time, bytes in _thinned(last.memory)],
        },
    }


def _thinned(samples: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """At most about _MOST_SAMPLES samples: the largest of each stretch, so that peaks stay."""
    step = -(-len(samples) // _MOST_SAMPLES)
    return [max(samples[i : i + step], key=lambda sample: sample[1]) for i in range(0, len(samples), step)]
