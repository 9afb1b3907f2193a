"""One picture of what `pocketvlm bench run` found, drawn from the content of its JSON."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketvlm.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# stage -> colour; told apart also by those who do not see red and green
_STAGES = {
    "start": "#f4f4f4",
    "load": "#bbbbbb",
    "warm-up": "#dddddd",
    "preprocess": "#ccbb44",
    "vision": "#4477aa",
    "prefill": "#ee6677",
    "decode": "#228833",
}
_LATENCY_STAGES = ("preprocess", "vision", "prefill", "decode")
_FORMATS = (".png", ".svg", ".pdf")


def require_matplotlib(path: Path) -> None:
    """Raises InputError for a kind of file that cannot be drawn, UnsupportedError without matplotlib."""
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: found {path.suffix or 'no ending'}, expected one of {', '.join(_FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise UnsupportedError("--plot needs matplotlib: pip install 'pocketvlm[bench]'")


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draws latency by stage, memory over time, and decode speed over context length into a file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    subjects = [subject for subject in report["subjects"].values() if subject["status"] == "ok"]
    # Inches; each subject has a bar in the first part and a panel in the second.
    heights = [1.4 + 0.42 * len(subjects), 1.0 + 1.15 * len(subjects), 3.6]
    figure = Figure(figsize=(11, 0.6 + sum(heights)), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    figure.suptitle(_title(report), fontsize=11)
    latency, memory, decode = figure.subfigures(3, 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_latency(latency.subplots(), subjects, report)
    _draw_memory(memory.subplots(len(subjects), 1, sharex=True, sharey=True, squeeze=False)[:, 0], subjects)
    memory.suptitle(
        "Resident memory of the process tree over time (last turn)", fontsize=10, x=0.01, ha="left"
    )
    _draw_decode(decode.subplots(), subjects)
    figure.savefig(path)


def _title(report: Mapping[str, Any]) -> str:
    machine, request = report["machine"], report["request"]
    images = ", ".join(f"{image['width']}x{image['height']}" for image in request["images"])
    turns = "one turn" if report["repeat"] == 1 else f"median of {report['repeat']} turns"
    return (
        f"{report['model']['name']}: image {images}, {request['new_tokens']} new tokens, {turns}\n"
        f"{machine['cpu']}, {machine['threads']} threads; pocketvlm {machine['pocketvlm']}"
    )


def _draw_latency(axes: Axes, subjects: Sequence[Mapping[str, Any]], report: Mapping[str, Any]) -> None:
    """Stacked bars, and the time to the first token written beside them."""
    images, tokens = len(report["request"]["images"]), report["request"]["new_tokens"]
    titles = [subject["title"] for subject in subjects]
    left = [0.0] * len(subjects)
    for stage in _LATENCY_STAGES:
        seconds = [_stage_seconds(subject, images, tokens)[stage] for subject in subjects]
        axes.barh(titles, seconds, left=left, color=_STAGES[stage], label=stage)
        left = [begin + more for begin, more in zip(left, seconds, strict=True)]
    for row, (subject, end) in enumerate(zip(subjects, left, strict=True)):
        first = subject["metrics"]["time_to_first_token_s"]["median"]
        axes.annotate(
            f"1st token {first:.2f} s", (end, row), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds for one image and its answer")
    axes.set_title("Latency by stage", fontsize=10, loc="left")
    axes.legend(
        ncols=len(_LATENCY_STAGES), loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False
    )
    axes.spines[["top", "right"]].set_visible(False)


def _stage_seconds(subject: Mapping[str, Any], images: int, new_tokens: int) -> dict[str, float]:
    metrics = {name: spread["median"] for name, spread in subject["metrics"].items()}
    return {
        "preprocess": metrics["preprocess_s"],
        "vision": metrics["vision_tile_s"] * subject["tiles"] / images,
        "prefill": subject["prompt_tokens"] / images / metrics["prefill_tokens_per_s"],
        "decode": (new_tokens - 1) / metrics["decode_tokens_per_s"],
    }


def _draw_memory(rows: Sequence[Axes], subjects: Sequence[Mapping[str, Any]]) -> None:
    """A curve for each subject, over bands of its stages."""
    from matplotlib.patches import Patch

    for axes, subject in zip(rows, subjects, strict=True):
        turn = subject["last_turn"]
        for span in turn["spans"]:
            axes.axvspan(span["start_s"], span["end_s"], color=_STAGES[span["name"]], alpha=0.6, linewidth=0)
        times = [sample["time_s"] for sample in turn["memory"]]
        megabytes = [sample["bytes"] / 1e6 for sample in turn["memory"]]
        axes.plot(times, megabytes, color="black", linewidth=1.2)
        peak = subject["metrics"]["peak_memory_bytes"]["median"] / 1e6
        axes.set_title(f"{subject['title']}: peak {peak:,.0f} MB", fontsize=9, loc="left", pad=2)
        axes.set_ylabel("MB", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    highest = max(sample["bytes"] / 1e6 for subject in subjects for sample in subject["last_turn"]["memory"])
    rows[0].set_ylim(0, 1.08 * highest)  # shared by all
    rows[0].set_xlim(left=0)
    rows[-1].set_xlabel("seconds since the process started")
    rows[-1].legend(
        handles=[Patch(color=color, alpha=0.6, label=stage) for stage, color in _STAGES.items()],
        ncols=len(_STAGES),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.45),
        fontsize=8,
        frameon=False,
    )


def _draw_decode(axes: Axes, subjects: Sequence[Mapping[str, Any]]) -> None:
    """Tokens per second after texts of several lengths; the measured answer is one more point."""
    for subject in subjects:
        points = [(point["context"], point["tokens_per_s"]) for point in subject["decode_by_context"]]
        if points:
            axes.plot(*zip(*sorted(points), strict=True), marker="o", markersize=4, label=subject["title"])
    axes.set_xlabel("tokens in the context")
    axes.set_ylabel("tokens per second")
    axes.set_title("Decode speed over context length", fontsize=10, loc="left")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
