"""What the hub lists is believed only if it can lie in the cache, and nowhere else."""

import json

import pytest

from tsv_bench.hub.listing import File, Listing, is_plain, parse_answer, parse_record, record

SHA1, SHA256 = "a1" * 20, "b2" * 32
ENTRY = {"rfilename": "data/a.parquet", "size": 3, "blobId": SHA1, "lfs": {"sha256": SHA256}}
ANSWER = {"sha": SHA1, "siblings": [ENTRY], "cardData": {"license": "mit"}}


def answer(**changes):
    return json.dumps({**ANSWER, **changes}).encode()


def with_entry(**changes):
    return answer(siblings=[{**ENTRY, **changes}])


def test_an_honest_answer_is_read_and_recorded():
    small = {"rfilename": "README.md", "size": 0, "blobId": SHA1}
    found = parse_answer(answer(siblings=[small, ENTRY]))
    assert found.files == (File("README.md", 0, SHA1), File("data/a.parquet", 3, SHA256))
    assert (found.commit, found.licence, found.damaged) == (SHA1, "mit", ())
    assert parse_record(record(found)) == found


def test_a_record_of_an_earlier_version_is_read():
    older = {"commit": SHA1, "licence": None, "files": [["a b/ü.png", 7, SHA1]], "damaged": ["x"]}
    assert parse_record(json.dumps(older)) == Listing(
        commit=SHA1, licence=None, files=(File("a b/ü.png", 7, SHA1),), damaged=("x",)
    )


@pytest.mark.parametrize(
    "name",
    [
        "", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "./a", "a//b", "a/", "a\\b",
        "..\\x", "C:/x", "C:x", "a\0b", "a\nb", "a\x1b[2Jb", "a\x9bb", "\ud800", "a\u202eb",
        "x" * 256, "ü" * 128, "x/" * 600 + "x", None, 3, ["a"],
    ],
)  # fmt: skip
def test_a_name_that_is_no_plain_relative_path_is_refused(name):
    assert not is_plain(name)
    with pytest.raises(ValueError, match="no plain relative path"):
        parse_answer(with_entry(rfilename=name))
    with pytest.raises(ValueError, match="no plain relative path"):
        parse_record(
            json.dumps({"commit": SHA1, "licence": None, "files": [[name, 3, SHA1]], "damaged": []})
        )


@pytest.mark.parametrize(
    "name", ["a", "a/b.c", "..a", "a..", "...", "a b/ü-猫.png", ".gitattributes"]
)
def test_a_plain_name_is_taken(name):
    assert parse_answer(with_entry(rfilename=name)).files[0].name == name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (answer(sha=None), "commit is None"),
        (answer(sha="main"), "commit is 'main', which has not 40"),
        (answer(sha=SHA1 + "\n"), "has not 40 hexadecimal digits"),
        (answer(sha="../" + SHA1), "has not 40 hexadecimal digits"),
        (with_entry(lfs={"sha256": "../../x"}), "digest '../../x'"),
        (with_entry(lfs={"sha256": "/etc/passwd"}), "digest '/etc/passwd'"),
        (with_entry(lfs={"sha256": SHA256.upper()}), "has not 40 or 64 hexadecimal digits"),
        (with_entry(lfs={"sha256": SHA256[1:]}), "has not 40 or 64 hexadecimal digits"),
        (with_entry(lfs=None, blobId=None), "digest None"),
        (with_entry(lfs=[1]), "lacks"),
        (with_entry(size=-1), "-1 bytes, which is no size"),
        (with_entry(size=True), "True bytes"),
        (with_entry(size="3"), "'3' bytes"),
        (with_entry(size=3.0), "3.0 bytes"),
        (with_entry(size=10**4000), "bytes, which is no size"),
        (with_entry(size=None), "None bytes"),
        (answer(siblings=None), "lacks"),
        (answer(siblings=[None]), "lacks"),
        (answer(siblings={"a": 1}), "lacks"),
        (answer(siblings=[ENTRY, ENTRY]), "names a file twice"),
        (answer(siblings=[ENTRY, {**ENTRY, "rfilename": "data"}]), "'data' as a file and as a fo"),
        (b"[]", "lacks"),
        (b"3", "lacks"),
        (b"null", "lacks"),
        (b"<html>", "no json that can be read"),
        (b"", "no json that can be read"),
        (b"\xff\xfe\xff", "no json that can be read"),
        (b"[" * 10**6, "no json that can be read"),
        (b'{"a":' * 10**5, "no json that can be read"),
        (b'{"sha": ' + b"9" * 10**5 + b"}", "no json that can be read"),
    ],
)  # fmt: skip
def test_a_listing_of_other_things_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        parse_answer(content)


@pytest.mark.parametrize("record", ["", "{", "[]", "null", "[" * 10**5, '{"commit": 3}'])
def test_a_record_of_other_things_is_refused(record):
    with pytest.raises(ValueError):
        parse_record(record)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ({"license": ["mit", "cc0"]}, "mit, cc0"),
        ({"license": "\x1b]0;mine\x07"}, None),  # would reach the terminal
        ({"license": {"a": 1}}, None),
        ({"license": []}, None),
        ({"license": "x" * 10**6}, "x" * 100),
        ("mit", None),
        (None, None),
    ],
)
def test_a_licence_is_shown_only_if_it_is_text(card, licence):
    assert parse_answer(answer(cardData=card)).licence == licence
