from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from typing import Any

import orjson
import pytest
from aiohttp.client_proto import ResponseHandler
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from tests.backends.calls import clip_frames, image_frames, request
from videop2r_data.backends.answers import parse_span_s, retry_after_s
from videop2r_data.backends.chat_input import video_metadata
from videop2r_data.backends.limiter import RateLimits
from videop2r_data.backends.openai.client import OpenAIBackend
from videop2r_data.backends.openai.wire import (
    FrameCache,
    parse_completion,
    rate_limits,
    request_body,
    server_message,
)
from videop2r_data.errors import ConfigError, TransientError
from videop2r_data.schemas.calls import Completion, SamplingParams, Usage
from videop2r_data.schemas.judges import BackendSpec


def body_of(*args: Any, form: Any = "vllm", **settings: Any) -> dict[str, Any]:
    raw = request_body(*args, cache=settings.pop("cache", FrameCache()), form=form, **settings)
    decoded = orjson.loads(raw)
    assert isinstance(decoded, dict)
    return decoded


class TestBody:
    def test_text(self) -> None:
        asked = request('say "hi"\n\u2028', system="be brief", max_tokens=7)
        assert body_of(asked, None) == {
            "model": "some/model",
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": 'say "hi"\n\u2028'},
            ],
            "temperature": 0.0,
            "max_tokens": 7,
        }

    def test_sampling_is_sent_only_when_set(self) -> None:
        params = SamplingParams(temperature=0.5, max_tokens=9, top_p=0.9, seed=0)
        body = body_of(request("x", params=params), None, max_tokens_field="max_completion_tokens")
        assert (body["top_p"], body["seed"], body["max_completion_tokens"]) == (0.9, 0, 9)
        assert "max_tokens" not in body

    def test_image(self) -> None:
        frames = image_frames()
        body = body_of(request('a "b"', frames=frames), frames)
        picture, text = body["messages"][0]["content"]
        head, _, data = picture["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        assert base64.b64decode(data, validate=True) == frames.encoded[0]
        assert text == {"type": "text", "text": 'a "b"'}
        assert not {"media_io_kwargs", "mm_processor_kwargs"} & set(body)

    def test_video_for_vllm(self) -> None:
        frames = clip_frames(4, fps=8.0, every=5)
        body = body_of(request("q", frames=frames), frames)
        url = body["messages"][0]["content"][0]["video_url"]["url"]
        head, *pictures = url.split(",")
        assert head == "data:video/jpeg;base64"
        assert [base64.b64decode(p, validate=True) for p in pictures] == list(frames.encoded)
        assert body["media_io_kwargs"]["video"] == {
            "num_frames": -1,
            "fps": 8.0,
            "duration": 2.0,
            "total_num_frames": 16,
            "frames_indices": [0, 5, 10, 15],
            "do_sample_frames": False,
        }
        size = body["mm_processor_kwargs"]["size"]
        assert size["shortest_edge"] <= 56 * 56 <= size["longest_edge"]

    def test_video_as_pictures(self) -> None:
        frames = clip_frames(3)
        body = body_of(request("q", frames=frames), frames, form="frames")
        kinds = [part["type"] for part in body["messages"][0]["content"]]
        assert kinds == ["image_url", "image_url", "image_url", "text"]
        assert not {"media_io_kwargs", "mm_processor_kwargs"} & set(body)

    def test_extra_fields(self) -> None:
        body = body_of(request("q"), None, extra={"chat_template_kwargs": {"enable_thinking": False}})
        assert body["chat_template_kwargs"] == {"enable_thinking": False}

    def test_frames_are_encoded_once_and_forgotten_in_turn(self) -> None:
        one, two = image_frames(seed=1), image_frames(seed=2)
        cache = FrameCache(max_bytes=10**9)
        assert cache.part(one, "vllm") is cache.part(one, "vllm")
        small = FrameCache(max_bytes=len(cache.part(one, "vllm")) + 10)
        first = small.part(one, "vllm")
        small.part(two, "vllm")
        assert small.part(one, "vllm") is not first
        assert small.part(one, "vllm") == first
        nothing = FrameCache(max_bytes=0)
        assert nothing.part(one, "vllm") == first


class TestAnswer:
    def answer(self, **changes: Any) -> bytes:
        choice = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        return orjson.dumps({"model": "m-2", "choices": [choice | changes.pop("choice", {})]} | changes)

    def test_everything_reported(self) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
        assert parse_completion(self.answer(usage=usage), asked="m") == Completion(
            text="hi",
            finish_reason="stop",
            model="m-2",
            usage=Usage(input_tokens=6, output_tokens=3, cache_read_tokens=4),
        )

    def test_thoughts_that_only_the_total_counts_are_output(self) -> None:
        usage = {
            "prompt_tokens": 21, "completion_tokens": 4, "total_tokens": 85,
            "completion_tokens_details": {"reasoning_tokens": 60},
        }  # fmt: skip
        assert parse_completion(self.answer(usage=usage), asked="m").usage == Usage(
            input_tokens=21, output_tokens=64
        )

    def test_nothing_reported(self) -> None:
        raw = orjson.dumps({"choices": [{"message": {"content": None}}]})
        assert parse_completion(raw, asked="m") == Completion(text="", finish_reason="other", model="m")

    @pytest.mark.parametrize(
        ("reason", "expected"),
        [
            ("stop", "stop"),
            ("length", "length"),
            ("content_filter", "content_filter"),
            ("tool_calls", "other"),
        ],
    )
    def test_finish_reasons(self, reason: str, expected: str) -> None:
        raw = self.answer(choice={"finish_reason": reason})
        assert parse_completion(raw, asked="m").finish_reason == expected

    @pytest.mark.parametrize(
        "choice",
        [
            {"finish_reason": "error", "error": {"code": 502, "message": "upstream is gone"}},
            {"finish_reason": None, "error": {"code": 502, "message": "upstream is gone"}},
            {"finish_reason": "abort"},
            {"finish_reason": "insufficient_system_resource"},
        ],
        ids=["openrouter", "no reason", "vllm", "deepseek"],
    )
    def test_half_an_answer_that_the_server_broke_off_is_none(self, choice: dict[str, Any]) -> None:
        with pytest.raises(TransientError, match=r"broke its answer off: (upstream|abort|insuff)") as caught:
            parse_completion(self.answer(choice=choice), asked="m")
        assert caught.value.maybe_billed

    def test_content_in_parts(self) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}]
        assert parse_completion(self.answer(choice={"message": {"content": parts}}), asked="m").text == "ab"

    def test_half_a_surrogate_pair_costs_one_character(self) -> None:
        raw = b'{"choices": [{"message": {"content": "a\\ud83d b"}}]}'
        assert parse_completion(raw, asked="m").text == "a? b"

    @pytest.mark.parametrize(
        "usage",
        [
            None,
            [],
            {"prompt_tokens": "7"},
            {"prompt_tokens": -1, "completion_tokens": True},
            {"prompt_tokens_details": 3},
        ],
    )
    def test_odd_usage_counts_nothing(self, usage: Any) -> None:
        assert parse_completion(self.answer(usage=usage), asked="m").usage == Usage()

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b" \n",
            b"<html>",
            b'{"choices": [{"mess',
            b"null",
            b"[]",
            b"3",
            b'"x"',
            b"{}",
            b'{"choices": []}',
            b'{"choices": {}}',
            b'{"choices": [null]}',
            b'{"choices": [{"message": null}]}',
            b'{"choices": [{"message": {"content": 3}}]}',
            b'{"choices": [{"message": {"content": [3]}}]}',
            b'{"choices": [{"message": {"content": [{"type": "text"}]}}]}',
            b'{"choices": [{"message": {"content": [{"type": "text", "text": 3}]}}]}',
            b'{"error": {"message": "overloaded"}}',
            b"[" * 5000,
            b"\xff\xfe",
        ],
    )
    def test_what_is_no_answer_is_worth_another_try(self, raw: bytes) -> None:
        with pytest.raises(TransientError):
            parse_completion(raw, asked="m")

    @settings(deadline=None, max_examples=200)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-5, 2**53) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "choices",
                            "message",
                            "content",
                            "usage",
                            "model",
                            "finish_reason",
                            "prompt_tokens",
                            "error",
                        ]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=20,
        )
    )
    def test_any_json_is_an_answer_or_a_transient_error(self, data: Any) -> None:
        with contextlib.suppress(TransientError):
            assert isinstance(parse_completion(orjson.dumps(data), asked="m"), Completion)

    def test_messages_are_one_short_line(self) -> None:
        assert server_message({"error": {"message": "a\n b", "code": 3}}) == "a b"
        assert server_message({"object": "error", "message": "too long"}) == "too long"
        assert server_message({"detail": [{"loc": ["body"]}]}) == '[{"loc":["body"]}]'
        assert len(server_message("x" * 5000)) == 301


class TestHeaders:
    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("1s", 1.0),
            ("6m0s", 360.0),
            ("1h2m3.5s", 3723.5),
            ("20ms", 0.02),
            ("1d", 86400.0),
            ("0.25", 0.25),
            ("", None),
            ("-3", None),
            ("inf", None),
            ("nan", None),
            ("3x", None),
            ("1s junk", None),
            ("9" * 400, None),
        ],
    )
    def test_spans(self, text: str, seconds: float | None) -> None:
        found = parse_span_s(text)
        if len(text) > 32:
            assert found is None or found > 0
        else:
            assert found == seconds

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"Retry-After": "7"}, 7.0),
            ({"Retry-After": "7", "retry-after-ms": "1500"}, 1.5),
            ({"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60.0),
            ({"Retry-After": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
            ({"Retry-After": "tomorrow"}, None),
            ({"Retry-After": "-5"}, None),
            ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "1m"}, 60.0),
            (
                {
                    "x-ratelimit-reset-requests": "2s",
                    "x-ratelimit-remaining-requests": "0",
                    "x-ratelimit-reset-tokens": "1m",
                    "x-ratelimit-remaining-tokens": "900",
                },
                2.0,
            ),
        ],
    )
    def test_retry_after(self, headers: dict[str, str], seconds: float | None) -> None:
        assert retry_after_s(CIMultiDict(headers), now=40.0) == seconds

    def test_a_date_counts_from_the_servers_own(self) -> None:
        """However wrong the clock of this machine is."""
        headers = {"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}
        assert retry_after_s(headers, now=40.0) == 30.0

    @settings(deadline=None)
    @given(st.text(max_size=40))
    def test_no_header_breaks_it(self, text: str) -> None:
        seconds = retry_after_s(
            {"retry-after": text, "retry-after-ms": text, "x-ratelimit-reset-tokens": text}
        )
        assert seconds is None or seconds >= 0

    def test_rate_limits(self) -> None:
        assert rate_limits({}) is None
        headers = {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-limit-requests": "500",
            "x-ratelimit-reset-requests": "120ms",
            "x-ratelimit-remaining-tokens": "lots",
        }
        assert rate_limits(headers) == RateLimits(
            remaining_requests=0, limit_requests=500, reset_requests_s=0.12
        )


class TestMetadata:
    def test_the_last_frame_keeps_its_time(self) -> None:
        record = clip_frames(4, fps=25.0, every=10).record
        varied = record.model_copy(update={"times_s": (0.0, 0.1, 0.2, 6.0)})
        found = video_metadata(varied)
        assert found["frames_indices"][-1] / found["fps"] == pytest.approx(6.0)

    @pytest.mark.parametrize("rate", [8.0, 23.976, 29.97, 60.0])
    def test_a_constant_rate_is_told_as_before(self, rate: float) -> None:
        """Also where the container rounds its timestamps to milliseconds: such requests keep their bytes."""
        record = clip_frames(16, fps=rate, every=19).record
        for times in (record.times_s, tuple(round(t, 3) for t in record.times_s)):
            assert video_metadata(record.model_copy(update={"times_s": times})) == {
                "fps": record.indices[-1] / times[-1],
                "duration": pytest.approx(record.source_frames / rate, abs=2e-3),
                "total_num_frames": 286,
                "frames_indices": list(range(0, 286, 19)),
            }

    def test_a_variable_rate_is_told_by_the_millisecond(self) -> None:
        record = clip_frames(4, fps=25.0, every=10).record
        varied = record.model_copy(update={"times_s": (0.0, 0.1, 0.2004, 6.0), "duration_s": 6.5})
        assert video_metadata(varied) == {
            "fps": 1000.0,
            "duration": 6.5,
            "total_num_frames": 6500,
            "frames_indices": [0, 100, 200, 6000],
        }
        close = varied.model_copy(update={"times_s": (0.0, 0.0001, 0.0002, 6.0)})
        found = video_metadata(close)
        assert [i / found["fps"] for i in found["frames_indices"]] == [0.0, 0.0001, 0.0002, 6.0]

    def test_transformers_reads_those_times(self) -> None:
        from transformers.video_utils import VideoMetadata

        record = clip_frames(4, fps=25.0, every=10).record
        varied = record.model_copy(update={"times_s": (0.0, 0.1, 0.2, 6.0), "duration_s": 6.5})
        read = VideoMetadata(**video_metadata(varied))
        assert read.timestamps == [0.0, 0.1, 0.2, 6.0]
        assert read.sampled_fps == pytest.approx(4 / 6.5)

    def test_one_frame_falls_back_to_the_container_then_the_duration(self) -> None:
        record = clip_frames(1).record
        cases: list[tuple[dict[str, Any], float]] = [
            ({"source_fps": 12.0, "source_frames": 24}, 12.0),
            ({"source_fps": None, "duration_s": 4.0, "source_frames": 24}, 6.0),
            ({"source_fps": None, "duration_s": None, "source_frames": 24}, 1.0),
        ]
        for update, fps in cases:
            assert video_metadata(record.model_copy(update=update))["fps"] == fps


class TestSettings:
    def make(self, **changes: Any) -> OpenAIBackend:
        spec = BackendSpec(kind="openai", model="m", **{"base_url": "http://h:1/v1", **changes})
        return OpenAIBackend(spec)

    @pytest.mark.parametrize(
        ("base", "url"),
        [
            ("http://h:1/v1", "http://h:1/v1/chat/completions"),
            ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
            ("https://h/x?api-version=2", "https://h/x/chat/completions?api-version=2"),
        ],
    )
    def test_the_address(self, base: str, url: str) -> None:
        assert str(self.make(base_url=base)._url) == url

    @pytest.mark.parametrize("base", ["localhost:8000", "ftp://h/v1", "http://", "/v1", "http://[bad"])
    def test_an_address_that_is_none(self, base: str) -> None:
        with pytest.raises(ConfigError, match="base_url"):
            self.make(base_url=base)

    def test_a_password_in_the_address_is_not_shown(self) -> None:
        assert "hunter2" not in repr(self.make(base_url="https://h/v1?token=hunter2"))
        with pytest.raises(ConfigError, match="user or a password") as caught:
            self.make(base_url="https://me:hunter2@h/v1")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        "extra",
        [
            {"vidoe": "frames"},
            {"video": "gif"},
            {"max_tokens_field": "n"},
            {"body": {"model": "x"}},
            {"body": 3},
        ],
    )
    def test_settings_that_do_not_exist(self, extra: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match="extra"):
            self.make(extra=extra)

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "best_of"])
    def test_no_field_lets_a_call_cost_more_than_is_written_ahead(self, name: str) -> None:
        extra = {"body": {name: 32_000}}
        self.make(extra=extra)
        with pytest.raises(ConfigError, match=f"{name} in extra.body") as caught:
            self.make(extra=extra, price={"input": 1.0, "output": 2.0})
        assert "extra.max_tokens_field" in str(caught.value.hint)


def test_a_connection_is_not_taken_before_its_last_answer_was_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that begins in the very moment in which another question's answer is read takes another way."""
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                assert length is not None
                asked = orjson.loads(await reader.readexactly(int(length[1])))["messages"][0]["content"]
                served.append(writer.get_extra_info("peername")[1])
                text = "one" if asked == "two" else asked  # the second question gets the first answer
                body = orjson.dumps(
                    {"id": f"chatcmpl-{text:x>30}", "choices": [{"message": {"content": text}}]}
                )
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
                await asyncio.sleep(0.05)  # in two pieces: the last one gives the connection back
                writer.write(body)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        spec = BackendSpec(kind="openai", base_url=f"http://127.0.0.1:{port}/v1", model="m", concurrency=2)
        backend = OpenAIBackend(spec)
        await backend.start()
        assert (await backend.complete(request("one"))).text == "one"
        third: list[asyncio.Task[Completion]] = []
        received = ResponseHandler.data_received

        def begin_then_receive(self: ResponseHandler, data: bytes) -> None:
            if not third and not data.startswith(
                b"HTTP"
            ):  # its turn comes before that of whoever waits for these bytes
                third.append(asyncio.get_running_loop().create_task(backend.complete(request("three"))))
            received(self, data)

        monkeypatch.setattr(ResponseHandler, "data_received", begin_then_receive)
        with pytest.raises(TransientError, match="another question"):
            await backend.complete(request("two"))
        assert (await third[0]).text == "three"
        await backend.close()
        server.close()

    asyncio.run(main())
    first, second, other = served
    assert first == second != other
