"""Records of a sweep on disk."""

from tsv_bench.cli.sweep.records import (
    Record,
    read_jobs,
    read_records,
    varying,
    write_jobs,
    write_lost,
    write_record,
)

NO_NUMBER = "{number: one, overrides: [], files: []}"


def record(number, **more):
    return Record(number=number, overrides=["method=ties", f"seed={number}"], files=[], **more)


def test_records_are_read_as_they_were_written_and_in_order(tmp_path):
    written = [record(10), record(2, error="two\nlines", host="here", seconds=1.5, metric=0.5)]
    for each in written:
        write_record(tmp_path, each)
    assert read_records(tmp_path) == written[::-1]


def test_a_record_of_another_attempt_is_replaced(tmp_path):
    write_record(tmp_path, record(0, error="broken"))
    write_record(tmp_path, record(0))
    assert read_records(tmp_path) == [record(0)]


def test_a_lost_job_has_a_record_unless_it_left_one_or_is_not_known(tmp_path):
    write_jobs(tmp_path, [["seed=0"], ["seed=1"]])
    write_record(tmp_path, record(0, error="broken"))
    for number in range(3):
        write_lost(tmp_path, number, "gone")
    lost = Record(number=1, overrides=["seed=1"], files=[], error="gone")
    assert read_records(tmp_path) == [record(0, error="broken"), lost]


def test_a_damaged_record_is_skipped_with_a_warning(tmp_path, caplog):
    write_record(tmp_path, record(1))
    for name, text in {"2": "[", "3": "a: b", "4": "just text", "5": NO_NUMBER}.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    assert read_records(tmp_path) == [record(1)]
    assert caplog.text.count("is no record of a job") == 4


def test_jobs_are_there_before_the_first_record(tmp_path):
    assert read_jobs(tmp_path) == [] == read_records(tmp_path)
    write_jobs(tmp_path, [("seed=0", "suite=mini2"), ("seed=1", "suite=mini2")])
    assert read_jobs(tmp_path) == [["seed=0", "suite=mini2"], ["seed=1", "suite=mini2"]]
    assert read_records(tmp_path) == []


def test_records_of_an_earlier_sweep_in_the_folder_go_and_nothing_else(tmp_path):
    """hydra.sweep.dir= may name it twice."""
    write_record(tmp_path, record(0))
    (tmp_path / "1.yaml").write_text("a user's: file")
    write_jobs(tmp_path, [("seed=5",)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.yaml", "jobs.yaml"]


def test_a_job_is_named_by_what_not_all_have():
    jobs = [["task@suite.tasks=[a]", "seed=0"], ["task@suite.tasks=[b]", "seed=0"]]
    assert varying(jobs[0], jobs) == "suite.tasks=[a]"
    assert varying(jobs[0], jobs[:1]) == "suite.tasks=[a] seed=0"
