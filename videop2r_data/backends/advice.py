"""What to change when a server refuses every request: known words of servers, and the setting behind each."""

from __future__ import annotations

import re

TRUST_FLAG = "--trust-request-mm-kwargs"
"""Of `vllm serve`: it must take the times of frames from a request."""
_FITS = (
    "the requests are longer than the model's context: serve it with a larger --max-model-len, or lower "
    "media.frames, media.max_pixels or max_tokens in the recipe"
)
_KNOWN: tuple[tuple[str, str], ...] = (
    (re.escape(TRUST_FLAG), f"start the server with {TRUST_FLAG}, or set extra.video to frames"),
    (
        r"max_completion_tokens",
        "this server wants another field: set extra.max_tokens_field: max_completion_tokens",
    ),
    (
        r"maximum (?:context|model) length|max_model_len|context[ _](?:length|window)|prompt is too long"
        r"|prompt_too_long|maximum prompt length|reduce the length|max_tokens.{0,40}too large"
        r"|must be (?:at least 1|non-negative)|encoder cache|too many tokens"
        r"|longer than the (?:maximum|model)|exceeds? the (?:maximum|limit|model)",
        _FITS,
    ),
    (
        r"not a multimodal|(?:does|do) not support (?:images?|vision|video|multi-?modal)"
        r"|image(?:s| input)? (?:is |are )?not supported"
        r"|at most \d+ (?:image|video)s?(?:\(s\))? may be provided"
        r"|allowed values: \['text'\]|text-only|too many images|limit.mm.per.prompt"
        r"|(?:image|video)_url.{0,60}(?:invalid|unsupported|not supported|unknown)",
        "the served model takes no pictures, or fewer in one request: serve a vision model with a larger "
        "--limit-mm-per-prompt, or say how clips travel with extra.video (vllm or frames)",
    ),
    (
        r"temperature|top_p",
        "this model takes no such temperature: change generate.temperature or judge.temperature",
    ),
    (
        r"system role|role .{0,20}system|roles must alternate",
        "the model's chat template knows no system message: use a prompt file without `=== system ===`",
    ),
    (
        r"chat template",
        "the server has no chat template for this model: start it with --chat-template FILE",
    ),
    (
        r"extra inputs|extra_forbidden|extra fields|is not permitted|not allowed"
        r"|(?:unknown|unrecognized|unrecognised|unsupported|unexpected)"
        r" (?:request )?(?:argument|field|key|keyword|param)",
        "the server does not know a field of the request: take it out of extra.body, or set "
        "extra.max_tokens_field",
    ),
    (
        r"status 413|too large|entity",
        "the requests are too large for the server: lower media.frames, media.max_pixels or media.quality",
    ),
)
_PATTERNS = tuple((re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in _KNOWN)


def advice_for(words: str) -> str:
    """What to change, by the server's own words; a general hint for words that are not known.

    >>> advice_for("This model's maximum context length is 4096 tokens.").split(":")[0]
    "the requests are longer than the model's context"
    """
    for pattern, advice in _PATTERNS:
        if pattern.search(words):
            return advice
    return "change what the server's words name, in the recipe or in how the server is started"


def equal_words(words: str) -> str:
    """A message without what differs from request to request: numbers, ids, quoted texts.

    >>> equal_words("too long: 5213 > 4096 (req-7f3a9c1e)"), equal_words("too long: 88 > 4096 (req-00ab12cd)")
    ('too long: # > # (req-#)', 'too long: # > # (req-#)')
    """
    plain = re.sub(r"\b[0-9a-fA-F]{8}[0-9a-fA-F-]*", "#", words)
    return re.sub(r"\d+", "#", plain)
