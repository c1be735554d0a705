"""Upper-cases ASCII text, bytes in and bytes out: the body is read and the answer written in shared memory."""

import vilya

_TABLE = bytes(range(256)).upper()


@vilya.raw
def handler(body, context):
    context.content_type = context.request_content_type or "text/plain"
    out = context.reserve(len(body))
    # bytes.translate needs bytes: a piece at a time, so that no second copy of a large body exists.
    for start in range(0, len(body), 65_536):
        piece = bytes(body[start : start + 65_536]).translate(_TABLE)
        out[start : start + len(piece)] = piece
    return out
