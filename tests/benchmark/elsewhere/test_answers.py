"""Answers of users and of lm-evaluation-harness; the example of docs/language_models.md runs."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from made_up import texts
from stand_ins.commands import tsv

from tsv_bench.benchmark.elsewhere import Answers, lm_eval_answers
from tsv_bench.report.tables.table import build_tables, read_evaluated

TASK = """task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: tasks/{task}.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: [a, merge, model]
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
DOCS = Path(__file__).resolve().parents[3] / "docs" / "language_models.md"
HARNESS = importlib.util.find_spec("lm_eval")


def sample(number, filter_name="none", **metrics):
    hashes = {f"{name}_hash": f"{name} {number}" for name in ("doc", "prompt", "target")}
    return {"doc_id": number, "filter": filter_name, "metrics": list(metrics), **hashes, **metrics}


def results(samples, **more):
    return {"samples": samples, "config": {"model_dtype": "torch.bfloat16"}} | more


def test_samples_become_answers_in_the_order_of_the_examples():
    samples = [sample(2, acc=0.0), sample(0, acc=1.0), sample(1, acc=1)]
    found = lm_eval_answers(
        results({"piqa": samples}, **{"n-shot": {"piqa": 5}, "lm_eval_version": "0.4.13"})
    )
    assert found.correct["piqa"].tolist() == [True, True, False]
    assert found.variants == {"piqa": "acc, 5-shot"}
    assert found.evaluation == {"by": "lm_eval 0.4.13", "precision": "bfloat16"}
    assert found.data == lm_eval_answers(results({"piqa": samples[::-1]})).data
    fewer = lm_eval_answers(results({"piqa": samples[1:]}))
    assert found.data != fewer.data
    otherwise = [{**one, "prompt_hash": "of five examples"} for one in samples]
    assert found.data != lm_eval_answers(results({"piqa": otherwise})).data


def test_of_several_filters_one_is_named():
    samples = [sample(0, "strict", exact_match=0), sample(0, "flexible", exact_match=1)]
    with pytest.raises(ValueError, match="'gsm8k' has the filters strict, flexible: .*not None"):
        lm_eval_answers(results({"gsm8k": samples}), "exact_match")
    with pytest.raises(ValueError, match="strict, flexible: choose one by filter_name=, not 'lax'"):
        lm_eval_answers(results({"gsm8k": samples}), "exact_match", "lax")
    found = lm_eval_answers(results({"gsm8k": samples}), "exact_match", "flexible")
    assert found.correct["gsm8k"].tolist() == [True]
    assert found.variants == {"gsm8k": "exact_match, filter flexible"}


@pytest.mark.parametrize(
    ("given", "metric", "said"),
    [
        ({}, "acc", "log_samples=True"),
        (results({"t": [sample(0, acc_norm=1)]}), "acc", "no 'acc', but acc_norm"),
        (results({"t": [sample(0, ppl=7.5)]}), "ppl", "not all 0 or 1, first 7.5"),
        (results({"t": [sample(0, acc=2)]}), "acc", "not all 0 or 1, first 2"),
        (results({"t": [sample(0, pair=(1, 2))]}), "pair", "of shape (1, 2)"),
    ],
)
def test_what_is_not_right_or_wrong_is_refused(given, metric, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        lm_eval_answers(given, metric)


def test_answers_of_several_models_are_joined():
    first = Answers(correct={"a": [1, 0]}, data={"a": "v1"}, variants={"a": "acc"})
    both = first | Answers(correct={"b": [True]}, variants={"b": "5-shot"})
    assert list(both.correct) == ["a", "b"] and both.data == {"a": "v1"}
    assert both.variants == {"a": "acc", "b": "5-shot"}
    with pytest.raises(ValueError, match="'a' is in both"):
        both | first
    with pytest.raises(ValueError, match="not evaluated alike"):
        first | Answers(correct={"b": [1]}, evaluation={"precision": "float16"})
    for wrong in ({}, {"a": []}, {"a": ["yes"]}):
        with pytest.raises(ValueError):
            Answers(correct=wrong)
    for name in ("data", "variants"):
        with pytest.raises(ValueError, match=f"{name} of 'c', which has no answers"):
            Answers(correct={"a": np.ones(3, bool)}, **{name: {"c": "v1"}})


@pytest.mark.slow
@pytest.mark.skipif(HARNESS is None, reason="needs lm-evaluation-harness: pip install lm-eval")
@pytest.mark.filterwarnings("ignore")  # of others
def test_the_example_of_the_docs_runs(tmp_path, monkeypatch):
    from datasets import config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for seed, name in enumerate(("base", "math_model", "code_model")):
        texts.save(texts.llama(seed, layers=1), tmp_path / name)
    (tmp_path / "tasks").mkdir()
    for task, words in (("math", "models merge one ."), ("code", "a of is ?")):
        questions = [f"{a} {b} is" for a in texts.WORDS for b in words.split()]
        examples = [{"question": q, "answer": i % 3} for i, q in enumerate(questions)]
        lines = "".join(json.dumps(example) + "\n" for example in examples)
        (tmp_path / "tasks" / f"{task}.jsonl").write_text(lines)
        (tmp_path / "tasks" / f"{task}.yaml").write_text(TASK.format(task=task))
    for line in re.findall(r"^    tsv-merge (.*)$", DOCS.read_text(), re.M):
        assert tsv(tmp_path, "merge", *shlex.split(line), "cache.folder=null").code == 0
    code = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.S)[1]
    exec(compile(code, DOCS, "exec"), {})
    [table] = build_tables(read_evaluated(tmp_path / "runs"))
    labels = [row.label for row in table.rows]
    assert labels == ["Zero-shot", "Task Arithmetic", "TSV-M", "Individual"]
    assert table.num_images == 72 and all(row.absolute.images for row in table.rows)
    assert {"math: acc, 0-shot.", "code: acc, 0-shot."} <= set(table.notes)
    for line in re.findall(r"^    tsv-report (.*)$", DOCS.read_text(), re.M):
        result = tsv(tmp_path, "report", *shlex.split(line))
        assert result.code == 0 and "over examples" in result.out.replace("\n", " "), result.err
