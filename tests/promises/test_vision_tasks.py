"""The paper's twenty tasks as conf/task/ has them: their facts, their traps and their switches."""

from ast import literal_eval
from functools import cache

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from stand_ins.commands import tsv

from tsv_bench.benchmark import published
from tsv_bench.cli.config.overrides import CONF, checked
from tsv_bench.cli.config.tasks import make_tasks, named_tasks
from tsv_bench.data.hub import HubData, folded
from tsv_bench.data.task import SPLITS, Task

PAPERS_ORDER = (
    "Cars DTD EuroSAT GTSRB MNIST RESISC45 SVHN SUN397 "
    "STL10 OxfordIIITPet Flowers102 CIFAR100 PCAM FER2013 "
    "CIFAR10 Food101 FashionMNIST RenderedSST2 EMNIST KMNIST"
).split()
TASKS = named_tasks("vision20")
BACKBONES = ["vit_b32", "vit_b16", "vit_l14"]
# Repository, classes, images of train and test, epochs, templates: from the hub's pages and the
# paper's code; DTD's images to train on are those of its clean split.
FACTS = """
cars            tanganke/stanford_cars            196   8144  8041  35  8
dtd             tanganke/dtd                       47   3760  1880  76  8
eurosat         tanganke/eurosat                   10  21600  2700  12  3
gtsrb           tanganke/gtsrb                     43  26640 12630  11  3
mnist           ylecun/mnist                       10  60000 10000   5  1
resisc45        tanganke/resisc45                  45  18900  6300  15 18
svhn            ufldl-stanford/svhn                10  73257 26032   4  1
sun397          tanganke/sun397                   397  19850 19850  14  2
stl10           tanganke/stl10                     10   5000  8000  60 18
oxford_iiit_pet timm/oxford-iiit-pet               37   3680  3669  82  1
flowers102      dpdl-benchmark/oxford_flowers102  102   1020  6149 147  1
cifar100        tanganke/cifar100                 100  50000 10000   6 18
pcam            1aurent/PatchCamelyon               2 262144 32768   1  1
fer2013         clip-benchmark/wds_fer2013          7  28709  7178  10  6
cifar10         tanganke/cifar10                   10  50000 10000   6 18
food101         ethz/food101                      101  75750 25250   4  1
fashion_mnist   zalando-datasets/fashion_mnist     10  60000 10000   5  2
rendered_sst2   nateraw/rendered-sst2               2   6920  1821  39  1
emnist          ernestchu/emnist-digits            10 240000 40000   2  1
kmnist          tanganke/kmnist                    10  60000 10000   5  1
"""
# Validation images behind the published figures, where they are not those of our split.
PAPERS_VAL = {"dtd": 564, "eurosat": 2700}


def composed(command: str, *lines: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, list(lines))


@cache
def as_shipped() -> dict[str, Task]:
    return make_tasks(composed("bench", "suite=vision20").suite.tasks)


def made(name: str, **knobs: object) -> Task:
    """The task, with switches set as a command line sets them."""
    if not knobs:
        return as_shipped()[name]
    changed = [f"task.{name}.{knob}={value}" for knob, value in knobs.items()]
    return make_tasks(composed("finetune", f"task={name}", *changed).task)[name]


@pytest.mark.parametrize("name", TASKS)
class TestTask:
    def test_classes_are_distinct_and_as_many_as_the_source_expects(self, name):
        task = made(name)
        assert isinstance(task.source, HubData)
        assert len(set(task.class_names)) == len(task.class_names) == task.source.num_classes
        assert all(isinstance(c, str) and c == c.strip() for c in task.class_names)

    def test_sizes_follow_the_papers_rule(self, name):
        task = made(name)
        total = task.source.sizes["train"]
        val = min(int(0.1 * total), 5000)
        assert task.sizes == {"train": total - val, "val": val, "test": task.source.sizes["test"]}
        assert task.sizes == {split: task.source.num_images(split) for split in SPLITS}

    def test_published_accuracies_are_whole_numbers_of_images(self, name):
        """A wrong size or a mistyped figure would leave a fraction; rounding leaves 1e-11."""
        task = made(name)
        sizes = {"test": task.sizes["test"], "val": PAPERS_VAL.get(name, task.sizes["val"])}
        assert list(published.backbones()) == BACKBONES
        for backbone in BACKBONES:
            found = published.normalizer(backbone, [name])
            assert set(found) == set(sizes)
            for split, accuracy in found.items():
                correct = accuracy[name] * sizes[split]
                assert correct == pytest.approx(round(correct), abs=1e-6), (backbone, split)
                assert 0 < round(correct) < sizes[split]

    def test_nothing_deviates_by_default(self, name):
        assert made(name).variant == ""


def test_facts_are_those_of_the_papers_tasks():
    found = {}
    for name in TASKS:
        task = made(name)
        sizes = task.source.sizes
        counts = (task.source.num_classes, sizes["train"], sizes["test"], task.epochs)
        found[name] = [task.source.repo, *map(str, counts), str(len(task.templates))]
    lines = [line.split() for line in FACTS.split("\n") if line]
    assert found == {name: facts for name, *facts in lines}


def test_suites_are_the_papers_and_each_begins_the_next():
    assert [made(name).label for name in TASKS] == PAPERS_ORDER
    assert named_tasks("vision8") == TASKS[:8]
    assert named_tasks("vision14") == TASKS[:14]


def test_clean_dtd_cannot_be_the_split_behind_the_papers_figures():
    """Its val figures are fractions of a tenth of all images, the test images among them."""
    dtd = made("dtd")
    correct = published.normalizer("vit_b32", ["dtd"])["val"]["dtd"] * dtd.sizes["val"]
    assert abs(correct - round(correct)) > 0.1
    assert PAPERS_VAL["dtd"] == (dtd.source.sizes["train"] + dtd.source.sizes["test"]) // 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The order of cars_meta.mat: sorted names would put Acura Integra second.
        (
            "cars",
            {
                0: "AM General Hummer SUV 2000",
                1: "Acura RL Sedan 2012",
                2: "Acura TL Sedan 2012",
                5: "Acura Integra Type R 2001",
                195: "smart fortwo Convertible 2012",
            },
        ),
        ("dtd", {0: "banded", 30: "polka-dotted", 46: "zigzagged"}),
        ("eurosat", {0: "annual crop land", 2: "brushland or shrubland", 9: "lake or sea"}),
        ("gtsrb", {14: "stop", 17: "red circle with white horizonal stripe no entry"}),
        ("gtsrb", {29: "red and white triangle with bicyle warning"}),
        ("mnist", {0: "0", 9: "9"}),
        ("resisc45", {13: "forest", 18: "industrial area", 32: "river", 37: "snowberg"}),
        # Sorted by folder; ClassName.txt has the two the other way round.
        ("sun397", {0: "abbey", 206: "jail cell", 207: "jail indoor", 396: "youth hostel"}),
        ("stl10", {1: "bird", 2: "car", 7: "monkey"}),
        ("oxford_iiit_pet", {0: "Abyssinian", 1: "American Bulldog", 36: "Yorkshire Terrier"}),
        ("flowers102", {0: "pink primrose", 15: "globe flower", 92: "air plant"}),
        ("cifar100", {1: "aquarium_fish", 26: "crab", 99: "worm"}),
        ("pcam", {0: "lymph node", 1: "lymph node containing metastatic tumor tissue"}),
        ("fer2013", {4: "neutral", 5: "sad", 6: "surprised"}),
        ("cifar10", {1: "automobile", 6: "frog"}),
        ("food101", {0: "apple_pie", 100: "waffles"}),
        ("fashion_mnist", {0: "T-shirt/top", 9: "Ankle boot"}),
        ("rendered_sst2", {0: "negative", 1: "positive"}),
        ("emnist", dict(enumerate("0123456789"))),
        ("kmnist", dict(enumerate("o ki su tsu na ha ma ya re wo".split()))),
    ],
)
def test_class_names_stand_in_the_order_of_the_labels(name, expected):
    names = made(name).class_names
    assert {label: names[label] for label in expected} == expected


def test_prompts_differ_from_the_hubs_class_names_only_where_that_is_known():
    """Else one of the two lists has been mistyped or is in another order."""
    odd = {}
    for name in TASKS:
        task = made(name)
        pairs = zip(task.class_names, task.source.class_names or task.class_names, strict=True)
        odd[name] = [i for i, (ours, hubs) in enumerate(pairs) if folded(ours) != folded(hubs)]
    assert {name: labels for name, labels in odd.items() if labels} == {
        "flowers102": [59, 92],
        "cifar100": [26],
        "fer2013": [1, 2, 6],
        "kmnist": list(range(10)),
    }


def test_labels_without_names_are_said_to_be_so():
    assert [n for n in TASKS if made(n).source.class_names is None] == ["pcam", "emnist"]


@pytest.mark.parametrize(
    ("name", "num_templates", "last"),
    [
        ("cars", 8, "a photo of my old AM General Hummer SUV 2000."),
        (
            "gtsrb",
            3,
            'a close up photo of a "red and white circle 20 kph speed limit" traffic sign.',
        ),
        ("mnist", 1, 'a photo of the number: "0".'),
        ("resisc45", 18, "aerial view of the airplane."),
        ("stl10", 18, "a photo of the big airplane."),
        ("pcam", 1, "this is a photo of lymph node"),  # no full stop
        ("food101", 1, "a photo of apple_pie, a type of food."),
        ("rendered_sst2", 1, "a negative review of a movie."),
    ],
)
def test_prompts_are_those_of_the_reference(name, num_templates, last):
    prompts = made(name).prompts[0]
    assert len(prompts) == num_templates
    assert prompts[-1] == last


def test_sources_know_what_their_data_sets_call_things():
    assert made("svhn").source.config == "cropped_digits"
    assert made("food101").source.splits["test"] == "validation"
    assert (made("fer2013").source.image, made("fer2013").source.label) == ("jpg", "cls")
    assert made("emnist").source.transpose
    assert not any(made(name).source.transpose for name in TASKS if name != "emnist")
    # The official validation images of pcam, flowers102 and rendered_sst2 are left unused.
    assert all(set(made(name).source.splits) == {"train", "test"} for name in TASKS)


class TestSwitch:
    def test_fer2013_can_have_the_papers_prompts(self):
        own, papers = made("fer2013"), made("fer2013", prompts="paper")
        assert own.prompts[3][0] == "a photo of a happy looking face."
        assert papers.prompts[3][0] == "a photo of a ['happy', 'smiling'] looking face."
        # The words of the last three classes are those of other labels.
        wrong = [literal_eval(name)[0] for name in papers.class_names[4:]]
        assert wrong == ["sad", "surprised", "neutral"]
        assert own.class_names[4:] == ("neutral", "sad", "surprised")
        assert papers.variant == "prompts of the paper"
        assert papers.source == own.source

    def test_stl10_can_have_two_templates(self):
        own, two = made("stl10"), made("stl10", prompts="two")
        assert two.prompts[2] == ["a photo of a car.", "a photo of the car."]
        assert set(two.templates) < set(own.templates)
        assert two.variant == "two templates"

    def test_emnist_can_be_left_as_it_lies(self):
        own, lying = made("emnist"), made("emnist", transpose="false")
        assert (own.source.transpose, lying.source.transpose) == (True, False)
        assert lying.variant == "not transposed"
        assert own.fingerprint != lying.fingerprint

    def test_eurosat_can_be_tested_on_its_training_images(self):
        own, papers = made("eurosat"), made("eurosat", test_split="train")
        assert papers.source.splits == {"train": "train", "test": "train"}
        assert papers.sizes == {**own.sizes, "test": 21600}
        assert papers.variant == "tested on the training images"
        assert own.fingerprint != papers.fingerprint

    @pytest.mark.parametrize(
        ("name", "knob", "default"),
        [
            ("fer2013", "prompts", "correct"),
            ("stl10", "prompts", "all"),
            ("emnist", "transpose", "true"),
            ("eurosat", "test_split", "test"),
        ],
    )
    def test_default_said_aloud_changes_nothing(self, name, knob, default):
        assert made(name, **{knob: default}) == made(name)

    @pytest.mark.parametrize(
        ("name", "knob", "value", "message"),
        [
            ("fer2013", "prompts", "papers", "prompts=papers; it takes one of: correct, paper"),
            ("fer2013", "prompts", "[paper]", "it takes one of: correct, paper"),
            ("stl10", "prompts", "null", "prompts=null; it takes one of: all, two"),
            ("emnist", "transpose", "no", "transpose=no; it takes one of: true, false"),
            ("emnist", "transpose", "1", "transpose=1; it takes one of: true, false"),
            ("eurosat", "test_split", "val", "test_split=val; it takes one of: test, train"),
        ],
    )
    def test_other_values_are_refused_and_the_right_ones_named(self, name, knob, value, message):
        with pytest.raises(ValueError, match=message):
            made(name, **{knob: value})

    def test_is_set_for_a_task_of_a_suite(self):
        lines = checked("bench", ["suite=vision14", "suite.tasks.fer2013.prompts=paper"])
        tasks = make_tasks(composed("bench", *lines).suite.tasks)
        assert {n: t.variant for n, t in tasks.items() if t.variant} == {
            "fer2013": "prompts of the paper"
        }

    def test_wrong_value_is_one_message_of_the_command(self, tmp_path):
        result = tsv(
            tmp_path, "bench", "suite.tasks=[signs,fer2013]", "suite.tasks.fer2013.prompts=papr"
        )
        assert result.code == 1
        assert result.err.strip().endswith(
            "error: the task 'fer2013' has prompts=papr; it takes one of: correct, paper."
        )
        assert len(result.err.splitlines()) == 1
