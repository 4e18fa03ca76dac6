"""What the model is sent for what a person types.

A request is sent as it is, a noun phrase is wrapped in a sentence. `template` overrides the choice: `"{}"` sends anything verbatim.

The default sentence, "Point to {}", is that of the examples on the cards of the released models ("Point to the boats"), and the one
that the embedded model was trained on. It is not among the 43 sentences that the published training draws from, which are longer;
one of those, `ABSENCE_TEMPLATE`, allows the model to say that there is nothing to point at.
"""

from __future__ import annotations

from molmopoint.errors import ProcessingError

POINTING_TEMPLATE = "Point to {}"
"""Form of a request that only names what to find; no full stop, as on the cards of the released models."""

ABSENCE_TEMPLATE = "Point to {}\nPlease say 'There are none.' if it is not in the image."
"""Form for things that may be absent; a sentence of the published training, so released models know it (the embedded one does not)."""

COUNTING_TEMPLATE = "How many {} are there?"
"""Form of a request to count; models answer it by pointing first."""

REQUEST_VERBS = frozenset(
    {
        "point", "find", "locate", "show", "count", "click", "where", "which", "what", "who", "how", "tap", "touch", "press",
        "select", "choose", "pick", "mark", "highlight", "label", "identify", "detect", "list", "name", "give", "describe",
        "tell", "track", "follow", "look", "search", "spot", "indicate", "is", "are", "does", "do", "can", "could", "please",
    }
)  # fmt: skip
"""First words that make a text a request of its own."""

_SENTENCE_ENDS = (".", "?", "!")
_SLOT = "{}"


def complete_prompt(text: str, template: str | None = None, *, default: str = POINTING_TEMPLATE) -> str:
    """The request that is sent for a text.

    Args:
        text: what the person typed; surrounding blanks are dropped unless a template is given.
        template: where the text goes, as in `"Click on {}"`; the text is then put in untouched.
        default: the template of a noun phrase when none is given.

    Raises:
        ProcessingError: the text is empty or no Unicode, or the template has no single `{}`.

    >>> complete_prompt("the red circles")
    'Point to the red circles'
    >>> complete_prompt("Where is the exit?")
    'Where is the exit?'
    >>> complete_prompt("exit", template="Click on {}.")
    'Click on exit.'
    """
    if not isinstance(text, str):
        raise ProcessingError(f"expected the prompt as text, got {type(text).__name__}; pictures come first, then the prompt")
    if not text.strip():
        raise ProcessingError("expected a prompt such as 'the red circles', got an empty one; say what to point at")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ProcessingError(f"expected a prompt of Unicode text, got half of a character ({error}); decode it as UTF-8") from error
    if template is not None:
        return fill_template(template, text)
    text = text.strip()
    return text if is_request(text) else fill_template(default, text)


def is_request(text: str) -> bool:
    """Whether a text is a sentence of its own: it ends like one, or starts with one of `REQUEST_VERBS`.

    >>> is_request("find the cup"), is_request("the cup"), is_request("pointed arches")
    (True, False, False)
    """
    words = text.split(maxsplit=1)
    if not words:
        return False
    first = words[0].lower().rstrip(",:;").removesuffix("'s")
    return text.rstrip().endswith(_SENTENCE_ENDS) or first in REQUEST_VERBS


def fill_template(template: str, text: str) -> str:
    """Puts the text in place of the template's `{}`; other braces, in either, mean nothing.

    Raises:
        ProcessingError: the template is no text, or has not exactly one `{}`.
    """
    if not isinstance(template, str) or template.count(_SLOT) != 1:
        raise ProcessingError(
            f"expected a template with one {{}} for the prompt, such as 'Point to {{}}', got {template!r}; "
            "use template='{}' to send the prompt exactly as typed"
        )
    return template.replace(_SLOT, text)
