"""llama.cpp's own way with images, the library mtmd, before its own decoder: `vision_engine="mtmd"`.

mtmd takes whole pictures, which it resizes and cuts by rules of its own. The prompt stays ours: a picture
that mtmd would cut into another grid than planned is refused.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import _ggml as llama_ggml
from llama_cpp import llama_cpp, mtmd_cpp
from numpy.typing import NDArray
from PIL import Image

from .. import _core
from ..chat_template import GLOBAL_IMAGE, TileGrid, tile_marker
from ..config import ModelConfig
from ..errors import Cancelled, UnsupportedError
from ..gguf_files import ModelFiles
from ..images import LoadedImage, load_image
from ..processor import TilePlan
from ..tiles import PIXELS, TileLayout
from . import Backend, ProgressCallback, TracedPicture
from .llama_cpp import LlamaCppBackend, open_text, weight_type
from .llama_library import LlamaModel, failure

# What llama-cpp-python has no binding for.
_ggml = llama_ggml.libggml
for _name, _result in (
    ("ggml_op_desc", ctypes.c_char_p),
    ("ggml_get_data", ctypes.c_void_p),
    ("ggml_nbytes", ctypes.c_size_t),
):
    getattr(_ggml, _name).restype = _result
    getattr(_ggml, _name).argtypes = [ctypes.c_void_p]

_TEXT_CHUNK = mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT


def open_mtmd(
    files: ModelFiles, config: ModelConfig, *, threads: int, on_progress: ProgressCallback | None
) -> Backend:
    """Loads both files into llama.cpp.

    Raises:
        UnsupportedError: mtmd needs a token that the vocabulary lacks, as that of SmolVLM 2.2B does.
        BackendError: llama.cpp refuses a file.
        FormatError: A file is damaged, or its sizes are not those of config.json.
    """
    tokens = _core.GgufFile(files.text).require_strings("tokenizer.ggml.tokens")
    if GLOBAL_IMAGE not in tokens:
        raise UnsupportedError(
            f"vision_engine 'mtmd': llama.cpp needs the token {GLOBAL_IMAGE}, which the vocabulary of "
            f"{files.text.name} has not; vision_engine 'native' does without"
        )
    ids = {token: i for i, token in enumerate(tokens)}
    _core.GgufFile(files.projector)  # proven before llama.cpp reads it
    text = open_text(files, config, threads=threads)
    if on_progress is not None:
        on_progress("load", 1, 2)
    projector = Projector(files.projector, text, threads=threads)
    if on_progress is not None:
        on_progress("load", 2, 2)
    return MtmdBackend(text, weight_type(files), config, projector, ids)


class CutPicture:
    """A picture as mtmd cut it. Freed with the object.

    Attributes:
        token_ids: Of the text that mtmd puts around its tiles; -1 for every image token.
    """

    def __init__(self, projector: Projector, chunks: Any) -> None:
        """Takes what `Projector.cut` made."""
        weakref.finalize(self, mtmd_cpp.mtmd_input_chunks_free, chunks)
        self._projector = projector
        self._tiles: list[Any] = []
        self.token_ids: list[int] = []
        for i in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
            chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, i)
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == _TEXT_CHUNK:
                count = ctypes.c_size_t()
                ids = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
                self.token_ids += ids[: count.value]
            else:
                self._tiles.append(chunk)
                self.token_ids += [-1] * mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)

    @property
    def num_tiles(self) -> int:
        """Tiles, the global one included."""
        return len(self._tiles)

    def encode(self, tile: int) -> NDArray[np.float32]:
        """Returns the features of a tile, float32 [image tokens, hidden_size].

        Raises:
            BackendError: llama.cpp fails.
        """
        chunk, projector = self._tiles[tile], self._projector
        if mtmd_cpp.mtmd_encode_chunk(projector.pointer, chunk) != 0:
            raise failure(f"{projector.path}: tile {tile}")
        shape = (mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk), projector.hidden_size)
        features = mtmd_cpp.mtmd_get_output_embd(projector.pointer)
        values: NDArray[np.float32] = np.ctypeslib.as_array(features, shape).copy()
        return values


class Projector:
    """A projector file in mtmd, beside the text model it belongs to. Freed with the object.

    Attributes:
        path: The file.
        hidden_size: Values of a feature.
        tap: What its tower reads.
    """

    def __init__(self, path: Path, text: LlamaModel, *, threads: int) -> None:
        """Loads a GGUF file that was proven.

        Raises:
            BackendError: llama.cpp refuses it.
        """
        parameters = mtmd_cpp.mtmd_context_params_default()
        parameters.use_gpu = parameters.warmup = parameters.print_timings = False
        parameters.n_threads = threads
        self.tap = PatchTap()
        parameters.cb_eval = self.tap.callback
        if text.exact:
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.path = path
        self.hidden_size = text.hidden_size
        self._text = text  # mtmd keeps a pointer to it
        self.pointer: Any = mtmd_cpp.mtmd_init_from_file(bytes(path), text.pointer, parameters)
        if not self.pointer:
            raise failure(str(path))
        weakref.finalize(self, mtmd_cpp.mtmd_free, self.pointer)

    def cut(self, picture: NDArray[np.uint8]) -> CutPicture:
        """Lets mtmd resize and cut a picture, uint8 [H, W, 3], RGB.

        Raises:
            BackendError: llama.cpp fails.
        """
        pixels = np.ascontiguousarray(picture)
        height, width, _ = pixels.shape
        data = pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = mtmd_cpp.mtmd_bitmap_init(width, height, data)
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        marker = mtmd_cpp.mtmd_default_marker()
        prompt = mtmd_cpp.mtmd_input_text(marker, len(marker), False, True)
        bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
        try:
            status = mtmd_cpp.mtmd_tokenize(self.pointer, chunks, ctypes.byref(prompt), bitmaps, 1)
        finally:
            mtmd_cpp.mtmd_bitmap_free(bitmap)
        cut = CutPicture(self, chunks)  # owns the chunks, also where there are none
        if status != 0:
            raise failure(f"{self.path}: a picture of {width}x{height}")
        return cut


class PatchTap:
    """Copies, where asked to, what the first product of a tower reads: the pixel values of a tile.

    Attributes:
        callback: What llama.cpp is to call on every node of its graphs.
    """

    def __init__(self) -> None:
        self._patches: NDArray[np.float32] | None = None
        self._open = False
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._visit)

    def patches_of(self, cut: CutPicture, tile: int, patch_size: int) -> NDArray[np.float32]:
        """Encodes a tile and returns what was read, float32 [patches, 3 * patch_size^2].

        Raises:
            BackendError: llama.cpp fails, or computes in another way than it is known to.
        """
        self._open, self._patches = True, None
        try:
            cut.encode(tile)
        finally:
            self._open = False
        if self._patches is None:
            raise failure(f"tile {tile}: found no patches in the graph of the tower")
        return self._patches.reshape(-1, 3 * patch_size**2)

    def _visit(self, tensor: int, ask: bool, user_data: object) -> bool:
        """Says of a node whether it is to be looked at; looks at it once it was computed."""
        if not self._open or _ggml.ggml_op_desc(tensor) != b"IM2COL":
            return not ask
        if not ask:
            # llama.cpp rounds them to float16.
            data = ctypes.string_at(_ggml.ggml_get_data(tensor), _ggml.ggml_nbytes(tensor))
            self._patches = np.frombuffer(data, np.float16).astype(np.float32)
        return True


class MtmdBackend(LlamaCppBackend):
    """llama.cpp for images and text, as a `Backend` that is a `PictureEncoder`."""

    # What plans are reckoned with; mtmd makes tiles of its own.
    tile_layout: TileLayout = PIXELS

    def __init__(
        self,
        text: LlamaModel,
        text_type: str,
        config: ModelConfig,
        projector: Projector,
        ids: dict[str, int],
    ) -> None:
        super().__init__(text, text_type, config)
        self._projector = projector
        self._ids = ids

    def encode_images(
        self, tiles: NDArray[Any], *, stop: _core.StopFlag, on_progress: ProgressCallback | None
    ) -> NDArray[np.float32]:
        raise UnsupportedError("vision_engine 'mtmd' takes pictures, and cuts its tiles itself")

    def encode_pictures(
        self,
        pictures: Sequence[LoadedImage],
        plans: Sequence[TilePlan],
        *,
        stop: _core.StopFlag,
        on_progress: ProgressCallback | None,
    ) -> NDArray[np.float32]:
        cuts = [self._cut(picture, plan) for picture, plan in zip(pictures, plans, strict=True)]
        total = sum(cut.num_tiles for cut in cuts)
        features = []
        for cut in cuts:
            for tile in range(cut.num_tiles):
                if stop.is_set():
                    raise Cancelled("stopped by request")
                features.append(cut.encode(tile))
                if on_progress is not None:
                    on_progress("vision", len(features), total)
        return np.concatenate([np.empty((0, self._text.hidden_size), np.float32), *features])

    def trace_picture(self, picture: LoadedImage, plan: TilePlan) -> TracedPicture:
        cut, tap = self._cut(picture, plan), self._projector.tap
        patch_size = self._config.vision.patch_size
        patches = [tap.patches_of(cut, tile, patch_size) for tile in range(cut.num_tiles)]
        return TracedPicture(cut.token_ids, np.stack(patches))

    def info(self) -> dict[str, Any]:
        return {**super().info(), "vision_engine": "mtmd"}

    def _cut(self, picture: LoadedImage, plan: TilePlan) -> CutPicture:
        """Errors as `encode_pictures`."""
        cut = self._projector.cut(_rgb(picture))
        markers = [self._ids.get(marker) for marker in _tile_markers(plan.grid)]
        known = {self._ids.get(tile_marker(row, col)) for row in range(1, 7) for col in range(1, 7)}
        found = [id for id in cut.token_ids if id in known]
        tokens = plan.num_tiles * self._config.image_seq_len
        if found != markers or cut.token_ids.count(-1) != tokens:
            raise UnsupportedError(
                f"vision_engine 'mtmd': llama.cpp cuts this image into {cut.num_tiles} tiles, with "
                f"{cut.token_ids.count(-1)} image tokens; planned are {plan.grid.rows} rows of "
                f"{plan.grid.cols} and the global tile, with {tokens}. It knows no modes of tiles; "
                "vision_engine 'native' does"
            )
        return cut


def _tile_markers(grid: TileGrid) -> list[str]:
    return [tile_marker(row, col) for row in range(1, grid.rows + 1) for col in range(1, grid.cols + 1)]


def _rgb(picture: LoadedImage) -> NDArray[np.uint8]:
    if not isinstance(picture, np.ndarray):
        raise UnsupportedError("vision_engine 'mtmd' reads no camera frames in 4:2:0; convert them to RGB")
    if picture.ndim == 3 and picture.shape[2] == 3:
        return picture
    loaded = load_image(Image.fromarray(picture))  # grey, or RGBA over white
    assert isinstance(loaded, np.ndarray)
    return loaded
