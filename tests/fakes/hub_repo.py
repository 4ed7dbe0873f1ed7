"""What the stand-in Hub keeps: repositories, their commits, references and blobs."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.hub_xet import LocalCas

LFS_SUFFIXES = (".parquet", ".gz", ".zip", ".001", ".002", ".003", ".mp4", ".png", ".safetensors", ".bin")


class Refused(Exception):
    """An answer other than 200: status, error code of the Hub, words."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass(frozen=True)
class Entry:
    """One file of a commit; `sha256` only for LFS and Xet files."""

    size: int
    oid: str
    sha256: str = ""


@dataclass
class Repo:
    """One repository with its whole history."""

    kind: str
    name: str
    private: bool
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, Entry], title: str) -> str:
        sha = hashlib.sha1(f"{self.name}{len(self.log)}{sorted(files)}".encode()).hexdigest()
        self.commits[sha] = files
        self.log.append((sha, title))
        self.branches["main"] = sha
        return sha

    def resolve(self, revision: str) -> str:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    @property
    def files(self) -> dict[str, Entry]:
        return self.commits[self.branches["main"]]


class Store:
    """Repositories and blobs; with `cas` large files live in Xet storage, else in LFS."""

    def __init__(self, root: Path, *, xet: bool) -> None:
        self.root = root
        self.cas = LocalCas(root / "cas") if xet else None
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.lock = threading.RLock()
        (root / "lfs").mkdir(parents=True)

    def repo(self, kind: str, name: str) -> Repo:
        found = self.repos.get((kind, name))
        if found is None:
            raise Refused(404, "RepoNotFound", "Repository not found")
        return found

    def create(self, kind: str, name: str, *, private: bool) -> Repo:
        if (kind, name) in self.repos:
            raise Refused(409, message="You already created this repo")
        made = self.repos[kind, name] = Repo(kind, name, private)
        made.commit({".gitattributes": self.blob(b"*.parquet filter=lfs\n")}, "initial commit")
        return made

    def blob(self, data: bytes) -> Entry:
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.blobs[oid] = data
        return Entry(len(data), oid)

    def lfs_path(self, sha256: str) -> Path:
        return self.root / "lfs" / sha256

    def has(self, sha256: str) -> bool:
        return self.lfs_path(sha256).is_file() or (self.cas is not None and self.cas.find(sha256) is not None)

    def put_file(self, repo: Repo, name: str, path: Path) -> None:
        """Put a large file into a repository at once, as somebody else's push would; it is not copied."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if not self.lfs_path(sha256).exists():
            self.lfs_path(sha256).symlink_to(path.resolve())
        entry = Entry(path.stat().st_size, self._pointer(sha256, path.stat().st_size), sha256)
        repo.commit({**repo.files, name: entry}, f"Add {name}")

    def put_text(self, repo: Repo, name: str, text: str) -> None:
        repo.commit({**repo.files, name: self.blob(text.encode())}, f"Add {name}")

    def apply(self, repo: Repo, lines: list[bytes]) -> str:
        """One commit from the ndjson of the real client."""
        items = [json.loads(line) for line in lines if line.strip()]
        head = items[0]["value"]
        if head.get("parentCommit") not in (None, repo.branches["main"]):
            raise Refused(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repo.files)
        for item in items[1:]:
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = self.blob(base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                if not self.has(value["oid"]):
                    raise Refused(400, message=f"LFS object {value['oid']} was never uploaded")
                files[value["path"]] = Entry(
                    value["size"], self._pointer(value["oid"], value["size"]), value["oid"]
                )
            elif item["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
            else:
                raise Refused(400, message=f"unknown operation {item['key']}")
        return repo.commit(files, head["summary"])

    def read(self, entry: Entry, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (not included) of a file."""
        if not entry.sha256:
            return self.blobs[entry.oid][start:end]
        if self.lfs_path(entry.sha256).is_file():
            with self.lfs_path(entry.sha256).open("rb") as file:
                file.seek(start)
                return file.read(end - start)
        assert self.cas is not None
        return self.cas.read(entry.sha256, entry.size, start, end)

    @staticmethod
    def _pointer(sha256: str, size: int) -> str:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return hashlib.sha1(b"blob %d\0" % len(text) + text.encode()).hexdigest()
