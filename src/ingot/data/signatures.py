"""What documents are compared by: a digest of the text, and a MinHash of its words that tells how alike two are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ingot.data.document import Conversation, Document
from ingot.data.words import runs
from ingot.errors import UserError
from ingot.extras import pip_install

RUN = 5  # words in a run, as Lee et al. (2022, arXiv:2107.06499) compare by
SLOTS = 128  # of a MinHash: at a similarity of 0.8 the estimate's standard error is 0.035 or less
METHOD = 1  # of making and comparing signatures; another one is another fingerprint
_ALGORITHM = 2  # of the library's MinHashes: another one would find other duplicates
_SEED = 1


def comparable(record: Document | Conversation) -> str:
    """The text that a record is compared by."""
    if isinstance(record, Document):
        return record.text
    return "\n".join(f"{message.role}: {message.content}" for message in record.messages)


def signature(near: bool) -> np.dtype[Any]:
    """The dtype of one document's signature: digest, held and, for near duplicates, minhash (SLOTS,)."""
    fields: list[Any] = [("digest", "<u8", (2,)), ("held", "?")]
    return np.dtype([*fields, ("minhash", "<u2", (SLOTS,))] if near else fields)


def signatures(texts: Sequence[str], held: Sequence[bool] | NDArray[np.bool_], near: bool) -> NDArray[Any]:
    """The signature of each text, (texts,) of `signature(near)`: XXH3's 128 bits, and a MinHash where `near`.

    `held`: (texts,), which are held out. Raises UserError where the library for near duplicates is missing.
    """
    found = np.zeros(len(texts), signature(near))
    digests = b"".join(xxhash.xxh3_128_digest(text.encode()) for text in texts)
    found["digest"] = np.frombuffer(digests, "<u8").reshape(-1, 2)
    found["held"] = held
    if near and len(texts):
        found["minhash"] = _minhashes(texts, found["digest"][:, 0])
    return found


def library() -> Any:
    """rensa's MinHash. Raises UserError where it is missing, or makes other values than these signatures hold."""
    try:
        from rensa import RMinHash
    except ImportError:
        what, where = "the package rensa is not installed", "data.clean.duplicates=near"
        raise UserError(what, where=where, mend=pip_install("data")) from None
    if RMinHash.ALGORITHM_VERSION != _ALGORITHM:
        what = f"this rensa makes MinHashes of version {RMinHash.ALGORITHM_VERSION}, not {_ALGORITHM}"
        raise UserError(what, where="data.clean.duplicates=near", mend="pip install 'rensa~=0.5.0'")
    return RMinHash


def _minhashes(texts: Sequence[str], digests: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """The share of slots in which two of them agree estimates the Jaccard similarity of the texts' sets of runs.

    Fast Similarity Sketching (Dahlgaard et al., 2017, arXiv:1704.04370), of which 16 bits a slot are kept: slots of
    different texts agree by chance once in 65,536 (Li and König, 2010, arXiv:0910.3349).
    """
    hashes, counts = runs(texts, RUN)
    wordless = hashes == 0
    hashes[wordless] = np.repeat(digests, counts)[wordless]  # alike only where the whole text is the same
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64)
    matrix = library().digest_matrix_from_flat_token_hashes(hashes, offsets, SLOTS, _SEED)
    return np.array(matrix.to_rows(), np.uint32).astype(np.uint16)
