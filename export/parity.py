"""`pocketvlm verify --parity`: every backend in every type, over models of every variant, in one table.

The reference of each model is our own engine at f32. Ways to run it that compute in float32 throughout must
give its greedy tokens; for the others the table shows what they cost: right answers of the demo model, the
only one that was trained, and agreement of the next tokens. One model is loaded at a time, beside what the
reference made of every request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..demo_model.scenes import held_out
from ..engine import Model, load
from ..errors import UnsupportedError
from .comparison import Answered, Comparison, Request, answer, compare, show_error, summarize, trace
from .markdown_page import markdown_table
from .onnx.requirements import require_packages
from .quality import MAX_NEW_TOKENS, Exports
from .synthetic import write_synthetic

PAGE_PART = "parity"  # what the markers around the table are called

DEMO = "demo"
SYNTHETIC = (
    "tiny",
    "tiny-500m",
    "tiny-2.2b",
    "tiny-smolvlm2",
    "tiny-smolvlm2-2.2b",
    "tiny-smoldocling",
    "tiny-granite-docling",
)
# Of those that llama.cpp writes, one for each type that the core reads.
MIXTURES = ("q4_1", "q5_0", "q5_1", "iq4_nl", "q4_k_m", "q5_k_m", "q6_k")
ONNX_TYPES = ("fp32", "fp16", "int8", "q8", "q4")
# backend and vision_engine of `load`, on the GGUF pair
PAIR_BACKENDS = (("native", None), ("llama_cpp", "native"), ("llama_cpp", "mtmd"))

_SYNTHETIC_REQUESTS = 6
_SYNTHETIC_TOKENS = 64


@dataclass(frozen=True)
class Way:
    """One way to run a model."""

    variant: str
    backend: str
    vision_engine: str | None
    type: str

    def __str__(self) -> str:
        return (
            self.backend
            if self.vision_engine in (None, "native")
            else f"{self.backend}, {self.vision_engine}"
        )


@dataclass
class Finding:
    """How a way did.

    Attributes:
        way: Which.
        refused: Why it cannot run the model at all; None: it can.
        right: Right answers; None for a model that knows none.
        refusals: Requests that it refused.
        comparisons: With the reference, of the requests that it did not.
    """

    way: Way
    refused: str | None = None
    right: int | None = None
    refusals: int = 0
    comparisons: list[Comparison] = field(default_factory=list)


def plan_ways(types: Sequence[str]) -> list[Way]:
    """Returns what there is to examine: the demo model in all types, synthetic ones at float32."""
    ways = []
    for variant in (DEMO, *SYNTHETIC):
        of_pair = types if variant == DEMO else ("f32",)
        of_graphs = ONNX_TYPES if variant == DEMO else ("fp32",)
        ways += [
            Way(variant, backend, vision_engine, type)
            for backend, vision_engine in PAIR_BACKENDS
            for type in of_pair
            # Mixtures are of text models: with the tower of mtmd there is nothing new to see.
            if vision_engine != "mtmd" or type not in MIXTURES
        ]
        ways += [Way(variant, "onnx", None, type) for type in of_graphs]
    return ways


def examine_parity(
    checkpoint: Path,
    ways: Sequence[Way],
    *,
    examples: int,
    threads: int | None,
    work: Path,
    advance: Callable[[], object],
) -> list[Finding]:
    """Asks every way, and the reference of its model.

    Args:
        checkpoint: That of the demo model.
        ways: What to ask.
        examples: Questions to the demo model.
        threads: As in `load`.
        work: An empty folder, which the caller removes.
        advance: Called after each request to a way.

    Raises:
        Error: A model cannot be exported or run, other than by being unsupported.
    """
    findings = []
    for variant in dict.fromkeys(way.variant for way in ways):
        source = checkpoint
        if variant != DEMO:
            source = write_synthetic(variant, work / variant / "checkpoint")
        models = _Models(source, work / variant / "models", threads)
        count = examples if variant == DEMO else _SYNTHETIC_REQUESTS
        questions = _questions(models.reference(), count, trained=variant == DEMO)
        found = [Finding(way, right=0 if variant == DEMO else None) for way in ways if way.variant == variant]
        of_graphs = [finding.way.type for finding in found if finding.way.backend == "onnx"]
        for finding in found:
            try:
                model = models.open(finding.way, of_graphs)
            except UnsupportedError as error:
                finding.refused = str(error)
            else:
                _ask(model, finding, questions, advance)
        findings += found
    return findings


def requests_of(ways: Sequence[Way], examples: int) -> int:
    """Returns how often `examine_parity` will call `advance`, if no way is refused."""
    return sum(examples if way.variant == DEMO else _SYNTHETIC_REQUESTS for way in ways)


class _Models:
    """The models of a checkpoint, exported when they are first asked for."""

    def __init__(self, checkpoint: Path, work: Path, threads: int | None) -> None:
        work.mkdir(parents=True)
        self._checkpoint = checkpoint
        self._graphs = work / "onnx"
        self._exports = Exports(checkpoint, work)
        self._threads = threads

    def reference(self) -> Model:
        """Loads the reference."""
        return load(self._exports.model("f32", 1), threads=self._threads)

    def open(self, way: Way, types: Sequence[str]) -> Model:
        """Loads a way; `types` are those of all graphs that will be asked for. Raises UnsupportedError."""
        options: dict[str, Any] = {"backend": way.backend, "threads": self._threads}
        if way.backend != "onnx":
            folder = self._exports.model(way.type, 1)
            return load(folder, vision_engine=way.vision_engine, **options)
        if not self._graphs.exists():
            require_packages()
            from .onnx.export import export_onnx  # needs the packages

            export_onnx(self._checkpoint, self._graphs, types=list(types), threads=self._threads)
        return load(self._graphs, type=way.type, **options)


@dataclass(frozen=True)
class _Question:
    """A request, the reference's answer to it, and the right one."""

    request: Request
    answered: Answered
    text: str
    right: str


def _questions(reference: Model, examples: int, *, trained: bool) -> list[_Question]:
    """Lets the reference answer about drawn pictures; a model that knows no end goes on to the limit."""
    found = []
    for scene in held_out(examples):
        request = Request(scene.kind, scene.question, list(scene.images))
        limit = MAX_NEW_TOKENS if trained else _SYNTHETIC_TOKENS
        answered = answer(reference, request, max_new_tokens=limit, ignore_eos=not trained)
        text = _text(reference, request) if trained else ""
        found.append(_Question(request, answered, text, scene.answer))
    return found


def _ask(
    model: Model, finding: Finding, questions: Sequence[_Question], advance: Callable[[], object]
) -> None:
    for question in questions:
        request, answered = question.request, question.answered
        try:
            compared = compare(request, answered, trace(model, request, answered.token_ids))
        except UnsupportedError:
            finding.refusals += 1
        else:
            finding.comparisons.append(compared)
            if finding.right is not None:
                # Where no greedy token differs, the answer is the reference's.
                same = compared.agreement.first_other_token is None
                finding.right += (question.text if same else _text(model, request)) == question.right
        advance()


def _text(model: Model, request: Request) -> str:
    options: dict[str, Any] = {"images": request.images, "max_new_tokens": MAX_NEW_TOKENS}
    return model.generate(request.prompt, **options).text.strip()


def to_plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Returns findings as plain values for JSON."""
    return [
        {
            **asdict(found.way),
            "refused": found.refused,
            "requests": len(found.comparisons),
            "refusals": found.refusals,
            "right": found.right,
            **({"summary": asdict(summarize(found.comparisons))} if found.comparisons else {}),
        }
        for found in findings
    ]


def to_markdown(findings: Sequence[Finding]) -> str:
    """Returns the table, and under it what was refused and why."""
    headings = ["model", "backend", "type", "greedy equal", "right", "top-1", "KL", "pixels", "features"]
    table = markdown_table([*headings, "logits", "parts at"], [_row(found) for found in findings])
    refused = [
        f"- {found.way.variant}, {found.way}, `{found.way.type}`: {found.refused}"
        for found in findings
        if found.refused is not None
    ]
    return "\n\n".join([table, "\n".join(refused)]).strip()


def _row(found: Finding) -> list[str]:
    names = [found.way.variant, str(found.way), f"`{found.way.type}`"]
    if not found.comparisons:
        return [*names, "refused", *[""] * 7]
    whole = summarize(found.comparisons)
    refusals = f", {found.refusals} refused" if found.refusals else ""
    return [
        *names,
        f"{whole.same_greedy} of {whole.requests}{refusals}",
        "" if found.right is None else f"{100 * found.right / whole.requests:.1f}",
        f"{100 * whole.top1:.2f}",
        f"{whole.kl_mean:.1e}",
        show_error(whole.pixel_error),
        show_error(whole.feature_error),
        show_error(whole.logit_error),
        whole.parts_at or "nowhere",
    ]
