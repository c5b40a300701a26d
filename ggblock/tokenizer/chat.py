"""Chat templates: a conversation becomes the text that a model was trained to continue."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .. import errors

if TYPE_CHECKING:
    from .sandbox import Sandbox

TIME_LIMIT_S = 5.0
_PLAIN = (str, int, float, bool, type(None))
_MAX_DEPTH = 64


class ChatTemplate:
    """A file's own template, or ChatML when it has none (``is_fallback``; whoever uses it should say so).

    ``source``: the Jinja text of ``tokenizer.chat_template``, or None. ``bos_token``, ``eos_token``: the text of these
    tokens, which many templates write. ``time_limit_s``: how long a rendering may take.

    A template comes from a stranger, so it runs in a sandbox (see `sandbox`): it sees plain data only and is limited
    in steps, in time and in the text it makes.

    Raises `errors.TemplateError` when the template is no valid Jinja, or too long.
    """

    def __init__(
        self,
        source: str | None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        *,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self.is_fallback = not source
        self._tokens = {"bos_token": bos_token or "", "eos_token": eos_token or ""}
        self._sandbox: Sandbox | None = None
        if source:
            from .sandbox import Sandbox

            self._sandbox = Sandbox(source, time_limit_s)

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        add_generation_prompt: bool = True,
        tools: Sequence[object] | None = None,
        **variables: object,
    ) -> str:
        """The text of a conversation.

        ``messages``: plain data, each a mapping with ``role``, ``content`` and whatever else the template reads.
        ``add_generation_prompt``: end with the beginning of an answer. ``tools``: JSON schemas of functions.
        ``variables``: further names that the template knows, such as ``enable_thinking=False``.

        Raises `errors.TemplateError` when the template refuses the messages, fails, reaches one of its limits or
        tries to leave its sandbox, and for messages that are not plain data.
        """
        names: dict[str, object] = {
            **self._tokens,
            "messages": [_message(message) for message in messages],
            "tools": None if tools is None else _plain(tools),
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        names.update((name, _plain(value)) for name, value in variables.items())
        if self._sandbox is not None:
            return self._sandbox.render(names)
        text = "".join(_chatml(_message(message)) for message in messages)
        return text + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def _message(message: object) -> dict[object, object]:
    if not isinstance(message, Mapping):
        raise errors.TemplateError(
            "every message must be a mapping", expected="{'role': ..., 'content': ...}", actual=type(message).__name__
        )
    plain = _plain(message)
    assert isinstance(plain, dict)
    return plain


def _plain(value: object, depth: int = 0) -> object:
    """A copy made of dicts, lists and scalars only, so that a template can reach nothing else."""
    if depth > _MAX_DEPTH:
        raise errors.TemplateError("messages are nested too deeply", expected=f"at most {_MAX_DEPTH} levels")
    if isinstance(value, str):
        return str(value)
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(item, depth + 1) for item in value]
    raise errors.TemplateError(
        "messages must be plain data", expected="text, numbers, lists and mappings", actual=type(value).__name__
    )


def _chatml(message: dict[object, object]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # the parts of a multimodal message; only text can be shown
        content = "".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in content)
    return f"<|im_start|>{message.get('role', 'user')}\n{'' if content is None else content}<|im_end|>\n"
