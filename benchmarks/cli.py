"""The `pocketvlm bench` command line; each measurement lives in its own module."""

from __future__ import annotations

import argparse

from . import (
    bench_kernels,
    bench_preprocess,
    bench_report,
    bench_run,
    bench_sweep,
    environments,
    memory,
    quality,
    sizes,
)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the bench commands below `parser`; each sets `func(args) -> exit code`."""
    commands = parser.add_subparsers(title="measurements", metavar="COMMAND", required=True)
    bench_run.add_arguments(
        commands.add_parser(
            "run",
            help="latency and memory of a model, beside its peers; what `pocketvlm bench` alone does",
            description="Measure a model stage by stage, each subject in turns and in a process of its own, "
            "and print a table with the spread and the fraction of what this machine's roofs allow.",
        )
    )
    bench_sweep.add_arguments(
        commands.add_parser(
            "sweep",
            help="how cost grows: with threads, image size and context length",
            description="Measure pocketvlm with each number of threads, for pictures of several sizes and "
            "after texts of several lengths, in turns, and print a table for each.",
        )
    )
    bench_report.add_arguments(
        commands.add_parser(
            "report",
            help="show a stored run once more",
            description="Print what `pocketvlm bench run --json` stored as a Markdown table, put it into a "
            "page, or draw it.",
        )
    )
    environments.add_arguments(
        commands.add_parser(
            "prepare",
            help="make the environments of the programs to compare with",
            description="Make a virtual environment for each peer, with the versions that are known to work, "
            "and show which are there. Those that are there stay.",
        )
    )
    memory.add_arguments(
        commands.add_parser(
            "memory",
            help="peak memory of one description, measured from outside",
            description="Run `pocketvlm describe` in a child process and measure its peak memory.",
        )
    )
    sizes.add_arguments(
        commands.add_parser(
            "sizes",
            help="peak memory and stage times of every size and type",
            description="Make a synthetic model of each size and type, describe a picture with each in child "
            "processes, and print a table of peak memory and the times of the stages.",
        )
    )
    quality.add_arguments(
        commands.add_parser(
            "quality",
            help="how far the types of weights are from f32",
            description="Export a model at f32 and other types, force f32's answer through each, and print "
            "how often they agree on the next token and how far their distributions are apart.",
        )
    )
    bench_preprocess.add_arguments(
        commands.add_parser(
            "preprocess",
            help="time from an image to the vision encoder's input, beside Pillow, transformers and OpenCV",
            description="Preprocess generated pictures of several sizes in turns with Pillow and NumPy, the "
            "PIL image processor of transformers, OpenCV and our own kernels, and print a table of times and "
            "ratios. First the pixels of all but OpenCV are compared: they must be equal.",
        )
    )
    bench_kernels.add_arguments(
        commands.add_parser(
            "kernels",
            help="speed of every kernel, as a fraction of what the machine can do",
            description="Measure what the processor can do at most, then call every kernel with the shapes "
            "of SmolVLM-256M on one thread and on several, and print times, GB/s, GOP/s and the fraction "
            "of the roof that bounds each.",
        )
    )


def main(argv: list[str] | None = None) -> int:
    """Run one bench command: its exit code. Errors are raised; `pocketvlm` prints them."""
    parser = argparse.ArgumentParser(prog="pocketvlm bench")
    add_commands(parser)
    args = parser.parse_args(argv)
    exit_code: int = args.func(args)
    return exit_code
