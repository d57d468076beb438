"""Corpora of the Hugging Face hub by a short name: where they lie, how they are read, how large and whose they are.

Facts as the data sets' own pages, loaders and file lists gave them in 2026; `size` is of the configuration named here.
Several of them come with a loader of their own in Python, which `datasets` has not run since version 4: `files` or
`addresses` says where their text lies, so that none is needed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Corpus:
    """A dataset of the hub and its defaults; `{}` in `files` and `addresses` stands for the configuration."""

    path: str  # owner/name
    size: str = ""
    licence: str = ""
    note: str = ""
    configuration: str = ""
    field: str = "text"  # of a record that holds the text
    split: str = "train"
    files: str = ""  # glob over the repository's files; empty: as the dataset itself says
    addresses: str = ""  # glob over files of the repository that hold web addresses, one a line


CORPORA = {
    "fineweb": Corpus(
        "HuggingFaceFW/fineweb",
        configuration="sample-10BT",
        size="10B tokens drawn at random; 15T tokens as `default`",
        licence="ODC-By 1.0",
        note="English web, 2013 on (arXiv:2406.17557); also sample-100BT, sample-350BT and each crawl",
    ),
    "fineweb-edu": Corpus(
        "HuggingFaceFW/fineweb-edu",
        configuration="sample-10BT",
        size="10B tokens drawn at random; 1.3T tokens as `default`",
        licence="ODC-By 1.0",
        note="what is educational of FineWeb (arXiv:2406.17557); also sample-100BT, sample-350BT and each crawl",
    ),
    "c4": Corpus(
        "allenai/c4",
        configuration="en",
        size="364,868,892 documents, 305 GB packed",
        licence="ODC-By 1.0",
        note="English web, 2019 (arXiv:1910.10683); also realnewslike and languages such as de",
    ),
    "openwebtext": Corpus(
        "Skylion007/openwebtext",
        files="*train-*.parquet",
        size="8,013,769 documents, 39.8 GB of text",
        licence="CC0-1.0 for the collection",
        note="pages that Reddit linked to: GPT-2's training data, made again",
    ),
    "redpajama": Corpus(
        "togethercomputer/RedPajama-Data-1T",
        configuration="*",
        addresses="urls/{}.txt",
        size="1.2T tokens in 2,084 files, books since withdrawn",
        licence="that of each subset",
        note="subsets: arxiv, c4, common_crawl, github, stackexchange, wikipedia",
    ),
    "redpajama-sample": Corpus(
        "togethercomputer/RedPajama-Data-1T-Sample",
        files="*.jsonl",
        size="1B tokens, 5.4 GB",
        licence="that of each subset",
        note="of all subsets of redpajama",
    ),
    "oscar": Corpus(
        "oscar-corpus/OSCAR-2301",
        configuration="en",
        files="{}_meta/*.jsonl.zst",
        field="content",
        size="about 150 languages, English the largest",
        licence="CC0-1.0 for the annotations",
        note="web of late 2022 by language: configuration is its code, such as de; asks for a login and its terms",
    ),
    "pile": Corpus(
        "monology/pile-uncopyrighted",
        files="train/*.jsonl.zst",
        size="17 of the Pile's 22 parts; the whole was 825 GiB",
        licence="that of each part",
        note="the Pile (arXiv:2101.00027) without the parts that were withdrawn; the original is no longer given out",
    ),
    "dolma": Corpus(
        "allenai/dolma",
        configuration="v1_7",
        addresses="urls/{}.txt",
        size="4.5 TB packed in 2,419 files",
        licence="ODC-By 1.0",
        note="OLMo's training data (arXiv:2402.00159); also v1_6 (5.4 TB) and v1_6-sample (16.4 GB, 10B tokens)",
    ),
    "tinystories": Corpus(
        "roneneldan/TinyStories",
        size="about 2.1M stories, 1 GB packed",
        licence="CDLA-Sharing-1.0",
        note="stories in the words of small children, by GPT-3.5 and GPT-4 (arXiv:2305.07759)",
    ),
}
