"""The endpoints of the Hub that the real clients call; importing this registers them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs

import yaml

from tests.fakes.hub_handler import READ_TOKEN, TOKEN, Handler, route
from tests.fakes.hub_repo import LFS_SUFFIXES, Entry, Refused


@route("GET", "/api/whoami-v2")
def _whoami(call: Handler) -> None:
    if call.token not in (TOKEN, READ_TOKEN):
        raise Refused(401, message="Invalid credentials in Authorization header")
    role = "write" if call.token == TOKEN else "read"
    token = {"displayName": "t", "role": role}
    call.send(
        {"type": "user", "name": "me", "orgs": [], "auth": {"type": "access_token", "accessToken": token}}
    )


@route("POST", "/api/repos/create")
def _create(call: Handler) -> None:
    asked = json.loads(call.body)
    if call.token != TOKEN:
        raise Refused(403 if call.token == READ_TOKEN else 401, message="You don't have the rights")
    name = f"{asked.get('organization') or 'me'}/{asked['name']}"
    kind = asked.get("type", "model")
    url = f"{call.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
    try:
        call.hub.store.create(kind, name, private=asked.get("visibility") == "private")
    except Refused as no:
        call.send({"error": no.message, "url": url}, status=no.status)
        return
    call.send({"url": url})


@route("POST", "/api/validate-yaml")
def _validate(call: Handler) -> None:
    text = json.loads(call.body)["content"]
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    try:
        yaml.safe_load(head.group(1) if head else "")
    except yaml.YAMLError as error:
        call.send({"errors": [{"message": str(error)}], "warnings": []}, status=400)
        return
    call.send({"errors": [], "warnings": []})


@route("POST", "D/preupload/(?P<rev>.+)")
def _preupload(call: Handler, kind: str, name: str, rev: str) -> None:
    repo = call.repo(kind, name, write=True)
    files = repo.commits[repo.resolve(rev)]
    asked = json.loads(call.body)["files"]
    assert len(asked) <= 256
    out = []
    for item in asked:
        large = item["path"].endswith(LFS_SUFFIXES) or item["size"] > 10 * 2**20
        old = files.get(item["path"])
        drop = bool(call.hub.ignored) and item["path"].startswith(call.hub.ignored)
        mode = {"path": item["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": drop}
        out.append(mode | ({"oid": old.sha256 or old.oid} if old else {}))
    call.send({"files": out})


@route("POST", "D/commit/(?P<rev>.+)")
def _commit(call: Handler, kind: str, name: str, rev: str) -> None:
    sha = call.hub.store.apply(call.repo(kind, name, write=True), call.body.splitlines())
    call.send({"commitUrl": f"{call.hub.url}/{name}/commit/{sha}", "commitOid": sha})


@route("GET", "D(?:/revision/(?P<rev>.+))?")
def _info(call: Handler, kind: str, name: str, rev: str | None) -> None:
    repo = call.repo(kind, name)
    sha = repo.resolve(rev or "main")
    siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
    call.send(
        {"id": name, "sha": sha, "private": repo.private, "tags": [], "downloads": 0, "siblings": siblings}
    )


def _item(call: Handler, path: str, entry: Entry) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
    if entry.sha256:
        item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}
        cas = call.hub.store.cas
        if cas is not None and (found := cas.find(entry.sha256)):
            item["xetHash"] = found
    return item


@route("GET", r"D/tree/(?P<rev>[^/]+)(?:/(?P<under>.*))?")
def _tree(call: Handler, kind: str, name: str, rev: str, under: str | None) -> None:
    repo = call.repo(kind, name)
    files = repo.commits[repo.resolve(rev)]
    prefix = f"{under}/" if under else ""
    inside = {path: entry for path, entry in sorted(files.items()) if path.startswith(prefix)}
    if under and not inside:
        raise Refused(404, "EntryNotFound", f"{under} does not exist")
    deep = call.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    folders: dict[str, None] = {}
    for path in inside:
        parts = path[len(prefix) :].split("/")[:-1]
        for depth in range(1, len(parts) + 1 if deep else min(len(parts), 1) + 1):
            folders[prefix + "/".join(parts[:depth])] = None
    answer = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in folders]
    answer += [
        _item(call, path, entry) for path, entry in inside.items() if deep or "/" not in path[len(prefix) :]
    ]
    call.send(answer)


@route("POST", "D/paths-info/(?P<rev>.+)")
def _paths(call: Handler, kind: str, name: str, rev: str) -> None:
    repo = call.repo(kind, name)
    files = repo.commits[repo.resolve(rev)]
    is_json = "json" in call.headers.get("Content-Type", "")
    asked = json.loads(call.body)["paths"] if is_json else parse_qs(call.body.decode()).get("paths", [])
    found: list[dict[str, Any]] = []
    for path in [asked] if isinstance(asked, str) else asked:
        if path in files:
            found.append(_item(call, path, files[path]))
        elif any(other.startswith(f"{path}/") for other in files):
            found.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
    call.send(found)


@route("GET", "D/refs")
def _refs(call: Handler, kind: str, name: str) -> None:
    repo = call.repo(kind, name)
    branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": s} for n, s in repo.branches.items()]
    tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": s} for n, s in repo.tags.items()]
    call.send({"branches": branches, "converts": [], "tags": tags})


@route("GET", "D/commits/(?P<rev>.+)")
def _commits(call: Handler, kind: str, name: str, rev: str) -> None:
    log = reversed(call.repo(kind, name).log)
    date = "2026-01-01T00:00:00.000Z"
    call.send([{"id": sha, "title": title, "message": "", "date": date, "authors": []} for sha, title in log])


@route("POST", "D/tag/(?P<rev>.+)")
def _tag(call: Handler, kind: str, name: str, rev: str) -> None:
    repo, tag = call.repo(kind, name, write=True), json.loads(call.body)["tag"]
    if tag in repo.tags:
        raise Refused(409, message=f"Tag {tag} already exists")
    repo.tags[tag] = repo.resolve(rev)
    call.send({})


@route("POST", r"/(?P<prefix>datasets/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
def _batch(call: Handler, prefix: str | None, name: str) -> None:
    call.repo("dataset" if prefix else "model", name, write=True)
    out = []
    for item in json.loads(call.body)["objects"]:
        actions = {
            "upload": {"href": f"{call.hub.url}/lfs/{item['oid']}"},
            "verify": {"href": f"{call.hub.url}/lfs-verify/{item['oid']}"},
        }
        out.append(item if call.hub.store.has(item["oid"]) else item | {"actions": actions})
    call.send({"transfer": "basic", "objects": out})


@route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
def _put(call: Handler, oid: str) -> None:
    call.hub.received += len(call.body)
    call.hub.store.lfs_path(oid).write_bytes(call.body)
    call.send({})


@route("POST", "/lfs-verify/(?P<oid>[0-9a-f]{64})")
def _verify(call: Handler, oid: str) -> None:
    if not call.hub.store.has(oid):
        raise Refused(404, message="never uploaded")
    call.send({})


@route("GET", "D/xet-(?P<what>read|write)-token/(?P<rev>.+)")
def _xet_token(call: Handler, kind: str, name: str, what: str, rev: str) -> None:
    call.repo(kind, name, write=what == "write")
    assert call.hub.store.cas is not None
    headers = {
        "X-Xet-Cas-Url": call.hub.store.cas.url,
        "X-Xet-Access-Token": "xet",
        "X-Xet-Token-Expiration": "4102444800",
    }
    info = {"casUrl": call.hub.store.cas.url, "accessToken": "xet", "exp": 4102444800}
    call.send(info, headers=headers)


@route("GET", r"/(?P<prefix>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
def _resolve(call: Handler, prefix: str | None, name: str, rev: str, path: str) -> None:
    kind = "dataset" if prefix else "model"
    repo = call.repo(kind, name)
    sha = repo.resolve(rev)
    entry = repo.commits[sha].get(path)
    if entry is None:
        raise Refused(404, "EntryNotFound", f"Entry not found: {path}")
    if not entry.sha256:
        call.send_file(entry, {"X-Repo-Commit": sha, "ETag": f'"{entry.oid}"'})
        return
    headers = {
        "X-Repo-Commit": sha,
        "X-Linked-Etag": f'"{entry.sha256}"',
        "X-Linked-Size": str(entry.size),
        "Location": f"{call.hub.cdn}/{call.hub.links}/{entry.sha256}/{entry.size}",
    }
    cas = call.hub.store.cas
    if cas is not None and (found := cas.find(entry.sha256)):
        headers["X-Xet-Hash"] = found
        auth = f"{call.hub.url}/api/{kind}s/{name}/xet-read-token/{sha}"
        headers["Link"] = f'<{auth}>; rel="xet-auth"'
    call.send(status=302, headers=headers)


@route("GET", r"/cdn/(?P<link>\d+)/(?P<sha256>[0-9a-f]{64})/(?P<size>\d+)")
def _cdn(call: Handler, link: str, sha256: str, size: str) -> None:
    if call.token:
        raise Refused(400, message="the token reached another host")
    if int(link) < call.hub.links:
        raise Refused(403, message="Request has expired")
    call.hub.served[sha256] += call.send_file(Entry(int(size), "", sha256), {"ETag": f'"{sha256}"'})
