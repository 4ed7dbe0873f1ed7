"""The page that asks, driven with a plain HTTP client: who may ask, about which files, one at a time."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.evaluation.test_ask_page import asked
from videop2r_data.errors import MediaError
from videop2r_data.evaluation.ask import Seen
from videop2r_data.evaluation.ask_server import MAX_BODY, AskServer
from videop2r_data.schemas import ProblemType, Sample, default_grammar


class Model:
    """Stands where the asker stands, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sample] = []
        self.wait: threading.Event | None = None
        self.begun = threading.Event()

    def __call__(self, sample: Sample) -> Seen:
        self.asked.append(sample)
        self.begun.set()
        if self.wait is not None:
            assert self.wait.wait(60)
        if sample.problem == "broken":
            raise MediaError("it is <b>broken</b>", reason="media_unreadable")
        return Seen(asked(problem=sample.problem, file=sample.path), (b"x",) * 4)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[AskServer, Model]]:
    root = tmp_path / "clips"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "a b.mp4").write_bytes(b"clip")
    (root / "notes.txt").write_text("secret")
    (tmp_path / "out.mp4").write_bytes(b"outside")
    (root / "link.mp4").symlink_to(tmp_path / "out.mp4")
    model = Model()
    with AskServer(model, root.resolve(), default_grammar(), "runs/<x>") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server, model
        server.shutdown()
        thread.join()


QUESTION = {
    "path": "deep/a b.mp4",
    "problem": "What falls?",
    "options": "cup\r\n\r\n cube \r\n",
    "start": "1.5",
    "end": "",
}


def send(
    server: AskServer,
    form: dict[str, str] | bytes | None = None,
    *,
    path: str | None = None,
    **headers: str,
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)  # type: ignore[arg-type]
    body = form if isinstance(form, bytes | None) else urlencode(form).encode()
    usual = (
        {"Origin": server.origin, "Content-Type": "application/x-www-form-urlencoded"}
        if body is not None
        else {}
    )
    sent = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST" if body is not None else "GET", path or f"/{server.secret}/", body, sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_question_is_asked_and_answered_below_the_form_as_it_was_filled_in(
    served: tuple[AskServer, Model],
) -> None:
    server, model = served
    status, page = send(server)
    assert status == 200 and '<option value="deep/a b.mp4">' in page and "runs/&lt;x&gt;" in page
    assert "notes.txt" not in page
    status, page = send(server, QUESTION | {"type": ""})
    (sample,) = model.asked
    assert (
        status == 200 and sample.options == ("cup", "cube") and (sample.start_s, sample.end_s) == (1.5, None)
    )
    assert sample.problem_type is ProblemType.MULTIPLE_CHOICE
    assert 'value="deep/a b.mp4"' in page and "cup\n\n cube" in page and "<h1>What falls?</h1>" in page
    assert 'src="media/deep/a%20b.mp4#t=1.5"' in page
    _, page = send(server, QUESTION | {"options": "", "type": "OCR"})
    assert model.asked[-1].problem_type is ProblemType.OCR and "<option selected>OCR</option>" in page


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"path": "../out.mp4"}, "never leaves its root"),
        ({"path": "/etc/passwd"}, "relative"),
        ({"path": ""}, "no file is named"),
        ({"problem": ""}, "problem"),
        ({"start": "soon"}, "could not convert"),
        ({"start": "nan"}, "start_s"),
        ({"type": "poem"}, "poem"),
        ({"problem": "broken"}, "it is &lt;b&gt;broken&lt;/b&gt;"),
    ],
)
def test_what_cannot_be_asked_is_told_on_the_page(
    served: tuple[AskServer, Model], changes: dict[str, str], told: str
) -> None:
    status, page = send(served[0], QUESTION | changes)
    assert status == 422 and told in page and 'role="alert"' in page


def test_files_are_those_below_the_folder(served: tuple[AskServer, Model]) -> None:
    server, _ = served
    at = f"/{server.secret}/"
    assert send(server, path=f"{at}media/deep/a%20b.mp4") == (200, "clip")
    for path in ("media/notes.txt", "media/link.mp4", "media/../../out.mp4", "media/%2e%2e/out.mp4", "deep/a%20b.mp4",
                 "media/", "media/none.mp4"):  # fmt: skip
        assert send(server, path=at + path)[0] == 404, path


def test_only_this_page_asks(served: tuple[AskServer, Model]) -> None:
    server, model = served
    port = server.server_address[1]
    assert send(server, path="/")[0] == 404 and send(server, QUESTION, path="/guess/")[0] == 404
    assert send(server, Host="evil.example")[0] == 404
    assert send(server, QUESTION, Host=f"evil.example:{port}")[0] == 404
    assert send(server, QUESTION, Origin="http://evil.example")[0] == 403
    assert send(server, QUESTION, Origin="null")[0] == 403
    assert send(server, QUESTION, Content_Type="text/plain")[0] == 415
    assert send(server, QUESTION | {"problem": "x" * MAX_BODY})[0] == 413
    assert send(server, b"problem=%ff\xff")[0] == 400
    assert send(server, b"&".join(b"a%d=1" % i for i in range(40)))[0] == 400
    assert model.asked == []
    local = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
    assert send(server, QUESTION, **local)[0] == 200 and len(model.asked) == 1


def test_whoever_is_refused_while_sending_is_told(served: tuple[AskServer, Model]) -> None:
    """The rest of a body is sent when the server has long decided: on a busy machine, too."""
    server, model = served
    parts = [b"problem=", *[b"x" * MAX_BODY] * 3]
    for origin, status in ((server.origin, 413), ("http://evil.example", 403)):
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)  # type: ignore[arg-type]
        connection.putrequest("POST", f"/{server.secret}/")
        connection.putheader("Origin", origin)
        connection.putheader("Content-Length", str(sum(map(len, parts))))
        connection.endheaders()
        for part in parts:
            time.sleep(0.05)  # an answer that comes too early is there by now, with its reset
            connection.send(part)
        assert connection.getresponse().status == status
        connection.close()
    assert model.asked == []


def test_one_question_at_a_time(served: tuple[AskServer, Model]) -> None:
    server, model = served
    model.wait = threading.Event()
    first: list[tuple[int, str]] = []
    thread = threading.Thread(target=lambda: first.append(send(server, QUESTION)))
    thread.start()
    assert model.begun.wait(60)
    status, page = send(server, QUESTION | {"problem": "Me too?"})
    assert status == 503 and "Another question" in page and "Me too?" in page
    model.wait.set()
    thread.join()
    assert first[0][0] == 200 and len(model.asked) == 1
    assert send(server, QUESTION)[0] == 200, "the next one is answered"
