"""A stand-in for the Hub: its HTTP API as huggingface_hub calls it to make repositories, upload, list and download."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from huggingface_hub import constants, hf_api

Files = dict[str, bytes]


class Hub(ThreadingHTTPServer):
    """Repositories by name and by revision; `refused` names those that only other people may read or write."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, Files]] = {}
        self.private: set[str] = set()
        self.refused: set[str] = set()
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, files: Files, revision: str = "main") -> None:
        self.repositories.setdefault(name, {}).setdefault(revision, {}).update(files)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        length = headers.pop("Content_Length", str(len(body)))
        for name, value in {"Content-Length": length, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), Content_Type="application/json")

    def refuse(self, status: int, code: str, text: str) -> None:
        self.answer(status, b"{}", X_Error_Code=code, X_Error_Message=text, Content_Type="application/json")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self.body()
        self.server.asked.append(path)
        if path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.validate(json.loads(body)["content"])
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/(.+)", path):
            files = [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in json.loads(body)["files"]]
            self.tell({"files": files})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/(.+)", path):
            self.commit(found[1], found[2], [json.loads(line) for line in body.splitlines()])
        else:
            self.refuse(404, "NotFound", path)

    def create(self, wanted: dict[str, Any]) -> None:
        name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
        if name in self.server.refused:
            return self.refuse(403, "Forbidden", "you have no rights here")
        self.server.add(name, {})
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.server.private.add(name)
        return self.tell({"url": f"{self.server.address}/{name}", "name": name, "id": name})

    def validate(self, text: str) -> None:
        """Judge a card's front matter as the Hub does: it has to be YAML, and of the types that it knows."""
        front = yaml.safe_load(text.split("---")[1])
        names = ("library_name", "license", "base_model", "pipeline_tag")
        bad = [name for name in names if not isinstance(front.get(name, ""), str)]
        self.tell({"errors": [{"message": f"{name} is no text"} for name in bad], "warnings": []}, 400 if bad else 200)

    def commit(self, name: str, revision: str, lines: list[dict[str, Any]]) -> None:
        files = {
            one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines if one["key"] == "file"
        }
        self.server.add(name, files, revision)
        place = f"{self.server.address}/{name}/commit/{'a' * 40}"
        self.tell({"success": True, "commitOid": "a" * 40, "commitUrl": place, "hookOutput": ""})

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        if found := re.fullmatch(r"/api/models/(.+?)(?:/(revision|tree)/([^/]+))?", path):
            name, what, revision = found[1], found[2], found[3] or "main"
        elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            name, what, revision = found[1], "file", found[2]
        else:
            return self.refuse(404, "EntryNotFound", path)
        if name in self.server.refused:
            return self.refuse(403, "GatedRepo", f"access to {name} is restricted")
        known = self.server.repositories.get(name, {})
        by_commit = {commit_of(name, one): files for one, files in known.items()}
        if name not in self.server.repositories:
            return self.refuse(404, "RepoNotFound", f"there is no {name}")
        if (files := known.get(revision) or by_commit.get(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"there is no {revision}")
        commit = revision if revision in by_commit else commit_of(name, revision)
        if what == "file":
            return self.file(files, found[3], commit)
        if what == "tree":
            return self.tell(
                [{"type": "file", "path": key, "size": len(one), "oid": etag(one)} for key, one in files.items()]
            )
        return self.tell(self.described(name, commit, files))

    do_HEAD = do_GET

    def described(self, name: str, commit: str, files: Files) -> dict[str, Any]:
        card = yaml.safe_load(files["README.md"].decode().split("---")[1]) if "README.md" in files else None
        siblings = [{"rfilename": one} for one in files]
        return {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": commit,
            "siblings": siblings,
            "cardData": card,
            "tags": [],
        }

    def file(self, files: Files, name: str, commit: str) -> None:
        if name not in files:
            return self.refuse(404, "EntryNotFound", f"there is no {name}")
        told = {"ETag": f'"{etag(files[name])}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        return self.answer(200, files[name], **told)


def commit_of(name: str, revision: str) -> str:
    return hashlib.sha1(f"{name}@{revision}".encode()).hexdigest()


def etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def hub(monkeypatch: Any, cache: Any) -> Iterator[Hub]:
    """Have huggingface_hub talk to a stand-in, with a cache of its own."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(hf_api.api, "endpoint", server.address)  # that the package's functions are methods of
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield server
        server.shutdown()
