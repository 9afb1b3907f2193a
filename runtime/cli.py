"""The command `pocketvlm`: arguments in, text or JSON out, errors as one line and an exit code.

Commands of the other packages are found in a table and imported when asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from . import __version__, _core, hub
from .backends import BACKENDS
from .engine import Model, load
from .errors import Error, InputError, UnsupportedError
from .image_modes import Tiles
from .onnx_names import SUFFIXES as ONNX_TYPES
from .processor import ImageSize
from .result import GenerationResult
from .sampling import SamplingKeywords
from .stream import Stream

DEFAULT_MODEL = "HuggingFaceTB/SmolVLM-256M-Instruct"
MODEL_HELP = (
    "exported folder, GGUF text file or the folder of a pair, folder of ONNX graphs, checkpoint folder, "
    f"hub id, or '{hub.DEMO_MODEL}', which is installed"
)

# command -> (module with add_commands(parser), help)
_COMMANDS_ELSEWHERE = {
    "export": ("pocketvlm.export.cli", "make a model folder from a checkpoint, or a synthetic checkpoint"),
    "convert": ("pocketvlm.export.convert_cli", "make other files of a model, in another type or format"),
    "bench": ("pocketvlm.benchmarks.cli", "measure speed and memory"),
    "demo": ("pocketvlm.demo_model.cli", "see a small model answer about a picture, without a network"),
    "verify": (
        "pocketvlm.export.verify",
        "hold models or types of weights against each other",
    ),
}

# command -> the one of its commands that is meant where none is named
_DEFAULT_COMMANDS = {"bench": "run"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0, 1 for an error, 2 for wrong usage (raised as SystemExit), 130 for Ctrl-C, 141 if the
        reader of the output went away.
    """
    arguments = _with_default_command(sys.argv[1:] if argv is None else list(argv))
    args = _parser(arguments).parse_args(arguments)
    try:
        exit_code: int = args.func(args)
        sys.stdout.flush()  # here, where a closed pipe is still ours to handle
        return exit_code
    except BrokenPipeError:
        # Python would flush once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Error as error:
        print(f"pocketvlm: error: {error}", file=sys.stderr)
        return 1


def _with_default_command(arguments: list[str]) -> list[str]:
    """Makes `bench run --synthetic 256m` of `bench --synthetic 256m`."""
    default = _DEFAULT_COMMANDS.get(arguments[0]) if arguments else None
    rest = arguments[1:]
    if default is None or (rest and (not rest[0].startswith("-") or rest[0] in ("-h", "--help"))):
        return arguments
    return [arguments[0], default, *rest]


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pocketvlm", description="SmolVLM on this computer's CPU.")
    parser.add_argument("--version", action="version", version=f"pocketvlm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_describe(commands.add_parser("describe", help="answer a question about images"))
    _add_info(commands.add_parser("info", help="show what this installation or a model offers"))
    for name, (module, help) in _COMMANDS_ELSEWHERE.items():
        elsewhere = commands.add_parser(name, help=help, description=help)
        if name in arguments[:1]:
            import_module(module).add_commands(elsewhere)
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        help=f"what runs the model: {', '.join(BACKENDS)} (native; onnx for a folder of ONNX graphs alone)",
    )
    parser.add_argument(
        "--type",
        choices=tuple(dict.fromkeys((*hub.TYPES, *ONNX_TYPES))),
        metavar="TYPE",
        help=f"what to convert checkpoints to: {', '.join(hub.TYPES)} ({hub.DEFAULT_TYPE}); "
        f"of ONNX graphs, which to open: {', '.join(ONNX_TYPES)}",
    )
    parser.add_argument(
        "--mmproj", metavar="FILE", help="projector of a GGUF text file (the one in the text file's folder)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads to compute with")
    parser.add_argument("--isa", metavar="ROW", help="kernels to use (POCKETVLM_ISA, else the best)")
    parser.add_argument(
        "--vision-compute",
        choices=("auto", "int8", "bf16"),
        default="auto",
        help="what the vision tower multiplies in (%(default)s: what is fastest without visible loss)",
    )
    parser.add_argument(
        "--vision-engine",
        choices=("native", "mtmd"),
        help="with --backend llama_cpp, what makes the image features: our tower (native) or llama.cpp's",
    )


def _add_describe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Answer a question about one or more images, printing the answer as it is made."
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image file")
    parser.add_argument("-p", "--prompt", help="question (a request to describe what is seen)")
    parser.add_argument(
        "-m",
        "--model",
        default=os.environ.get("POCKETVLM_MODEL") or None,
        help=f"{MODEL_HELP} (POCKETVLM_MODEL, else {DEFAULT_MODEL} from the hub or the cache)",
    )
    _add_model_arguments(parser)
    parser.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (%(default)s)"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before it; repeatable"
    )
    parser.add_argument("--ignore-eos", action="store_true", help="go on to --max-new-tokens")
    _add_image_mode_arguments(parser)
    _add_sampling_arguments(parser)
    parser.add_argument("--answers", type=int, default=1, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object when done")
    parser.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="with --json: how likely each token and the N likeliest were",
    )
    parser.add_argument("--stats", action="store_true", help="print times and memory to stderr")
    parser.set_defaults(func=_describe)


def _add_image_mode_arguments(parser: argparse.ArgumentParser) -> None:
    """Without any of them images are cut as the reference cuts them."""
    group = parser.add_argument_group("tiles")
    group.add_argument(
        "--tiles",
        type=_tiles,
        default="auto",
        metavar="auto|single|N",
        help="as the reference does; the whole image as one tile; or at most N tiles an image, with the "
        "global one, in a coarser grid: faster, less detail (%(default)s)",
    )
    group.add_argument("--no-split", action="store_true", help="the same as --tiles single")
    group.add_argument(
        "--no-upscale",
        action="store_true",
        help="enlarge small images to whole tiles alone, not to the longest edge that the model knows",
    )


def _tiles(text: str) -> Tiles:
    if text == "auto":
        return "auto"
    if text == "single":
        return "single"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}, expected auto, single or a number") from None


def _image_modes(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "tiles": args.tiles,
        "upscale": not args.no_upscale,
        "split_images": False if args.no_split else None,
    }


def _add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Names are llama.cpp's; without any of them the likeliest token is always taken."""
    group = parser.add_argument_group("sampling")
    number: dict[str, Any] = {"type": float, "metavar": "X"}
    group.add_argument(
        "--temperature", "--temp", **number, help="draw tokens at random: 1 as the model has it, 0 not"
    )
    group.add_argument("--top-k", type=int, metavar="N", help="from the N likeliest")
    group.add_argument("--top-p", **number, help="from the likeliest that make up this part of the whole")
    group.add_argument("--min-p", **number, help="from tokens this much as likely as the likeliest")
    group.add_argument("--repeat-penalty", **number, help="above 1: against tokens of prompt and answer")
    group.add_argument("--presence-penalty", **number, help="above 0: against tokens of the answer")
    group.add_argument("--frequency-penalty", **number, help="the same for each time that they are there")
    group.add_argument(
        "--logit-bias",
        action="append",
        default=[],
        type=_token_and_bias,
        metavar="TOKEN_ID(+/-)BIAS",
        help="make a token likelier (15043+1) or less so (15043-1, 15043-inf); repeatable",
    )
    group.add_argument("-s", "--seed", type=int, metavar="N", help="draw the same tokens every time")


def _token_and_bias(text: str) -> tuple[int, float]:
    match = re.fullmatch(r"(\d+)([+-](?:\d+\.?\d*|\.\d+|inf))", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a token id, + or -, and a number")
    return int(match[1]), float(match[2])


def _sampling(args: argparse.Namespace) -> SamplingKeywords:
    return {
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "min_p": args.min_p,
        "repetition_penalty": args.repeat_penalty,
        "presence_penalty": args.presence_penalty,
        "frequency_penalty": args.frequency_penalty,
        "logit_bias": dict(args.logit_bias),
        "seed": args.seed,
    }


def _describe(args: argparse.Namespace) -> int:
    if args.logprobs is not None and not args.json:
        raise InputError("--logprobs shows in --json alone")
    prompt = args.prompt
    if prompt is None:
        prompt = "Describe this image." if len(args.images) == 1 else "Describe these images."
    with _Progress() as progress:
        model = _load(args, args.model or _default_model(args), progress)
        options: dict[str, Any] = {
            "images": args.images,
            "max_new_tokens": args.max_new_tokens,
            "stop": args.stop,
            "ignore_eos": args.ignore_eos,
            "logprobs": args.logprobs,
            "on_progress": progress.update,
            **_image_modes(args),
            **_sampling(args),
        }
        if args.answers == 1:
            with model.stream(prompt, **options) as stream:
                _print_pieces(stream, progress, quiet=args.json)
            result = stream.result
        else:
            result = model.generate(prompt, n=args.answers, **options)
    if args.json:
        print(json.dumps(result.to_dict(), ensure_ascii=False))
    elif args.answers == 1:
        print()
    else:
        for i, answer in enumerate([result, *result.alternatives], 1):
            print(f"[{i}] {answer.text.lstrip()}")
    if args.stats:
        print(_statistics(result), file=sys.stderr)
    return 0


def _default_model(args: argparse.Namespace) -> str:
    """Returns the folder of the model to use if none is named; an error offers one that needs no network."""
    try:
        return str(hub.resolve(DEFAULT_MODEL, type=args.type or hub.DEFAULT_TYPE).folder)
    except Error as error:
        command = shlex.join(["pocketvlm", "describe", *args.images, "-m", hub.DEMO_MODEL])
        raise UnsupportedError(
            f"without -m the model is {error}. One for drawn shapes and signs alone is installed: {command}"
        ) from error


def _print_pieces(stream: Stream, progress: _Progress, *, quiet: bool) -> None:
    at_start = True
    for piece in stream:
        progress.close()
        if quiet:
            continue
        shown = piece.lstrip() if at_start else piece  # most answers begin with a space
        at_start = at_start and not shown
        print(shown, end="", flush=True)


def _statistics(result: GenerationResult) -> str:
    timings = result.timings
    tiles = f"{result.tiles} tiles"
    if result.tiles_saved:
        tiles += f", {result.tiles_saved} of them equal to another and not encoded again"
    return "\n".join(
        [
            f"prompt        {result.prompt_tokens} tokens, {result.image_tokens} for {tiles}",
            f"answer        {len(result.token_ids)} tokens, ended by {result.finish_reason}",
            f"load          {timings.load_s:8.3f} s",
            f"preprocess    {timings.preprocess_s:8.3f} s",
            f"vision        {timings.vision_s:8.3f} s",
            f"prefill       {timings.prefill_s:8.3f} s",
            f"decode        {timings.decode_s:8.3f} s, {timings.decode_tokens_per_s:.1f} tokens/s",
            f"first token   {timings.time_to_first_token_s:8.3f} s after the request",
            f"peak memory   {result.memory.peak_bytes / 1e6:8.1f} MB",
        ]
    )


def _add_info(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what this installation offers, or what a model is and takes."
    parser.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    _add_model_arguments(parser)
    parser.add_argument(
        "--image-size",
        type=_image_size,
        metavar="WIDTHxHEIGHT",
        help="tell what an image of this size would take: tiles, tokens, memory, arithmetic",
    )
    _add_image_mode_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(func=_info)


def _image_size(text: str) -> ImageSize:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}, expected width x height, such as 640x480")
    return ImageSize(height=int(match[2]), width=int(match[1]))


def _info(args: argparse.Namespace) -> int:
    if args.model is None and args.image_size is not None:
        raise InputError("what an image takes depends on the model: name one beside --image-size")
    if args.model is None:
        facts: dict[str, Any] = {
            "version": __version__,
            "cpu_features": _core.cpu_features(),
            "isas": _core.isas(),
            "threads": _core.default_threads(),
            "backends": list(BACKENDS),
            "cache_folder": str(hub.cache_folder()),
        }
    else:
        with _Progress() as progress:
            model = _load(args, args.model, progress)
            facts = model.info()
        if args.image_size is not None:
            height, width = args.image_size
            facts["image_plan"] = model.plan(height, width, **_image_modes(args)).to_dict()
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 0
    plan = facts.pop("image_plan", {})
    for name, value in [*facts.items(), *plan.items()]:
        print(f"{name:22}{_readable(name, value)}")
    return 0


def _readable(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB"
    if name == "num_parameters":
        return f"{value / 1e6:,.1f} million"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):  # a size, in the order of --image-size, or a grid
        return f"{value['width']}x{value['height']}" if "width" in value else _counts(value)
    if value is None:
        return "none"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{value} {name}" for name, value in values.items())


def _load(args: argparse.Namespace, source: str, progress: _Progress) -> Model:
    return load(
        source,
        backend=args.backend,
        type=args.type,
        mmproj=args.mmproj,
        threads=args.threads,
        isa=args.isa,
        vision_compute=args.vision_compute,
        vision_engine=args.vision_engine,
        on_progress=progress.update,
    )


_BAR_FORMAT = "{desc} {percentage:3.0f}% |{bar:24}| {elapsed}"


class _Progress(AbstractContextManager["_Progress"]):
    """One bar on stderr for the stage that runs, on a terminal only, gone when the stage is over."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm[Any] | None = None

    def update(self, stage: str, done: int, total: int) -> None:
        """Shows that `done` of `total` is done."""
        if stage == "decode":
            return  # the text shows how far it is
        if stage != self._stage:
            self.close()
            self._stage = stage
            # disable=None: shown if stderr is a terminal
            self._bar = tqdm(desc=stage, total=total, disable=None, leave=False, bar_format=_BAR_FORMAT)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done >= total:
                self.close()

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
