"""What the loopback hub answers, endpoint by endpoint; tests/loopback_hub.py is the hub."""

import contextlib
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

# Kept by their sha256 and sent from another place, as the hub does with what is large.
LARGE = {".parquet", ".safetensors", ".bin", ".pt", ".tar", ".zip", ".arrow", ".npy", ".npz"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None  # "bytes=100-"
    status: int


def digests(path):
    """The sha1 as git computes it, and for what is large the sha256."""
    return _digests(path, path.stat().st_mtime_ns)


@cache
def _digests(path, changed):
    content = path.read_bytes()
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    large = path.suffix in LARGE
    return (git, hashlib.sha256(content).hexdigest() if large else None)


def described(name, path):
    """A file as the endpoints list it."""
    git, sha256 = digests(path)
    size = path.stat().st_size
    lfs = {"lfs": {"oid": sha256, "sha256": sha256, "size": size, "pointerSize": 134}}
    return {"type": "file", "path": name, "oid": git, "size": size, **(lfs if sha256 else {})}


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise the content waits 40 ms for the client to say that it has the headers.
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        self.body = json.loads(self.rfile.read(length) or b"{}")
        self.answer()

    def answer(self):
        path = urlsplit(self.path).path
        for part, lie in self.hub._lies.items():
            if part in unquote(path):
                with contextlib.suppress(ConnectionError):
                    return lie(self)
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) >= 4 and parts[1] in ("models", "datasets"):
            self.api(parts[1], "/".join(parts[2:4]), parts[4:])
        elif parts[0] == "cdn":
            self.content(parts[1], "/".join(parts[2:]), Path(self.query("path")))
        elif "resolve" in parts:
            at = parts.index("resolve")
            kind = parts[0] if parts[0] in ("datasets", "models") and at == 3 else "models"
            self.resolve(kind, "/".join(parts[at - 2 : at]), parts[at + 1], parts[at + 2 :])
        else:
            self.refuse(404, "no such endpoint")

    def query(self, name):
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]

    def api(self, kind, repo, rest):
        files = self.hub.repository(kind, repo)
        if files is None:
            return self.absent()
        commit = self.hub.commit(files)
        what, revision = rest[0] if rest else "revision", rest[1] if len(rest) > 1 else "main"
        if revision not in ("main", commit):
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        entries = [described(name, path) for name, path in files.items()]
        if what == "revision":
            return self.json(self.hub._relist(self.information(kind, repo, commit, entries)))
        if what == "tree":
            return self.json(list(self.tree(entries, "/".join(rest[2:]))))
        if what == "paths-info":
            paths = self.body.get("paths", [])
            return self.json([e for e in self.tree(entries, "", True) if e["path"] in paths])
        self.refuse(404, "no such endpoint")

    def information(self, kind, repo, commit, entries):
        blobs = bool(self.query("blobs"))
        return {
            "_id": "0",
            "id": repo,
            **({"modelId": repo} if kind == "models" else {}),
            "sha": commit,
            "private": False,
            "gated": "manual" if repo in self.hub.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "cardData": {"license": self.hub.licences.get(repo)},
            "siblings": [
                {
                    "rfilename": e["path"],
                    **({"size": e["size"], "blobId": e["oid"]} if blobs else {}),
                    **({"lfs": e["lfs"]} if blobs and "lfs" in e else {}),
                }
                for e in entries
            ],
        }

    def tree(self, entries, below, recursive=None):
        """Files and folders below a folder; only those directly in it unless asked for all."""
        recursive = self.query("recursive").lower() == "true" if recursive is None else recursive
        folders = set()
        for entry in entries:
            name = entry["path"]
            if below and not name.startswith(below + "/"):
                continue
            inner = name[len(below) + 1 if below else 0 :].split("/")
            depths = range(1, len(inner)) if recursive else range(1, min(2, len(inner)))
            for depth in depths:
                folders.add("/".join(([below] if below else []) + inner[:depth]))
            if recursive or len(inner) == 1:
                yield entry
        for folder in sorted(folders):
            yield {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}

    def resolve(self, kind, repo, revision, name):
        files, name = self.hub.repository(kind, repo), "/".join(name)
        if files is None:
            return self.absent()
        commit = self.hub.commit(files)
        if revision not in ("main", commit):
            return self.refuse(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if repo in self.hub.gated:
            status = 403 if self.headers.get("Authorization") else 401
            return self.refuse(status, "Access to this repository is restricted.", "GatedRepo")
        if name not in files or name in self.hub.withheld:
            return self.refuse(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit})
        git, sha256 = digests(files[name])
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha256 or git}"'}
        if not sha256:
            return self.content(git, name, files[name], headers)
        place = quote(str(files[name]))
        headers |= {
            "X-Linked-ETag": f'"{sha256}"',
            "X-Linked-Size": str(files[name].stat().st_size),
            "Location": f"{self.hub.store}/cdn/{sha256}/{quote(name)}?path={place}",
        }
        self.begin(302, {**headers, "Content-Length": "0"})

    def content(self, digest, name, path, headers=None):
        """The file, or the rest of it that is asked for."""
        content = self.hub._spoiled.get(name, path.read_bytes())
        asked, start = self.headers.get("Range"), 0
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{digest}"', **(headers or {})}
        asked = asked if self.hub.ranges else None
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(content)), len(content) - 1)
            if start >= len(content):
                return self.begin(416, {"Content-Length": "0"})
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content = content[start : end + 1]
        self.begin(206 if asked else 200, {**headers, "Content-Length": str(len(content))})
        if self.command == "HEAD":
            return
        limit, times = self.hub._cuts.get(name, (0, 0))
        if times:
            self.hub._cuts[name][1] -= 1
            self.wfile.write(content[:limit])
            self.close_connection = True
            return
        if name in self.hub._holds:
            limit, event = self.hub._holds.pop(name)
            self.wfile.write(content[:limit])
            self.wfile.flush()
            self.hub._holds[""] = (0, event)  # so that closing lets go
            event.wait()
            content = content[limit:]
        self.wfile.write(content)

    def absent(self):
        # One who is not logged in is not told whether a repository is private or not there.
        if self.headers.get("Authorization"):
            return self.refuse(404, "Repository not found", "RepoNotFound")
        self.refuse(401, "Invalid username or password.")

    def refuse(self, status, message, code=None, headers=None):
        content = json.dumps({"error": message}).encode()
        codes = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        length = {"Content-Length": str(len(content)), "Content-Type": "application/json"}
        self.begin(status, {**codes, **length, **(headers or {})})
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, answer):
        content = json.dumps(answer).encode()
        self.begin(200, {"Content-Length": str(len(content)), "Content-Type": "application/json"})
        if self.command != "HEAD":
            self.wfile.write(content)

    def begin(self, status, headers):
        path = urlsplit(self.path).path
        asked = Request(self.command, unquote(path), self.headers.get("Range"), status)
        self.hub.requests.append(asked)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):
            self.end_headers()
