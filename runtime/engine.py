"""Load a model and ask it about images: the page to start reading on.

`load` finds the files (`hub`) and opens them in a backend (`backends`). A request is read and planned
(`messages`, `images`, `processor`), then run: images to tiles, tiles to features, prompt and features to
tokens, tokens to text. The computing is done below, in `backends`; here is what a person can choose.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from PIL import Image

from . import _core
from .arguments import read_integer, read_strings
from .backends import (
    Backend,
    Files,
    Generated,
    ProgressCallback,
    default_backend,
    find_files,
    open_backend,
    require_backend,
)
from .camera_frame import CameraFrame
from .config import ModelConfig
from .errors import Cancelled, ContextLengthError, FormatError, InputError
from .image_cache import DEFAULT_CACHE_BYTES, ImageCache
from .image_encoder import ImageEncoder
from .image_modes import ImageModes, Tiles, read_image_modes
from .image_plan import ImagePlan, cost_of
from .images import DEFAULT_PIXEL_LIMIT, ImageSource, LoadedImage, check_image_size, load_image
from .memory import peak_resident_bytes
from .messages import ImagePart, MessageDict, parse_messages
from .processor import ImageSize, Processor, TilePlan
from .result import GenerationResult, Memory, Timings
from .sampling import SamplingKeywords, SamplingOptions, read_sampling
from .stream import Stream
from .text_assembler import AnswerText
from .trace import Trace


def load(
    source: str | os.PathLike[str],
    *,
    backend: str | None = None,
    type: str | None = None,
    mmproj: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    isa: str | None = None,
    vision_compute: str = "auto",
    vision_engine: str | None = None,
    pixel_limit: int = DEFAULT_PIXEL_LIMIT,
    image_cache_bytes: int = DEFAULT_CACHE_BYTES,
    on_progress: ProgressCallback | None = None,
) -> Model:
    """Loads a model.

    Args:
        source: The folder of an exported model; a pair of GGUF files with nothing beside them, as llama.cpp's
            converter makes it: its folder or its text file; a folder of ONNX graphs; the folder of a Hugging
            Face checkpoint; a hub id; or "demo", the small model that comes with the package. Checkpoints are
            converted once, into a cache (`POCKETVLM_CACHE` names another folder for it).
        backend: "native": our own engine. "onnx": onnxruntime, on a folder of ONNX graphs in the form of
            `pocketvlm export onnx`, or on those of a hub id; needs the extra `onnx`. "llama_cpp": llama.cpp,
            on what the native backend takes; needs the extra `llama`. By default "onnx" where a folder has
            graphs and no other weights, else "native".
        type: For "native" and "llama_cpp", what to convert a checkpoint to: "q8_0", the default, "q4_0",
            "bf16", "f16" or "f32"; an exported model keeps the type it has. For "onnx", which files of the
            folder to open: "int8", "q4", "fp32" and so on; by default the first there of those that run well.
        mmproj: The projector file that goes with a GGUF text file; by default the one in its folder.
        threads: Threads to compute with; by default as many as this process may use.
        isa: The row of kernels to use; by default `POCKETVLM_ISA`, else the best for this CPU.
        vision_compute: What the vision tower multiplies in. "auto": what the kernels do fastest with the
            weights' type, without visible loss; "int8": weights of q8_0 and q4_0 in int8, activations
            rounded to it in blocks of 32; "bf16": everything in bfloat16, with sums in float32, where the
            kernels have it. `Model.info()` says what it came to.
        vision_engine: Of backend "llama_cpp", what makes the image features: "native", the default, our
            preprocessing and tower, or "mtmd", llama.cpp's own.
        pixel_limit: The most pixels to accept in one image.
        image_cache_bytes: How much to hold of image features at most, so that an image that comes again, as
            in a conversation, is not encoded again. The answers are the same; 0: none.
        on_progress: Called as `on_progress(stage, done, total)` while weights are read.

    Raises:
        InputError: There is no such model, or an argument makes no sense.
        FormatError: A file is missing, damaged, or does not belong to the others.
        UnsupportedError: An architecture, backend or ISA that is not there, or an unreachable hub.
        OutOfBudgetError: The model does not fit the memory this process may use.
    """
    backend = default_backend(source) if backend is None else backend
    require_backend(backend)
    num_threads = (
        read_integer("threads", threads, at_least=1) if threads is not None else _core.default_threads()
    )
    pixel_limit = read_integer("pixel_limit", pixel_limit, at_least=1)
    image_cache = ImageCache(read_integer("image_cache_bytes", image_cache_bytes, at_least=0))
    files = find_files(backend, source, type, mmproj)

    started = time.perf_counter()
    config, processor = files.describe()
    _require_match(config, processor, files.folder)
    pool = _core.ThreadPool(num_threads)
    opened = open_backend(
        backend,
        files,
        config,
        pool=pool,
        isa=isa,
        vision_compute=vision_compute,
        vision_engine=vision_engine,
        on_progress=on_progress,
    )
    load_s = time.perf_counter() - started
    return Model(
        files,
        config,
        processor,
        opened,
        pool,
        image_cache,
        backend_name=backend,
        pixel_limit=pixel_limit,
        load_s=load_s,
    )


@dataclass(frozen=True)
class _Request:
    """A call that was read, checked and planned; nothing has been computed."""

    started: float  # time.perf_counter() of the call
    pixels: list[LoadedImage]
    digests: list[bytes]  # of the pixels
    plans: list[TilePlan]
    token_ids: list[int]
    max_new_tokens: int
    stop: tuple[str, ...]
    ignore_eos: bool
    sampling: SamplingOptions
    n: int
    logprobs: int | None
    on_progress: ProgressCallback | None
    prepare_s: float


class Model:
    """A loaded model, made by `load`.

    May be used from several threads: generations wait for each other, one runs at a time.
    """

    def __init__(
        self,
        files: Files,
        config: ModelConfig,
        processor: Processor,
        backend: Backend,
        pool: _core.ThreadPool,
        image_cache: ImageCache,
        *,
        backend_name: str,
        pixel_limit: int,
        load_s: float,
    ) -> None:
        self.config = config
        self._files = files
        self._processor = processor
        self._backend = backend
        self._pool = pool
        self._images = ImageEncoder(backend, config, processor, pool, image_cache)
        self._backend_name = backend_name
        self._pixel_limit = pixel_limit
        self._load_s = load_s
        self._running = threading.Lock()

    def generate(
        self,
        prompt: str | Sequence[MessageDict],
        *,
        images: ImageSource | Sequence[ImageSource] = (),
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        ignore_eos: bool = False,
        tiles: Tiles = "auto",
        upscale: bool = True,
        split_images: bool | None = None,
        n: int = 1,
        logprobs: int | None = None,
        on_progress: ProgressCallback | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> GenerationResult:
        """Answers a prompt, greedily unless a temperature is given.

        Args:
            prompt: A question, asked about all of `images`; or a conversation, as messages in the form of
                transformers or of the OpenAI API.
            images: Paths, bytes, PIL images, uint8 arrays ([H, W, 3], also [H, W, 4] with alpha or [H, W]) or
                camera frames; for a conversation, one for every `{"type": "image"}` that does not carry its
                own. Arrays and frames are read in place, and must not change meanwhile.
            max_new_tokens: The most tokens to answer with.
            stop: Strings to end before. They are looked for here, in the text, whatever tokens it came in.
            ignore_eos: Whether to go on after the tokens that end an answer, up to `max_new_tokens`.
            tiles: How many tiles to look at for each image: more detail, more time. "auto": as the reference
                does. "single": one, the whole image. A number: at most so many, the global one included;
                an image that takes more is cut into a coarser grid of its proportions.
            upscale: Whether to enlarge small images to many tiles, as the reference does. False: to no more
                than whole tiles, so that a small image takes few.
            split_images: False is tiles="single"; True splits even where the checkpoint says not to.
            n: How many answers; images and prompt are read once. The result is the first, with the others as
                its `alternatives`. More than one takes a temperature.
            logprobs: Tell in the result how likely each token was, and this many of the likeliest.
            on_progress: Called as `on_progress(stage, done, total)`: distinct tiles for "vision", positions
                of the prompt for "prefill", tokens of an answer for "decode".
            **sampling: `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `presence_penalty`,
                `frequency_penalty`, `logit_bias` and `seed`, as `sampling.SamplingOptions` has them. With a
                temperature and no `seed` every call answers anew.

        Raises:
            InputError: An image, a message or an argument that cannot be used.
            ContextLengthError: The prompt does not fit the context; raised before any image is encoded.
            OutOfBudgetError: The work does not fit the memory this process may use.
            KeyboardInterrupt: Ctrl-C, within a layer's time. The model can be used again.
        """
        modes = read_image_modes(tiles=tiles, upscale=upscale, split_images=split_images)
        request = self._prepare(
            prompt, images, max_new_tokens, stop, ignore_eos, modes, n, logprobs, on_progress, sampling
        )
        return self._run(request, _core.StopFlag(), lambda piece: None)

    def stream(
        self,
        prompt: str | Sequence[MessageDict],
        *,
        images: ImageSource | Sequence[ImageSource] = (),
        max_new_tokens: int = 256,
        stop: str | Sequence[str] = (),
        ignore_eos: bool = False,
        tiles: Tiles = "auto",
        upscale: bool = True,
        split_images: bool | None = None,
        logprobs: int | None = None,
        on_progress: ProgressCallback | None = None,
        **sampling: Unpack[SamplingKeywords],
    ) -> Stream:
        """As `generate`, but returns an iterator over pieces of the one text, with `.result` at its end.

        The request is checked before this returns; a thread does the computing and calls `on_progress`.
        """
        modes = read_image_modes(tiles=tiles, upscale=upscale, split_images=split_images)
        request = self._prepare(
            prompt, images, max_new_tokens, stop, ignore_eos, modes, 1, logprobs, on_progress, sampling
        )
        return Stream(lambda stop_flag, emit: self._run(request, stop_flag, emit))

    def plan(
        self,
        height: int,
        width: int,
        *,
        tiles: Tiles = "auto",
        upscale: bool = True,
        split_images: bool | None = None,
    ) -> ImagePlan:
        """Returns what an image of this size will take: tiles, image tokens, bytes, GFLOP. Computes nothing.

        Args:
            height: Pixels, after any EXIF orientation.
            width: Pixels.
            tiles: As in `generate`, with `upscale` and `split_images`.
            upscale: See there.
            split_images: See there.

        Raises:
            InputError: An image of this size, or the modes, would be refused.
        """
        modes = read_image_modes(tiles=tiles, upscale=upscale, split_images=split_images)
        height = read_integer("height", height, at_least=1)
        width = read_integer("width", width, at_least=1)
        check_image_size(width, height, "image", self._pixel_limit)
        size, config = ImageSize(height, width), self._processor.config
        plan = modes.plan(size, config)
        return cost_of(
            size, plan, config, self.config, layout=self._backend.tile_layout, threads=self._pool.num_threads
        )

    def trace(
        self,
        prompt: str | Sequence[MessageDict],
        *,
        images: ImageSource | Sequence[ImageSource] = (),
        continuation: Sequence[int] = (),
    ) -> Trace:
        """Returns what each stage makes of a prompt, and of tokens forced behind it: for comparing models.

        Raises:
            InputError, ContextLengthError, OutOfBudgetError: As `generate`.
        """
        modes = read_image_modes(tiles="auto", upscale=True, split_images=None)
        new_tokens = len(continuation) + 1
        request = self._prepare(prompt, images, new_tokens, (), True, modes, 1, None, None, {})
        room = self.config.text.max_position_embeddings
        if len(request.token_ids) + len(continuation) > room:
            raise ContextLengthError(
                f"prompt and continuation take {len(request.token_ids)} + {len(continuation)} tokens, "
                f"the context holds {room}"
            )
        stop_flag = _core.StopFlag()
        with self._running:
            token_ids, patches = self._images.trace(request.token_ids, request.pixels, request.plans)
            encoded = self._images.encode(request.pixels, request.digests, request.plans, stop=stop_flag)
            logits = self._backend.step_logits(
                request.token_ids, encoded.features, continuation, stop=stop_flag
            )
        return Trace(token_ids, patches, encoded.features, logits)

    def clear_image_cache(self) -> None:
        """Forgets the features of images that were encoded before; waits for a generation that runs."""
        with self._running:
            self._images.cache.clear()

    def info(self) -> dict[str, Any]:
        """Returns what this model is and how it runs, as plain values for JSON."""
        text_config = self.config.text
        return {
            "folder": str(self._files.folder),
            **self._files.info(),
            "backend": self._backend_name,
            "threads": self._pool.num_threads,
            **self._backend.info(),
            "context_length": text_config.max_position_embeddings,
            "tile_size": self._processor.config.tile_size,
            "image_tokens_per_tile": self._processor.config.image_seq_len,
            "image_cache_bytes": self._images.cache.nbytes,
            "load_s": self._load_s,
            "peak_bytes": peak_resident_bytes(),
        }

    def _prepare(
        self,
        prompt: str | Sequence[MessageDict],
        images: ImageSource | Sequence[ImageSource],
        max_new_tokens: int,
        stop: str | Sequence[str],
        ignore_eos: bool,
        modes: ImageModes,
        n: int,
        logprobs: int | None,
        on_progress: ProgressCallback | None,
        sampling: SamplingKeywords,
    ) -> _Request:
        started = time.perf_counter()
        max_new_tokens = read_integer("max_new_tokens", max_new_tokens, at_least=1)
        n = read_integer("n", n, at_least=1)
        if logprobs is not None:
            logprobs = read_integer("logprobs", logprobs, at_least=0, at_most=self.config.text.vocab_size)
        sampling_options = read_sampling(sampling)
        sampling_options.for_core(self.config.text.vocab_size)  # refuses here what would be refused later
        if n > 1 and sampling_options.temperature == 0:
            raise InputError(f"n is {n}, but without a temperature all answers would be the same")
        stop = read_strings("stop", stop)
        messages = parse_messages(prompt, _list_of_images(images))
        parts = [part for message in messages for part in message.content]
        sources = [part.image for part in parts if isinstance(part, ImagePart)]
        pixels = [
            load_image(source, name=f"image {i}", pixel_limit=self._pixel_limit)
            for i, source in enumerate(sources, 1)
        ]

        digests = [self._images.digest(*image) for image in zip(sources, pixels, strict=True)]

        processor_config = self._processor.config
        plans = [modes.plan(ImageSize(*array.shape[:2]), processor_config) for array in pixels]
        token_ids = self._processor.encode(messages, plans)
        context_length = self.config.text.max_position_embeddings
        if len(token_ids) > context_length:
            tiles = sum(plan.num_tiles for plan in plans)
            raise ContextLengthError(
                f"the prompt takes {len(token_ids)} tokens, with {len(plans)} images in {tiles} tiles of "
                f"{processor_config.image_seq_len}; the context holds {context_length}. "
                "Fewer images, less text, or fewer tiles of each: tiles=N or tiles='single'"
            )
        return _Request(
            started,
            pixels,
            digests,
            plans,
            token_ids,
            max_new_tokens,
            stop,
            ignore_eos,
            sampling_options,
            n,
            logprobs,
            on_progress,
            prepare_s=time.perf_counter() - started,
        )

    def _run(
        self, request: _Request, stop_flag: _core.StopFlag, emit: Callable[[str], None]
    ) -> GenerationResult:
        with self._running:
            if stop_flag.is_set():
                raise Cancelled("cancelled while waiting for another generation")
            encoded = self._images.encode(
                request.pixels,
                request.digests,
                request.plans,
                stop=stop_flag,
                on_progress=request.on_progress,
            )

            answers = [AnswerText(request.stop, emit) for _ in range(request.n)]
            first_token: list[float] = []  # the moment it came

            def on_token(token_id: int, sequence: int) -> bool:
                if not first_token:
                    first_token.append(time.perf_counter())
                return answers[sequence].push(self._processor.tokenizer.decode_bytes(token_id))

            generated = self._backend.generate(
                request.token_ids,
                encoded.features,
                max_new_tokens=request.max_new_tokens,
                stop_token_ids=self._processor.stop_token_ids,
                ignore_eos=request.ignore_eos,
                sampling=request.sampling,
                n=request.n,
                logprobs=request.logprobs,
                on_token=on_token,
                stop=stop_flag,
                on_progress=request.on_progress,
            )

        memory = Memory(peak_bytes=peak_resident_bytes())

        def result(answer: AnswerText, generated: Generated) -> GenerationResult:
            further_tokens = len(generated.token_ids) - 1
            return GenerationResult(
                text=answer.finish(),
                token_ids=generated.token_ids,
                finish_reason="stop" if answer.stopped else generated.finish_reason,
                prompt_tokens=len(request.token_ids),
                image_tokens=len(encoded.features),
                tiles=sum(plan.num_tiles for plan in request.plans),
                tiles_saved=encoded.tiles_saved,
                timings=Timings(
                    load_s=self._load_s,
                    preprocess_s=request.prepare_s + encoded.cut_s,
                    vision_s=encoded.vision_s,
                    prefill_s=generated.prefill_s,
                    decode_s=generated.decode_s,
                    time_to_first_token_s=first_token[0] - request.started,
                    decode_tokens_per_s=further_tokens / generated.decode_s if further_tokens > 0 else 0.0,
                ),
                memory=memory,
                logprobs=generated.logprobs,
            )

        first, *others = map(result, answers, [generated, *generated.alternatives])
        return replace(first, alternatives=others)


def _require_match(config: ModelConfig, processor: Processor, folder: Path) -> None:
    processor.config.require_match(config, str(folder))
    if processor.image_token_id != config.image_token_id:
        raise FormatError(
            f"{folder}: <image> is token {processor.image_token_id} in tokenizer.json, "
            f"config.json has image_token_id {config.image_token_id}"
        )


def _list_of_images(images: ImageSource | Sequence[ImageSource]) -> list[ImageSource]:
    if isinstance(
        images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray | CameraFrame
    ):
        return [images]
    return list(images)
