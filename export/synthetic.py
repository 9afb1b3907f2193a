"""Synthetic checkpoints: complete Hugging Face folders of the true shape, without the trained values.

The configurations come from `model_files`, the values from `synthetic_weights`; here they go to disk.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..config import ModelConfig
from ..errors import InputError
from .model_files import SIZES, model_files
from .output_folder import output_folder
from .progress import OnProgress
from .safetensors_file import encode_header
from .synthetic_weights import synthetic_chunks
from .tensor_map import LM_HEAD, all_tensors

# Found by trying: the greedy answers of the tiny models to the prompts of tests/golden are varied, sure of
# every token by a wide margin, and change when tiles are swapped or positions shifted.
DEFAULT_SEED = 1785

# What --force may replace: the files of an earlier run.
_WRITTEN = ("*.json", "NOTICE", "model.safetensors")


def write_synthetic(
    size: str,
    out: str | Path,
    seed: int = DEFAULT_SEED,
    *,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Writes a checkpoint of made-up weights. The same size and seed give the same bytes everywhere.

    Beside the files of a checkpoint the folder holds synthetic.json: size, seed, sha256 of model.safetensors.

    Args:
        size: One of `SIZES`: "256m", "500m", "2.2b", "granite-docling", ..., and small twins, "tiny-...".
        out: The folder to write. It appears when it is complete.
        seed: Other seeds give other weights; the default gives lively tiny models.
        force: Replace an earlier checkpoint in `out`.
        on_progress: Called with ("weights", elements done, elements in total).

    Returns:
        The path of the folder.

    Raises:
        InputError: An unknown size, or `out` is there and `force` is not given.
        Error: The disk is full.
    """
    if size not in SIZES:
        raise InputError(f"size is {size!r}, expected one of {', '.join(SIZES)}")
    with output_folder(Path(out), force=force, replaceable=_WRITTEN) as folder:
        for name, content in model_files(size).items():
            (folder / name).write_bytes(content)
        sha256 = write_weights(folder, seed, on_progress)
        facts = {"size": size, "seed": seed, "sha256": sha256}
        (folder / "synthetic.json").write_text(json.dumps(facts, indent=2) + "\n")
    return Path(out)


def write_weights(folder: Path, seed: int, on_progress: OnProgress | None = None) -> str:
    """Writes model.safetensors with made-up weights for the config.json in `folder`; no head if it is tied.

    Returns:
        The sha256 of the file, hex.
    """
    config = ModelConfig.from_folder(folder)
    specs = sorted(all_tensors(config), key=lambda spec: spec.hf_name)
    if config.tie_word_embeddings:
        specs = [spec for spec in specs if spec.hf_name != LM_HEAD]
    total = sum(spec.num_elements for spec in specs)
    done = 0
    header = encode_header((spec.hf_name, "BF16", spec.shape) for spec in specs)
    digest = hashlib.sha256(header)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        for spec in specs:
            for chunk in synthetic_chunks(spec, seed, tied=config.tie_word_embeddings):
                data = chunk.astype("<u2", copy=False).tobytes()
                digest.update(data)
                file.write(data)
                done += chunk.size
                if on_progress is not None:
                    on_progress("weights", done, total)
    return digest.hexdigest()
