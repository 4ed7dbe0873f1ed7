"""The server of `--serve`, asked with a plain HTTP client."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from videop2r_data.cards.gallery.media import Clip
from videop2r_data.cards.gallery.page import GalleryServer, byte_range
from videop2r_data.errors import ConfigError

BYTES = bytes(range(256)) * 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GalleryServer]:
    root = tmp_path.resolve()
    (root / "a b.mp4").write_bytes(BYTES)
    (root / "secret.txt").write_text("secret")
    clips = [
        Clip("demo", "a b.mp4", "video", root / "a b.mp4"),
        Clip("demo", "late.png", "image", root / "late.png"),
        Clip("demo", "../secret.txt", "video", None),
    ]
    with GalleryServer("<p>page</p>", clips) as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: GalleryServer, path: str, *, method: str = "GET", secret: bool = True, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)  # type: ignore[arg-type]
    try:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"/{server.secret}/{path}" if secret else path, headers=sent)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_the_page_and_its_clips_are_served_on_the_loopback_address(server: GalleryServer) -> None:
    assert server.server_address[0] == "127.0.0.1" and server.url.startswith("http://127.0.0.1:")
    page, text = ask(server, "")
    assert (page.status, text) == (200, b"<p>page</p>")
    clip, body = ask(server, "media/demo/a%20b.mp4")
    assert (clip.status, body, clip.headers["Content-Type"]) == (200, BYTES, "video/mp4")
    assert clip.headers["Accept-Ranges"] == "bytes" and clip.headers["X-Content-Type-Options"] == "nosniff"
    assert clip.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    head, nothing = ask(server, "media/demo/a%20b.mp4", method="HEAD")
    assert (head.status, nothing, head.headers["Content-Length"]) == (200, b"", "1024")


@pytest.mark.parametrize(
    ("wanted", "start", "end"), [("bytes=0-9", 0, 10), ("bytes=1000-", 1000, 1024), ("bytes=-24", 1000, 1024)]
)
def test_a_range_is_answered_with_its_bytes(server: GalleryServer, wanted: str, start: int, end: int) -> None:
    answer, body = ask(server, "media/demo/a%20b.mp4", Range=wanted)
    assert (answer.status, body) == (206, BYTES[start:end])
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/1024"


@pytest.mark.parametrize(
    "wanted", ["bytes=1024-", "bytes=5-2", "bytes=-", "bytes=-0", "lines=1-2", "bytes=0-1,3-4"]
)
def test_a_range_that_is_not_there_is_416(server: GalleryServer, wanted: str) -> None:
    answer, body = ask(server, "media/demo/a%20b.mp4", Range=wanted)
    assert (answer.status, body, answer.headers["Content-Range"]) == (416, b"", "bytes */1024")


@pytest.mark.parametrize(
    "path",
    [
        "secret.txt",
        "media/demo/secret.txt",
        "media/demo/../secret.txt",
        "media/demo/%2e%2e/secret.txt",
        "media/demo/..%2fsecret.txt",
        "media/demo/",
        "/etc/passwd",
        "media/demo//etc/passwd",
        "media/demo/a b.mp4%00",
        "index.html",
    ],
)
def test_no_other_path_is_there(server: GalleryServer, path: str) -> None:
    answer, body = ask(server, path.replace(" ", "%20"))
    assert (answer.status, body) == (404, b"")


def test_nothing_is_there_without_the_secret_or_under_another_host_or_by_another_method(
    server: GalleryServer,
) -> None:
    for path in ("/", "/media/demo/a%20b.mp4", f"/{server.secret}", f"/{server.secret}x/", "/x/"):
        assert ask(server, path, secret=False)[0].status == 404, path
    assert ask(server, "", Host="evil.example")[0].status == 404
    assert ask(server, "", Host=f"localhost:{server.server_address[1]}")[0].status == 200
    assert ask(server, "", method="POST")[0].status == 501


def test_a_file_that_became_a_link_meanwhile_is_not_followed(server: GalleryServer, tmp_path: Path) -> None:
    path = tmp_path / "late.png"
    assert ask(server, "media/demo/late.png")[0].status == 404
    path.write_bytes(b"png")
    assert ask(server, "media/demo/late.png")[1] == b"png"
    path.unlink()
    path.symlink_to(tmp_path / "secret.txt")
    assert ask(server, "media/demo/late.png")[0].status == 404


def test_a_taken_port_is_told(server: GalleryServer) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        GalleryServer("", [], port=int(server.server_address[1]))


def test_byte_ranges() -> None:
    assert byte_range("bytes=0-", 0) is None and byte_range("bytes=-5", 3) == (0, 3)
    assert byte_range("bytes=2-99", 5) == (2, 5)
