"""Counts the words of a text: `POST` the text itself, get the totals and the most frequent words as JSON."""

import json
import re
from collections import Counter

import vilya

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
MOST_FREQUENT = 10


@vilya.raw
def handler(body, context):
    try:
        text = str(body, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the text is not UTF-8 at byte {error.start}") from None
    words = Counter(_WORD.findall(text.lower()))
    context.content_type = "application/json"
    return json.dumps(
        {
            "lines": text.count("\n"),
            "words": sum(words.values()),
            "distinct": len(words),
            "characters": len(text),
            "most_frequent": words.most_common(MOST_FREQUENT),
        },
        ensure_ascii=False,
    ).encode()
