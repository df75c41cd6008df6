"""The hub's answers: whatever comes, an error of ours in bounded time and memory."""

import threading

import httpx2
import pytest
from huggingface_hub import constants
from stand_ins.loopback_hub import LoopbackHub

from tsv_bench.hub import Need, NoNetwork, answers, fetch, look_up

CARS = Need(what="data of cars", repo="owner/cars", kind="dataset")
LISTING, CONTENT = "/api/datasets/owner/cars", "/resolve/"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr("tsv_bench.hub.download.WAIT", 0)
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.add("dataset", "owner/cars", {"README.md": "# cars"})
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


def endless(status, headers=None):
    """An answer that never ends."""

    def answer(handler):
        handler.close_connection = True
        handler.begin(status, headers or {})
        while True:
            handler.wfile.write(b" " * 2**16)

    return answer


def redirect(place):
    return lambda handler: handler.begin(302, {"Location": place, "Content-Length": "0"})


@pytest.mark.parametrize("part", [LISTING, CONTENT])
def test_silence_is_given_up(hub, monkeypatch, part):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    quiet = threading.Event()
    hub.lie(part, lambda handler: quiet.wait())
    with pytest.raises(
        NoNetwork, match=rf"data of cars .* {hub.url} cannot be reached \(timed out"
    ):
        fetch(CARS)
    quiet.set()


def test_an_endless_listing_is_given_up(hub, monkeypatch):
    monkeypatch.setattr(answers, "MAX_LISTING", 2**18)
    hub.lie(LISTING, endless(200))
    with pytest.raises(OSError, match="cannot be believed: it has more than 262144 bytes"):
        look_up(CARS)


def test_a_listing_that_trickles_is_given_up(hub, monkeypatch):
    monkeypatch.setattr(answers, "MAX_SECONDS", -1)
    hub.lie(LISTING, endless(200))
    with pytest.raises(NoNetwork, match="not whole after"):
        look_up(CARS)


@pytest.mark.parametrize("part", [LISTING, CONTENT])
@pytest.mark.parametrize("status", [400, 404, 500, 302])
def test_what_comes_with_a_refusal_is_not_read(hub, part, status):
    hub.lie(part, endless(status))
    with pytest.raises(OSError, match=f"{hub.url} answered {status}"):
        fetch(CARS)


def test_what_comes_with_a_redirect_is_not_read(hub):
    hub.lie("/README.md", endless(302, {"Location": f"{hub.url}/away"}))
    with pytest.raises(OSError, match=f"{hub.url} answered 404"):
        fetch(CARS)


@pytest.mark.parametrize("part", [LISTING, CONTENT])
def test_redirects_that_never_end_are_given_up(hub, part):
    hub.lie(part, redirect(f"{part}/again"))
    with pytest.raises(OSError, match="cannot be understood .more than 20 redirects"):
        fetch(CARS)


@pytest.mark.parametrize(
    "place", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://127.0.0.1:99999/", "//\x7f"]
)
def test_a_redirect_to_nowhere_is_an_error_of_ours(hub, place):
    hub.lie(CONTENT, redirect(place))
    with pytest.raises(OSError, match=f"data of cars .*{hub.url}"):
        fetch(CARS)


@pytest.mark.parametrize("body", [b"[1]", b'{"error": {"a": [1]}}', b"[" * 10**5, b"\xff"])
def test_the_body_of_a_refusal_may_be_anything(hub, body):
    def answer(handler):
        handler.begin(403, {"Content-Length": str(len(body)), "Content-Type": "application/json"})
        handler.wfile.write(body)

    hub.lie(LISTING, answer)
    with pytest.raises(OSError, match="there is no such dataset, or it is private"):
        look_up(CARS)


def test_a_token_does_not_leave_the_hub(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    sent = {}

    def noted(handler):
        sent[handler.path.split("/")[1]] = handler.headers.get("Authorization")
        if handler.path.startswith("/away"):
            return handler.json({})
        redirect(f"{hub.store}/away")(handler)

    hub.lie("/", noted)
    with answers.answered(f"{hub.url}/here") as response:
        assert response.status_code == 200
    assert sent == {"here": "Bearer hf_made_up", "away": None}


def test_a_small_redirect_leaves_its_connection_open(hub):
    def answer(handler):
        handler.begin(302, {"Location": "/there", "Content-Length": "5"})
        handler.wfile.write(b"moved")

    hub.lie("/here", answer)
    hub.lie("/there", lambda handler: handler.json({}))
    for _ in range(3):
        with answers.answered(f"{hub.url}/here") as response:
            assert list(response.iter_raw()) == [b"{}"]
    assert len(hub._servers[0].connections) == 1


def test_what_is_no_http_is_an_error_of_ours(hub):
    def answer(handler):
        handler.close_connection = True
        handler.wfile.write(b"\x1b[2J no http\r\n\r\n")

    hub.lie(LISTING, answer)
    with pytest.raises(NoNetwork, match="cannot be reached") as raised:
        look_up(CARS)
    assert "\x1b" not in str(raised.value)
    assert isinstance(raised.value.__cause__, httpx2.RemoteProtocolError)
