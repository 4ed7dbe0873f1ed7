"""OpenAI's and Google's batch APIs on loopback, over the real protocols, that fail on demand.

Both are strict where the real ones are (credentials, purpose, endpoint, unique ids, sizes), keep what they took
and count it. `FakeOpenAIBatches` was held against the official client (tests/integration/test_file_batches.py),
`FakeGemini` is written after the REST reference of v1beta and what google-genai 2.19 sends and reads.

    async with FakeGemini() as server:
        server.fail("create", Cut(after=True))      # the next batch is accepted, its answer is lost
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from aiohttp import web

from tests.fakes.anthropic_server import Cut, CutStream, Garbage, Slow, Status, stream_lines

Fault = Status | Cut | CutStream | Slow | Garbage
Outcome = str
"""`succeeded`, `expired`, `cancelled`, `bad` (a fault of the request), `busy`, `broken`."""


@dataclass
class Batch:
    """One accepted batch; it is read (`validating`, `PENDING`) with the first look, and ends after `polls`."""

    batch_id: str
    created_s: float
    label: Any
    entries: list[dict[str, Any]]
    polls_left: int
    state: str = ""
    """Set: the batch ended so as a whole."""
    looked: int = 0
    lines: dict[str, bytes] | None = None

    @property
    def ended(self) -> bool:
        return bool(self.state) or self.polls_left <= 0


class Refused(Exception):
    def __init__(self, message: str, status: int = 400, code: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.code = status, code


def default_answer(text: str) -> str:
    return f"you said: {text}"


@dataclass(eq=False)
class FakeBatches:
    """What both servers share; every attribute may be changed while it runs."""

    answer: Callable[[str], str] = default_answer
    polls: int = 0
    outcome: Callable[[str, int], Outcome] = lambda _key, _index: "succeeded"
    key: str = "secret-key"
    mangle: Callable[[list[bytes]], list[bytes]] = lambda lines: list(reversed(lines))
    hidden_lists: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    accepted_ids: Counter[str] = field(default_factory=Counter)
    batches: dict[str, Batch] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    def fail(self, route: str, *faults: Fault) -> None:
        """The next calls of this route fail so, one fault each."""
        self.faults[route].extend(faults)

    def routes(self, app: web.Application) -> None:
        raise NotImplementedError

    def sent_key(self, request: web.Request) -> str:
        raise NotImplementedError

    def error(self, status: int, code: str, message: str, headers: dict[str, str]) -> web.Response:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=300 * 2**20)
        self.routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.root = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.url = f"{self.root}/v1beta" if isinstance(self, FakeGemini) else f"{self.root}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def guard(self, route: str, work: Callable[[web.Request], Any]) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            self.calls[route] += 1
            fault = self.faults[route].popleft() if self.faults[route] else None
            try:
                if self.sent_key(request) != self.key:
                    raise Refused(f"Incorrect API key: {self.sent_key(request)}", 401, "invalid_api_key")
                if isinstance(fault, Slow) and not fault.after:
                    await request.read()
                    await asyncio.sleep(fault.seconds)
                if isinstance(fault, Status):
                    return self.error(fault.code, fault.kind, fault.message, fault.headers)
                if isinstance(fault, Garbage):
                    return web.Response(text=fault.body, content_type=fault.content_type)
                if isinstance(fault, CutStream):
                    request["cut"] = fault
                if isinstance(fault, Cut):
                    if fault.after:
                        await work(request)
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
                done: web.StreamResponse = await work(request)
                if isinstance(fault, Slow) and fault.after:
                    await asyncio.sleep(fault.seconds)
                return done
            except Refused as error:
                return self.error(error.status, error.code, str(error), {})

        return handler

    def accept(self, name: str, label: Any, file: str, id_field: str) -> Batch:
        if file not in self.files:
            raise Refused(f"no such file {file}", 404, "not_found")
        entries = [json.loads(line) for line in self.files[file].splitlines()]
        ids = [entry[id_field] for entry in entries]
        if len(set(ids)) != len(ids):
            raise Refused("ids must be unique")
        batch = Batch(name, time.time(), label, entries, self.polls)
        self.batches[name] = batch
        self.accepted_ids.update(ids)
        return batch

    def find(self, name: str) -> Batch:
        if name not in self.batches:
            raise Refused(f"no such batch {name}", 404, "not_found")
        return self.batches[name]

    def look(self, batch: Batch) -> None:
        batch.looked += 1
        batch.polls_left -= 1

    def newest(self) -> list[Batch]:
        if self.hidden_lists > 0:
            self.hidden_lists -= 1
            return []
        return sorted(self.batches.values(), key=lambda b: (b.created_s, b.batch_id), reverse=True)

    def lines(self, batch: Batch, id_field: str) -> dict[str, bytes]:
        """By key, made once: a second download costs nothing."""
        if batch.lines is None:
            made = {}
            for index, entry in enumerate(batch.entries):
                key = entry[id_field]
                outcome = batch.state if batch.state in ("expired", "cancelled") else self.outcome(key, index)
                line = self.line(entry, outcome)
                if line is not None:
                    made[key] = json.dumps(line).encode() + b"\n"
            batch.lines = made
        return batch.lines

    def line(self, entry: dict[str, Any], outcome: Outcome) -> dict[str, Any] | None:
        raise NotImplementedError

    async def stream(self, request: web.Request, lines: list[bytes]) -> web.StreamResponse:
        return await stream_lines(request, self.mangle(lines), "application/octet-stream")


class FakeOpenAIBatches(FakeBatches):
    """Files, batches and chat completions as api.openai.com has them."""

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/v1/models", self.guard("models", self._models))
        app.router.add_post("/v1/files", self.guard("upload", self._upload))
        app.router.add_get("/v1/files/{id}/content", self.guard("results", self._content))
        app.router.add_post("/v1/batches", self.guard("create", self._create))
        app.router.add_get("/v1/batches", self.guard("list", self._list))
        app.router.add_get("/v1/batches/{id}", self.guard("retrieve", self._retrieve))
        app.router.add_post("/v1/batches/{id}/cancel", self.guard("cancel", self._cancel))
        app.router.add_post("/v1/chat/completions", self.guard("messages", self._chat))

    def sent_key(self, request: web.Request) -> str:
        return request.headers.get("Authorization", "").removeprefix("Bearer ")

    def error(self, status: int, code: str, message: str, headers: dict[str, str]) -> web.Response:
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
        return web.json_response(body, status=status, headers=headers)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "gpt-test", "object": "model"}]})

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form.get("file")
        if form.get("purpose") != "batch" or not isinstance(file, web.FileField):
            raise Refused("purpose must be batch, with a file")
        with file.file:
            data = file.file.read()
        if len(data) > 200 * 10**6 or data.count(b"\n") > 50_000:
            raise Refused("the file is too large", 413)
        name = f"file-{len(self.files) + 1:04d}"
        self.files[name] = data
        about = {"id": name, "object": "file", "bytes": len(data), "created_at": int(time.time())}
        return web.json_response(
            about | {"filename": file.filename, "purpose": "batch", "status": "processed"}
        )

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body.get("endpoint") != "/v1/chat/completions" or body.get("completion_window") != "24h":
            raise Refused("endpoint and completion_window")
        name = f"batch_{len(self.batches) + 1:04d}"
        batch = self.accept(name, body.get("metadata"), body["input_file_id"], "custom_id")
        for entry in batch.entries:
            if (entry["method"], entry["url"]) != ("POST", body["endpoint"]) or "stream" in entry["body"]:
                raise Refused("a line does not fit the endpoint")
        return web.json_response(self._describe(batch))

    def _describe(self, batch: Batch) -> dict[str, Any]:
        read = batch.looked > 0 and batch.state != "failed"
        counts = {"total": len(batch.entries) if read or batch.ended else 0, "completed": 0, "failed": 0}
        status = batch.state or ("completed" if batch.ended else "in_progress" if read else "validating")
        files: dict[str, Any] = {"output_file_id": None, "error_file_id": ""}
        errors = None
        if status == "failed":
            counts["total"] = 0
            entry = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}
            errors = {"object": "list", "data": [entry]}
        elif batch.ended:
            for line in map(json.loads, self.lines(batch, "custom_id").values()):
                fine = (line["response"] or {}).get("status_code") == 200
                counts["completed" if fine else "failed"] += 1
                name = "output_file_id" if fine else "error_file_id"
                files[name] = f"{batch.batch_id}-{name.partition('_')[0]}"
        return {
            "id": batch.batch_id, "object": "batch", "endpoint": "/v1/chat/completions", "errors": errors,
            "input_file_id": "file-x", "completion_window": "24h", "status": status,
            "created_at": int(batch.created_s), "request_counts": counts, "metadata": batch.label, **files,
        }  # fmt: skip

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self.find(request.match_info["id"])
        told = self._describe(batch)
        self.look(batch)
        return web.json_response(told)

    async def _list(self, request: web.Request) -> web.Response:
        newest, after = self.newest(), request.query.get("after")
        ids = [batch.batch_id for batch in newest]
        start = ids.index(after) + 1 if after in ids else 0
        limit = int(request.query.get("limit", "20"))
        page = newest[start : start + limit]
        told = [self._describe(batch) for batch in page]
        for batch in page:
            self.look(batch)
        more = start + limit < len(newest)
        return web.json_response({"object": "list", "data": told, "has_more": more})

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.find(request.match_info["id"])
        batch.state = "cancelled"
        return web.json_response(self._describe(batch))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        name, _, kind = request.match_info["id"].partition("-")
        found = self.lines(self.find(name), "custom_id").values()
        fine = [line for line in found if (json.loads(line)["response"] or {}).get("status_code") == 200]
        rest = [line for line in found if line not in fine]
        return await self.stream(request, fine if kind == "output" else rest)

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        return web.json_response(self._completion(body))

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        message = {"role": "assistant", "content": self.answer(text)}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        about = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"] + "-2026"}
        return {**about, "choices": choices, "usage": usage}

    def line(self, entry: dict[str, Any], outcome: Outcome) -> dict[str, Any] | None:
        self.bodies.append(entry["body"])
        failed = {"bad": (400, "invalid_value"), "busy": (429, "rate_limit_exceeded"), "broken": (500, "x")}
        response: dict[str, Any] | None = None
        error = None
        if outcome == "succeeded":
            response = {"status_code": 200, "request_id": "r", "body": self._completion(entry["body"])}
        elif outcome in failed:
            status, code = failed[outcome]
            body = {"error": {"message": "scripted", "code": code}}
            response = {"status_code": status, "request_id": "r", "body": body}
        elif outcome == "cancelled":
            return None
        else:
            error = {"code": f"batch_{outcome}", "message": "This request could not be executed in time."}
        return {"id": "br", "custom_id": entry["custom_id"], "response": response, "error": error}


class FakeGemini(FakeBatches):
    """Files, batches and generateContent as generativelanguage.googleapis.com has them."""

    looks = 1
    """Looks at an uploaded clip before it is read."""
    broken_clip = False

    def routes(self, app: web.Application) -> None:
        self.clips: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        app.router.add_get("/v1beta/models", self.guard("models", self._models))
        app.router.add_post("/v1beta/models/{call}", self._model)
        app.router.add_post("/upload/v1beta/files", self.guard("upload", self._begin))
        app.router.add_post("/upload/{session}", self.guard("put", self._put))
        app.router.add_get("/v1beta/files/{id}", self.guard("file", self._file))
        app.router.add_delete("/v1beta/files/{id}", self.guard("delete", self._delete))
        app.router.add_get("/v1beta/batches", self.guard("list", self._list))
        app.router.add_get("/v1beta/batches/{id}", self.guard("retrieve", self._retrieve))
        app.router.add_post("/v1beta/batches/{id}:cancel", self.guard("cancel", self._cancel))

    def sent_key(self, request: web.Request) -> str:
        return request.headers.get("x-goog-api-key", "")

    def error(self, status: int, code: str, message: str, headers: dict[str, str]) -> web.Response:
        if status == 401:  # a wrong key is a bad argument here
            status, message = 400, f"API key not valid. {message}"
        details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "40s"}]
        body = {"error": {"code": status, "message": message, "status": code}}
        if status == 429:
            body["error"]["details"] = details
        return web.json_response(body, status=status, headers=headers)

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"models": [{"name": "models/gemini-test", "inputTokenLimit": 1_048_576}]})

    async def _model(self, request: web.Request) -> web.StreamResponse:
        _, _, method = request.match_info["call"].partition(":")
        work = {"generateContent": self._generate, "batchGenerateContent": self._create}[method]
        route = {"generateContent": "messages", "batchGenerateContent": "create"}[method]
        done: web.StreamResponse = await self.guard(route, work)(request)
        return done

    async def _begin(self, request: web.Request) -> web.Response:
        head = {name.lower(): value for name, value in request.headers.items()}
        assert head["x-goog-upload-protocol"] == "resumable" and head["x-goog-upload-command"] == "start"
        session = str(len(self.clips) + 1)
        self.clips[session] = {
            "name": f"files/f{session}", "displayName": (await request.json())["file"]["displayName"],
            "mimeType": head["x-goog-upload-header-content-type"], "looks": self.looks,
            "size": int(head["x-goog-upload-header-content-length"]),
        }  # fmt: skip
        # as if the server knew itself by another name
        place = f"https://upload.example/upload/{session}?upload_id=1"
        return web.Response(headers={"x-goog-upload-url": place})

    async def _put(self, request: web.Request) -> web.Response:
        data, clip = await request.read(), self.clips[request.match_info["session"]]
        assert request.headers["X-Goog-Upload-Command"] == "upload, finalize"
        assert request.content_length == clip["size"] == len(data)
        self.files[clip["name"]] = data
        return web.json_response({"file": self._about(clip)})

    def _about(self, clip: dict[str, Any]) -> dict[str, Any]:
        video = clip["mimeType"].startswith("video/")
        state = "PROCESSING" if video and clip["looks"] > 0 else "FAILED" if self.broken_clip else "ACTIVE"
        digest = hashlib.sha256(self.files[clip["name"]]).hexdigest()
        about = {"name": clip["name"], "uri": f"{self.url}/{clip['name']}", "mimeType": clip["mimeType"]}
        return {**about, "sizeBytes": str(clip["size"]), "state": state, "sha256Hash": digest}

    async def _file(self, request: web.Request) -> web.StreamResponse:
        name, _, method = request.match_info["id"].partition(":")
        if method == "download":
            assert request.query["alt"] == "media"
            self.calls["results"] += 1
            fault = self.faults["results"].popleft() if self.faults["results"] else None
            if isinstance(fault, CutStream):
                request["cut"] = fault
            lines = self.lines(self.find(f"batches/{name.removeprefix('out-')}"), "key")
            return await self.stream(request, [*lines.values()])
        clip = next(clip for clip in self.clips.values() if clip["name"] == f"files/{name}")
        clip["looks"] -= 1
        return web.json_response(self._about(clip))

    async def _delete(self, request: web.Request) -> web.Response:
        self.deleted.append(f"files/{request.match_info['id']}")
        return web.json_response({})

    async def _generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        return web.json_response(self._completion(body))

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        unknown = body.keys() - {"contents", "systemInstruction", "generationConfig", "safetySettings"}
        if unknown:
            raise Refused(f"Unknown name {sorted(unknown)[0]}")
        for part in body["contents"][-1]["parts"]:
            if (
                "fileData" in part
                and part["fileData"]["fileUri"].removeprefix(f"{self.url}/") not in self.files
            ):
                raise Refused("You do not have permission to access the File", 403, "PERMISSION_DENIED")
        text = body["contents"][-1]["parts"][-1]["text"]
        parts = [{"text": "hm", "thought": True}, {"text": self.answer(text)}]
        usage = {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 2}
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
        about = {"modelVersion": "gemini-test-001", "responseId": f"response-{len(self.bodies):012d}"}
        return {"candidates": [candidate], "usageMetadata": usage, **about}

    async def _create(self, request: web.Request) -> web.Response:
        sent = (await request.json())["batch"]
        name = f"batches/b{len(self.batches) + 1:04d}"
        batch = self.accept(name, sent["displayName"], sent["inputConfig"]["fileName"], "key")
        return web.json_response(self._describe(batch))

    def _describe(self, batch: Batch) -> dict[str, Any]:
        known = batch.looked > 0 or batch.ended
        state = batch.state.upper() or ("SUCCEEDED" if batch.ended else "RUNNING" if known else "PENDING")
        about: dict[str, Any] = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": "models/gemini-test", "displayName": batch.label, "state": f"BATCH_STATE_{state}",
            "createTime": datetime.fromtimestamp(batch.created_s, UTC).isoformat().replace("+00:00", "Z"),
        }  # fmt: skip
        told: dict[str, Any] = {"name": batch.batch_id, "metadata": about}
        if known:
            about["batchStats"] = {"requestCount": str(len(batch.entries))}
        if state == "SUCCEEDED":
            out = {"responsesFile": f"files/out-{batch.batch_id.removeprefix('batches/')}"}
            about["output"], told["response"], told["done"] = out, out, True
        elif state == "FAILED":
            told["error"] = {"code": 8, "message": "Quota of enqueued tokens"}
        return told

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self.find(f"batches/{request.match_info['id']}")
        told = self._describe(batch)
        self.look(batch)
        return web.json_response(told)

    async def _list(self, request: web.Request) -> web.Response:
        newest, start = self.newest(), int(request.query.get("pageToken") or 0)
        size = int(request.query["pageSize"])
        page = newest[start : start + size]
        told: dict[str, Any] = {"operations": [self._describe(batch) for batch in page]}
        for batch in page:
            self.look(batch)
        if start + size < len(newest):
            told["nextPageToken"] = str(start + size)
        return web.json_response(told if page else {})

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.find(f"batches/{re.sub(':cancel$', '', request.match_info['id'])}")
        batch.state = "cancelled"
        return web.json_response({})

    def line(self, entry: dict[str, Any], outcome: Outcome) -> dict[str, Any] | None:
        self.bodies.append(entry["request"])
        codes = {"bad": 3, "busy": 8, "broken": 13, "expired": 4, "cancelled": 1}
        if outcome == "succeeded":
            return {"key": entry["key"], "response": self._completion(entry["request"])}
        return {"key": entry["key"], "error": {"code": codes[outcome], "message": "scripted"}}
