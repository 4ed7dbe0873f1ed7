"""Settings of the `openai` backend, checked before anything is sent."""

from __future__ import annotations

import os
import urllib.request
from typing import Any

from yarl import URL

from videop2r_data.backends.openai_wire import VideoForm
from videop2r_data.errors import ConfigError
from videop2r_data.schemas.recipe import BackendSpec

_EXTRA = {"video", "max_tokens_field", "body"}


def endpoint(spec: BackendSpec) -> tuple[URL, str]:
    """The address of chat completions, and the base as it may be shown (no query)."""
    try:
        base = URL(spec.base_url or "")
    except ValueError:
        base = URL()
    if base.scheme not in ("http", "https") or not base.host:
        raise ConfigError(
            "base_url is no http(s) address", hint="give the root of the API, e.g. http://localhost:8000/v1"
        )
    if base.user or base.password:
        raise ConfigError(
            "base_url holds a user or a password", hint="name the variable with the key in api_key_env"
        )
    shown = str(base.with_query(None).with_fragment(None))
    return base.with_path(base.path.rstrip("/") + "/chat/completions").with_query(base.query), shown


def read_settings(spec: BackendSpec) -> tuple[VideoForm, str, dict[str, Any]]:
    """The settings of `extra`, checked."""
    extra = spec.extra
    unknown = sorted(set(extra) - _EXTRA)
    if unknown:
        raise ConfigError(
            f"unknown setting(s) in extra of kind openai: {', '.join(unknown)}",
            hint=f"allowed: {', '.join(sorted(_EXTRA))}",
        )
    form = extra.get("video", "vllm")
    if form not in ("vllm", "frames"):
        raise ConfigError(f"extra.video is {form!r}", hint="allowed: vllm, frames")
    field = extra.get("max_tokens_field", "max_tokens")
    if field not in ("max_tokens", "max_completion_tokens"):
        raise ConfigError(
            f"extra.max_tokens_field is {field!r}", hint="allowed: max_tokens, max_completion_tokens"
        )
    body = extra.get("body", {})
    if not isinstance(body, dict) or {"model", "messages", "stream", "n"} & set(body):
        raise ConfigError(
            "extra.body must be a mapping without model, messages, stream and n",
            hint="put other fields of the request there, e.g. chat_template_kwargs",
        )
    return form, field, body


def read_key(spec: BackendSpec) -> str:
    """The key from the environment, "" when none is asked for."""
    if not spec.api_key_env:
        return ""
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"environment variable {spec.api_key_env} is not set",
            hint=f"export {spec.api_key_env}=<your key>, or change api_key_env in the recipe",
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"environment variable {spec.api_key_env} holds characters that no key has")
    return key


def proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for this address; looked up once, aiohttp would do it per call."""
    if url.host is None or urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(url.scheme)
