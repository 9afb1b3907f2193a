"""GGUF pairs with nothing beside them: found by what they say they are, described by their metadata alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import pocketvlm
from pocketvlm.cli import main
from pocketvlm.config import ModelConfig, ProcessorConfig
from pocketvlm.errors import FormatError, InputError, UnsupportedError
from pocketvlm.gguf_files import find_model_files
from pocketvlm.messages import parse_messages
from pocketvlm.processor import ImageSize, Processor, plan_tiles

from ..csrc.model.test_load_model import pair, rewrite


@pytest.fixture
def bare(tiny_f32: Path, tmp_path: Path) -> Path:
    """The tiny model's pair with nothing beside it, under names that say nothing."""
    folder = tmp_path / "bare"
    folder.mkdir()
    text, projector = pair(tiny_f32)
    shutil.copyfile(text, folder / "one.gguf")
    shutil.copyfile(projector, folder / "other.gguf")
    return folder


def change(path: Path, **options: Any) -> None:
    """Rewrites a GGUF file in its place."""
    changed = rewrite(path, path.with_suffix(".changed"), **options)
    changed.replace(path)


class TestDescription:
    def test_it_is_that_of_the_configurations(self, bare: Path, tiny_checkpoint: Path) -> None:
        config, processor = find_model_files(bare).describe()
        expected = ModelConfig.from_folder(tiny_checkpoint)
        # Metadata holds float32, and the tokenizer's padding.
        expected = replace(
            expected,
            pad_token_id=2,
            text=replace(expected.text, rms_norm_eps=float(np.float32(expected.text.rms_norm_eps))),
            vision=replace(expected.vision, layer_norm_eps=float(np.float32(expected.vision.layer_norm_eps))),
        )
        assert config == expected
        assert processor.config == ProcessorConfig.from_folder(tiny_checkpoint)
        assert processor.stop_token_ids == Processor(tiny_checkpoint).stop_token_ids

    def test_prompts_are_the_same(self, bare: Path, tiny_checkpoint: Path) -> None:
        _, processor = find_model_files(bare).describe()
        messages = parse_messages("1 or 23 <image>s?\n\n", ["a.png"])
        plans = [plan_tiles(ImageSize(60, 80), processor.config, split=True)]
        assert processor.encode(messages, plans) == Processor(tiny_checkpoint).encode(messages, plans)

    def test_files_beside_the_pair_come_first(self, bare: Path, tiny_f32: Path) -> None:
        for path in tiny_f32.glob("*.json"):
            shutil.copy(path, bare)
        text = (bare / "generation_config.json").read_text()
        (bare / "generation_config.json").write_text(text.replace("999", "7"))
        assert find_model_files(bare).describe()[1].stop_token_ids == [2, 7, 999]
        (bare / "config.json").unlink()
        assert find_model_files(bare).describe()[1].stop_token_ids == [2, 999]

    def test_files_of_another_model_beside_the_pair(self, bare: Path, tiny_f32: Path) -> None:
        for path in tiny_f32.glob("*.json"):
            shutil.copy(path, bare)
        config = bare / "config.json"
        config.write_text(config.read_text().replace('"intermediate_size": 192', '"intermediate_size": 320'))
        with pytest.raises(
            FormatError, match=r"config\.json: text_config: intermediate_size is 320, one\.gguf has 192"
        ):
            pocketvlm.load(bare)

    def test_files_from_before_the_longest_edge_was_written(self, bare: Path) -> None:
        change(bare / "other.gguf", drop="clip.vision.preproc_image_size")
        assert find_model_files(bare).describe()[1].config.longest_edge == 4 * 64

    def test_more_tokens_than_the_embedding_has_rows(self, bare: Path) -> None:
        tokens = gguf.GGUFReader(bare / "one.gguf").fields["tokenizer.ggml.tokens"].contents()
        types = gguf.GGUFReader(bare / "one.gguf").fields["tokenizer.ggml.token_type"].contents()
        keys = {"tokenizer.ggml.tokens": [*tokens, "x"], "tokenizer.ggml.token_type": [*types, 3]}
        change(bare / "one.gguf", keys=keys)
        with pytest.raises(
            FormatError, match=r"one\.gguf: .*1001 tokens, expected at most 1000, the rows of"
        ):
            find_model_files(bare).describe()

    @pytest.mark.parametrize(
        ("name", "keys", "error", "message"),
        [
            ("one", {"tokenizer.ggml.pre": "llama-bpe"}, UnsupportedError, "pre: llama-bpe, expected one of"),
            ("one", {"llama.embedding_length": 192}, FormatError, "projection_dim: 128, expected 192"),
            ("other", {"clip.projector_type": "ldp"}, UnsupportedError, "ldp, expected idefics3"),
        ],
    )
    def test_refusals(
        self, bare: Path, name: str, keys: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        change(bare / f"{name}.gguf", keys=keys)
        with pytest.raises(error, match=message):
            pocketvlm.load(bare, threads=1)


class TestLoad:
    @pytest.mark.parametrize("source", ["", "one.gguf"])
    def test_answers_are_those_of_the_export(
        self, bare: Path, tiny_f32: Path, photo: Path, source: str
    ) -> None:
        expected = pocketvlm.load(tiny_f32, threads=2).generate("What?", images=photo, max_new_tokens=8)
        found = pocketvlm.load(bare / source, threads=2).generate("What?", images=photo, max_new_tokens=8)
        assert found.token_ids == expected.token_ids

    def test_a_projector_elsewhere(self, bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
        elsewhere = bare.parent / "projector.gguf"
        (bare / "other.gguf").rename(elsewhere)
        assert pocketvlm.load(bare, mmproj=elsewhere, threads=1).info()["projector_file"] == elsewhere.name
        arguments = ["info", str(bare / "one.gguf"), "--mmproj", str(elsewhere)]
        assert main(arguments) == 0
        assert "projector.gguf" in capsys.readouterr().out
        assert main(arguments[:2]) == 1
        assert "found one.gguf (llama); expected one text file" in capsys.readouterr().err

    def test_mmproj_without_a_text_file(self, tiny_checkpoint: Path, bare: Path) -> None:
        for source in (tiny_checkpoint, "demo", "owner/name"):
            with pytest.raises(InputError, match="no GGUF file and no folder of one; mmproj is for those"):
                pocketvlm.load(source, mmproj=bare / "other.gguf")
        with pytest.raises(InputError, match=r"missing\.gguf: no such file"):
            pocketvlm.load(bare, mmproj=bare / "missing.gguf")


class TestFinding:
    def test_two_text_files(self, bare: Path) -> None:
        shutil.copyfile(bare / "one.gguf", bare / "two.gguf")
        with pytest.raises(
            FormatError, match=r"found one\.gguf \(llama\), two\.gguf \(llama\); .*; name the text"
        ):
            find_model_files(bare)
        assert find_model_files(bare / "two.gguf").text == bare / "two.gguf"

    def test_two_projectors(self, bare: Path) -> None:
        shutil.copyfile(bare / "other.gguf", bare / "third.gguf")
        with pytest.raises(
            FormatError, match=r"found other\.gguf \(clip\), third\.gguf \(clip\); .*--mmproj FILE"
        ):
            find_model_files(bare)
        assert find_model_files(bare, bare / "third.gguf").projector == bare / "third.gguf"

    def test_of_two_projectors_the_one_that_fits(self, bare: Path) -> None:
        rewrite(bare / "other.gguf", bare / "a.gguf", keys={"clip.vision.projection_dim": 960})
        assert find_model_files(bare).projector == bare / "other.gguf"

    def test_what_is_named_must_be_that(self, bare: Path) -> None:
        with pytest.raises(FormatError, match=r"found other\.gguf \(clip\), expected a text file"):
            find_model_files(bare / "other.gguf")
        with pytest.raises(FormatError, match=r"found one\.gguf \(llama\), expected a projector"):
            find_model_files(bare, bare / "one.gguf")

    def test_a_file_that_is_no_gguf(self, bare: Path) -> None:
        (bare / "one.gguf").write_bytes(b"GGML" + bytes(64))
        for source in (bare, bare / "one.gguf"):
            with pytest.raises(FormatError, match=r"one\.gguf: .*magic"):
                find_model_files(source)

    def test_damaged_neighbours_are_not_in_the_way(self, bare: Path) -> None:
        (bare / "half.gguf").write_bytes((bare / "one.gguf").read_bytes()[:1000])
        assert find_model_files(bare).text == bare / "one.gguf"


class TestSplitFiles:
    @pytest.fixture
    def split(self, bare: Path) -> Callable[[int, int], None]:
        """Makes a part of the text file, as llama.cpp's tool writes it; only the first says what it is."""
        (bare / "one.gguf").unlink()

        def write(number: int, count: int) -> None:
            path = bare / f"one-{number:05}-of-{count:05}.gguf"
            writer = gguf.GGUFWriter(path, "llama")
            writer.add_uint16("split.no", number - 1)
            writer.add_uint16("split.count", count)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()

        return write

    def test_all_parts(self, bare: Path, split: Callable[[int, int], None]) -> None:
        for number in (1, 2, 3):
            split(number, 3)
        command = r"llama-gguf-split --merge one-00001-of-00003\.gguf one\.gguf"
        for source in (bare, bare / "one-00002-of-00003.gguf"):
            with pytest.raises(UnsupportedError, match=f"one of 3 parts, which llama.cpp joins: {command}"):
                find_model_files(source)

    def test_a_missing_part(self, bare: Path, split: Callable[[int, int], None]) -> None:
        split(2, 3)
        with pytest.raises(FormatError, match=r"missing: one-00001-of-00003\.gguf, one-00003-of-00003\.gguf"):
            find_model_files(bare)

    def test_parts_of_other_names(self, bare: Path, split: Callable[[int, int], None]) -> None:
        split(1, 2)
        (bare / "one-00001-of-00002.gguf").rename(bare / "one.gguf")
        with pytest.raises(
            UnsupportedError, match="one of 2 parts of a file that was split; join them first"
        ):
            find_model_files(bare)

    def test_one_part_is_the_whole(self, bare: Path, split: Callable[[int, int], None]) -> None:
        split(1, 1)
        assert find_model_files(bare).text == bare / "one-00001-of-00001.gguf"
