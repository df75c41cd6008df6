"""Runs of models that were evaluated elsewhere, as language models by lm-evaluation-harness.

from tsv_bench.benchmark.elsewhere import lm_eval_answers, save_answers
docs/language_models.md has an example.
"""

from typing import TYPE_CHECKING

from tsv_bench.faces import late

if TYPE_CHECKING:
    from tsv_bench.benchmark.elsewhere.answers import Answers, lm_eval_answers
    from tsv_bench.benchmark.elsewhere.save_answers import save_answers

__all__ = ["Answers", "lm_eval_answers", "save_answers"]
__getattr__ = late(__name__, "answers", "save_answers")
