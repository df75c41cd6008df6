"""Tests mirror the package: who knows where a module lies knows where it is tested."""

from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE, TESTS = ROOT / "tsv_bench", ROOT / "tests"
APART = {"commands", "promises"}  # tests of whole commands, and of what the repository says
HELPERS = {"made_up", "stand_ins", "golden"}
# Modules that have no test file of their own, by the one that tests them: one part of what a
# neighbour does, or the whole of a command.
TESTED_IN = {
    "analysis/test_analyze_files.py": "analysis.figure_files",
    "analysis/test_figures.py": "analysis.depth",
    "benchmark/beyond/test_generalize.py": "benchmark.beyond.corrupted benchmark.beyond.records "
    "benchmark.beyond.unseen",
    "commands/test_learning.py": "benchmark.cells.make_run",
    "benchmark/given/test_image_bench.py": "methods.bench",
    "benchmark/test_evaluator.py": "models.devices scores",
    "benchmark/test_evaluate.py": "benchmark.validate",
    "benchmark/test_route.py": "methods.routed.routed_vector",
    "checkpoints/test_on_demand.py": "checkpoints.checkpoint",
    "cli/config/test_overrides.py": "cli.config.keys",
    "cli/typed/test_command_line.py": "cli.typed.reworded cli.typed.sweeps",
    "cli/typed/test_repeated.py": "wording.suggested",
    "commands/test_analyze.py": "analysis.records cli.analyze cli.work.analyze",
    "cli/work/test_in_memory.py": "cli.work.named_method",
    "commands/test_bench.py": "cli.bench cli.launch cli.finetune cli.report "
    "cli.work.bench cli.work.finetune cli.work.report "
    "cli.config.objects cli.config.checkpoint_files",
    "commands/test_fetch.py": "cli.fetch cli.work.fetch cli.config.needs hub.cache",
    "commands/test_own_task.py": "cli.task cli.own.describe cli.typed.plain_path",
    "commands/test_own_method.py": "cli.config.search_path",
    "commands/test_mistakes.py": "cli.typed.mistakes",
    "commands/test_sweeps.py": "cli.sweep.callback cli.sweep.command cli.sweep.comparison "
    "cli.sweep.job",
    "commands/test_observe.py": "cli.observe cli.work.observe observation.observe_files "
    "task_vectors.kinds",
    "commands/test_plan.py": "cli.plan.cells cli.plan.seconds cli.plan.text",
    "data/collected/test_sources.py": "data.collected.icon_sets data.collected.scans "
    "data.collected.typefaces",
    "data/test_embedded.py": "data.sources data.embedded.cameras data.embedded.canvas "
    "data.embedded.figures data.embedded.glyphs data.embedded.land data.embedded.textures",
    "data/test_hub.py": "data.folders data.task",
    "files/test_ahead.py": "files.hash_process",
    "linalg/test_svd.py": "linalg.precision",
    "merging/test_low_rank_writer.py": "state_dicts.low_rank",
    "merging/test_masked_writer.py": "state_dicts.masked",
    "merging/test_merge_files.py": "merging.arguments merging.writers cli.merge cli.work.merge",
    "merging/test_lora_writer.py": "state_dicts.adapters.layout",
    "methods/evolved/test_merge3.py": "methods.evolved.evolution",
    "methods/matrixwise/test_tsv.py": "methods.matrixwise.decomposition",
    "methods/test_served.py": "methods.checked",
    "methods/observed/test_regmean.py": "methods.observed.normal_equations",
    "methods/learned/test_surgery.py": "methods.learned.adapters",
    "models/test_mini.py": "models.backbone",
    "models/open_clip_models/test_choose.py": "models.open_clip_models.preprocessing",
    "models/test_pretraining.py": "cli.pretrain cli.work.pretrain",
    "observation/test_gather.py": "observation.statistics_file task_vectors.statistics",
    "promises/test_conf.py": "cli.config.method cli.config.method_yaml",
    "report/plots/test_figures.py": "report.plots.accuracies report.plots.alphas "
    "report.plots.labels report.plots.radar report.plots.ranks report.plots.sizes "
    "report.plots.style",
    "report/tables/test_table.py": "report.tables.row_names report.tables.beside_published",
    "report/tables/test_two_methods.py": "report.text.two_methods",
    "report/test_page.py": "report.page.packed_runs report.page.sections",
    "report/test_tracking.py": "benchmark.weights",
    "report/text/test_paper.py": "report.text.sheet report.text.numbers",
    "report/text/test_render.py": "report.text.runs report.text.csv_records report.text.layouts "
    "report.write_report wording.columns",
    "state_dicts/entries/test_agree.py": "state_dicts.entries.choices state_dicts.entries.pairing "
    "state_dicts.entries.ties state_dicts.entries.views",
    "state_dicts/entries/test_quantized.py": "state_dicts.entries.kinds",
    "state_dicts/test_state_dict.py": "state_dicts.safetensors_file state_dicts.torch_file",
    "state_dicts/adapters/test_adapter.py": "state_dicts.adapters.names",
    "task_vectors/test_order_statistics.py": "task_vectors.largest_values task_vectors.magnitudes",
}


@cache
def modules():
    """Names of the package's modules, without faces, and of its packages."""
    files = [path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")]
    names = {".".join(parts) for parts in files if parts[-1] != "__init__"}
    return names, {".".join(parts[:-1]) for parts in files if parts[-1] == "__init__"}


def module_of(path):
    """The module that a test file is for: the longest whose name its own begins with; or None."""
    names, packages = modules()
    folder = path.parent.relative_to(TESTS).parts
    words = path.stem.removeprefix("test_").split("_")
    for count in range(len(words), 0, -1):
        module = ".".join([*folder, "_".join(words[:count])])
        if module in names | packages:
            return module
    return None


def mirrored():
    """Every test file that is not apart, with its module."""
    for path in sorted(TESTS.rglob("test_*.py")):
        if path.relative_to(TESTS).parts[0] not in APART:
            yield path, module_of(path)


def test_every_test_file_is_for_a_module():
    """tests/a/test_b.py is for tsv_bench/a/b.py; test_b_mistakes.py and the like too."""
    astray = [str(path.relative_to(ROOT)) for path, module in mirrored() if module is None]
    assert not astray, "no module of these names; move them, or rename them with it"
    helpers = [path for folder in HELPERS for path in (TESTS / folder).rglob("test_*.py")]
    assert not helpers, "tests stand among the helpers"


def test_every_module_has_its_test_file():
    tested = {module for _, module in mirrored()}
    elsewhere = [name for names in TESTED_IN.values() for name in names.split()]
    assert not [file for file in TESTED_IN if not (TESTS / file).exists()]
    names, _ = modules()
    assert len(elsewhere) == len(set(elsewhere)) and set(elsewhere) <= names
    untested = sorted(names - tested - set(elsewhere))
    assert not untested, "add tests/a/test_b.py, or say in TESTED_IN which file tests it"
