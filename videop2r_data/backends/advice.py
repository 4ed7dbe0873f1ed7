"""What to change when a server refuses a request: its own words, read for the few causes that are common.

The words differ from server to server and change between versions. So a cause is guessed from them and told
as advice beside the quotation, never acted on.
"""

from __future__ import annotations

import re

TRUST_FLAG = "--trust-request-mm-kwargs"
"""Of `vllm serve`: it must take the times of frames from a request."""
UNKNOWN = "change what the server names in its own words, then ask again"
_CAUSES = (
    (re.escape(TRUST_FLAG), f"start the server with {TRUST_FLAG}, or set extra.video to frames"),
    (
        r"context length|context window|max_model_len|prompt is too long|too many tokens"
        r"|maximum (?:context|model|input|prompt)|longer than the (?:maximum|model)"
        r"|exceeds? the (?:maximum|limit|model)",
        "prompt and answer do not fit the model's context: start the server with a larger "
        "--max-model-len, or lower media.frames, media.max_pixels or max_tokens in the recipe",
    ),
    (
        r"at most \d+ (?:image|video|audio)|limit.mm.per.prompt|too many images",
        "the server limits pictures or clips per request: start vLLM with "
        """--limit-mm-per-prompt '{"image": 16, "video": 1}', or lower media.frames""",
    ),
    (
        r"max_completion_tokens",
        "set extra.max_tokens_field to max_completion_tokens in this backend of the recipe",
    ),
    (
        r"chat template|system role|roles must alternate",
        "the model's chat template does not take these messages: give the server --chat-template, or use "
        "a prompt file without a system section",
    ),
    (
        r"\b413\b|too large",
        "the request is too large for the server or a proxy before it: lower media.frames, "
        "media.max_pixels or media.quality",
    ),
    (
        r"image|video|multi.?modal|vision|mm_processor|media_io|content.{0,20}(?:list|array|string)",
        "the model takes no such media: serve a vision-language model, or set extra.video to frames if "
        "the server knows pictures but no clips",
    ),
    (r"temperature|top_p", "set temperature (and top_p) in the recipe to what this model takes"),
    (
        r"unknown|unrecogni[sz]ed|unsupported|unexpected|not permitted|not allowed|forbidden",
        "take the field that the server names out of extra.body, or set extra.video to frames",
    ),
)
_READ = tuple((re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in _CAUSES)


def what_to_change(said: str) -> str:
    """Advice for a refusal.

    Args:
        said: the server's words, with the status if there is one.

    >>> what_to_change("status 400: At most 0 video(s) may be provided in one prompt.").split(":")[0]
    'the server limits pictures or clips per request'
    """
    return next((advice for pattern, advice in _READ if pattern.search(said)), UNKNOWN)


def equal_words(words: str) -> str:
    """A message without what differs from request to request: ids and numbers.

    >>> equal_words("too long: 5213 > 4096 (req-7f3a9c1e)"), equal_words("too long: 88 > 4096 (req-00ab12cd)")
    ('too long: # > # (req-#)', 'too long: # > # (req-#)')
    """
    return re.sub(r"\d+", "#", re.sub(r"\b[0-9a-fA-F]{8}[0-9a-fA-F-]*", "#", words))
