"""A small hub on this machine, with the endpoints that huggingface_hub and datasets call.

    with LoopbackHub(folder) as hub:
        hub.add("dataset", "owner/name", {"data/train.parquet": content})
        hub.use(monkeypatch, home)      # this process asks it, and caches in home
        hub.environment(home)           # the same for a process of its own

It can be told to ask for an agreement (``gate``), to cut a connection (``cut``), to stop in the
middle of a file (``hold``) and to send something else (``spoil``). It lies in its listings
(``relist``) and in any answer (``lie``). ``requests`` tells what came.
"""

import contextlib
import hashlib
import json
import os
import socket
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants, utils
from stand_ins.commands import run
from stand_ins.loopback_answers import Answers, digests


class Server(ThreadingHTTPServer):
    """Remembers its connections, which clients keep open."""

    daemon_threads = True

    def __init__(self, handler):
        self.connections = []
        super().__init__(("127.0.0.1", 0), handler)

    def get_request(self):
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, *_):
        """Of a client that went away."""

    def close(self):
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class LoopbackHub:
    """Serves the repositories in ``folder``/<kind>s/<owner>/<name>/ until it is closed."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.requests, self.gated, self.withheld, self.licences = [], set(), set(), {}
        self._cuts, self._holds, self._spoiled, self._lies = {}, {}, {}, {}
        self._relist = lambda listing: listing
        self.ranges = True  # False: whole files are sent, whatever part of them is asked for
        # Large files come from another origin than the rest, as the hub's do.
        self._servers = [self._serve(), self._serve()]
        self.url, self.store = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def _serve(self):
        server = Server(type("Bound", (Answers,), {"hub": self}))
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """From now on nothing is answered."""
        for _, event in self._holds.values():
            event.set()
        for server in self._servers:
            server.close()

    def add(self, kind, repo, files, licence=None):
        """A repository of these files: name -> bytes or text. Its folder."""
        for name, content in files.items():
            path = self.folder / f"{kind}s" / repo / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.licences[repo] = licence
        return self.folder / f"{kind}s" / repo

    def gate(self, repo):
        """Files only for those who accepted; no one has."""
        self.gated.add(repo)

    def withhold(self, name):
        """List the file, and answer that it is not there."""
        self.withheld.add(name)

    def cut(self, name, after, times=1):
        """Close the connection after so many bytes of the file, this many times."""
        self._cuts[name] = [after, times]

    def hold(self, name, after):
        """Stop sending after so many bytes of the file; the event that lets it go on."""
        self._holds[name] = (after, threading.Event())
        return self._holds[name][1]

    def spoil(self, name, content):
        """Send this instead of the file."""
        self._spoiled[name] = content

    def relist(self, change=lambda listing: listing):
        """List what ``change`` makes of the listing; without it, what there is."""
        self._relist = change

    def lie(self, part, answer):
        """Leave the answer to ``answer``, given the handler, wherever ``part`` is in the path."""
        self._lies[part] = answer

    def contents(self):
        """The requests for content: names with the ranges asked for."""
        sent = [r for r in self.requests if r.method == "GET" and r.status in (200, 206)]
        return [(r.path.split("/", 3)[3], r.range) for r in sent if r.path.startswith("/cdn/")] + [
            (r.path.split("/resolve/")[1].split("/", 1)[1], r.range)
            for r in sent
            if "/resolve/" in r.path
        ]

    def environment(self, home):
        """The variables of a process of its own that asks this hub."""
        dropped = {name for name in os.environ if name.startswith("HF_")}
        kept = {name: value for name, value in os.environ.items() if name not in dropped}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "SSL_CERT_DIR": str(self.folder),
        }

    def use(self, monkeypatch, home):
        """This process asks the hub, keeps what it fetches in ``home``, and has no token."""
        use(self.url, monkeypatch, home)

    def repository(self, kind, repo):
        """Name -> path of its files; None where there is no such repository."""
        home = self.folder / kind / repo
        if not home.is_dir() or "/" not in repo:
            return None
        return {str(p.relative_to(home)): p for p in sorted(home.rglob("*")) if p.is_file()}

    def commit(self, files):
        listed = json.dumps([(name, *digests(path)) for name, path in files.items()])
        return hashlib.sha1(listed.encode()).hexdigest()


def use(url, monkeypatch, home):
    """As `LoopbackHub.use`, in this process or in one that knows the hub by its address."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path(home) / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(Path(home) / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # It speaks no TLS; a client would read all certificates of the machine, for 20 ms.
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(home))
    utils.close_session()  # connections to an earlier hub on the same port


def fetch(url, home, arguments):
    """tsv-fetch in a process of its own, which asks the hub at ``url``."""
    with pytest.MonkeyPatch.context() as patch:
        use(url, patch, home)
        run("fetch", arguments)
