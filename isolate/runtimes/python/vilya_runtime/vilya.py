"""What a function may import: `import vilya`.

A plain handler needs nothing of this: `def handler(event, context)` gets parsed
JSON and returns something that JSON can hold. A raw handler gets and returns bytes:

    import vilya

    @vilya.raw
    def handler(body, context):
        out = context.reserve(len(body))   # memory the caller is answered from
        out[:] = body
        return out                         # sent without a copy

`body` is a read-only memoryview of the request and ends with the call: the runtime
releases it. A slice or an array made from it may be kept; from then on it is a
private copy of the bytes, which no later request touches. The same holds for what
`context.reserve` gave out.
"""

__all__ = ["ResponseTooLarge", "raw"]


class ResponseTooLarge(ValueError):
    """The response does not fit the payload limit of the worker."""


def raw(handler):
    """Marks `handler` as taking a memoryview and returning a bytes-like object."""
    handler.__vilya_raw__ = True
    return handler
