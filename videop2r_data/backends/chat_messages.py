"""Messages as the chat templates of Hugging Face models take them."""

from __future__ import annotations

from typing import Any

from videop2r_data.schemas.calls import Frames, Request


def chat_messages(request: Request, frames: Frames | None) -> list[dict[str, Any]]:
    """Messages for a chat template: plain text, or a media placeholder before the text."""
    messages: list[dict[str, Any]] = []
    for message in request.messages:
        content: Any = message.text
        if message.media and frames is not None:
            content = [{"type": frames.record.data_type}, {"type": "text", "text": message.text}]
        messages.append({"role": message.role, "content": content})
    return messages
