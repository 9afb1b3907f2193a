"""Which row of the kernel table a processor gets: a pure choice, tried for processors that are not here."""

import itertools

import pytest

from pocketvlm import _core
from pocketvlm.errors import InputError

HASWELL = ["avx2", "fma", "f16c"]
SKYLAKE_X = [*HASWELL, "avx512f", "avx512bw", "avx512dq", "avx512vl"]
ICE_LAKE = [*SKYLAKE_X, "avx512_vnni"]
ZEN_4 = [*ICE_LAKE, "avx512_bf16"]
SAPPHIRE_RAPIDS = [*ZEN_4, "amx_tile", "amx_int8", "amx_bf16"]


@pytest.mark.skipif("avx2" not in _core.cpu_features(), reason="rows of x86-64")
@pytest.mark.parametrize(
    ("features", "rows"),
    [
        ([], ["scalar"]),
        (HASWELL, ["avx2", "scalar"]),
        (SKYLAKE_X, ["avx512", "avx2", "scalar"]),
        (ICE_LAKE, ["avx512_vnni", "avx512", "avx2", "scalar"]),
        (ZEN_4, ["avx512_bf16", "avx512_vnni", "avx512", "avx2", "scalar"]),
        (SAPPHIRE_RAPIDS, ["amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2", "scalar"]),
    ],
)
def test_every_kind_of_processor(features: list[str], rows: list[str]) -> None:
    assert _core.kernels.select(features) == rows


def test_no_row_without_all_it_needs() -> None:
    """Taking any feature away never adds a row, and the scalar row always stays."""
    for count in range(len(SAPPHIRE_RAPIDS) + 1):
        for features in itertools.combinations(SAPPHIRE_RAPIDS, count):
            rows = _core.kernels.select(list(features))
            assert rows[-1] == "scalar"
            assert ("avx2" in rows) == set(HASWELL).issubset(features) or len(rows) == 1
            for one in features:
                fewer = _core.kernels.select([other for other in features if other != one])
                assert set(fewer) <= set(rows)


def test_this_processor() -> None:
    assert _core.kernels.select(_core.cpu_features()) == _core.isas()


def test_an_unknown_feature() -> None:
    with pytest.raises(InputError, match="feature: unknown: mmx"):
        _core.kernels.select(["mmx"])
