"""Finding the function and calling it.

Owns the two contracts, JSON and raw: how a payload becomes an argument and a result a
payload. A result is `bytes`, or the number of bytes that lie in the lane already.
Knows lanes, not rings.
"""

import json
import sys
from types import AsyncGeneratorType, CoroutineType, GeneratorType

from . import layout
from .failures import Failure
from .vilya import ResponseTooLarge

_JSON_SPACE = " \t\n\r"
#: What a handler returns that answers in parts.
PARTS = GeneratorType, AsyncGeneratorType
_COROUTINE_FUNCTION = 0x80  # inspect.CO_COROUTINE; inspect is slow to import


def load(name):
    """Imports `module.function` and returns it; raises `Failure` saying what is wrong."""
    module_name, _, function_name = name.rpartition(".")
    if not module_name or not function_name:
        raise Failure("Runtime.MalformedHandlerName", f"the handler {name!r} is not of the form module.function")
    try:
        module_name = module_name.replace("/", ".")
        __import__(module_name)  # unlike importlib's function, leaves no frame in a traceback
        module = sys.modules[module_name]
    except SyntaxError as error:
        raise Failure("Runtime.UserCodeSyntaxError", f"Syntax error in module {module_name!r}: {error}") from error
    except ImportError as error:
        raise Failure("Runtime.ImportModuleError", f"Unable to import module {module_name!r}: {error}") from error
    except SystemExit as error:
        message = f"module {module_name!r} called sys.exit({error.code!r}) when imported"
        raise Failure("Runtime.ExitError", message) from error
    function = getattr(module, function_name, None)
    if function is None:
        raise Failure("Runtime.HandlerNotFound", f"Handler {function_name!r} missing on module {module_name!r}")
    if not callable(function):
        raise Failure("Runtime.HandlerNotFound", f"{name!r} is not a function but of type {type(function).__name__}")
    return function


def is_raw(function):
    """Whether the function was marked with `@vilya.raw`."""
    return getattr(function, "__vilya_raw__", False)


def adapt(function, channel, lane):
    """The function as `call(request, context) -> bytes | int` in one lane, for one thread at a time."""
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _COROUTINE_FUNCTION:
        import asyncio  # noqa: F401 - slow to import: now, and not in the first invocation
    return (_raw if is_raw(function) else _json)(function, channel, lane)


def _finish(coroutine):
    import asyncio

    return asyncio.run(coroutine)


def _json(function, channel, _lane):
    # Its `decode` looks for white space around the value with regular expressions, which
    # take longer than a small event.
    decoder = json.JSONDecoder()
    scan, join = decoder.scan_once, "".join
    encode, inside = _encoder()

    def call(request, context):
        event = None
        if type(request) is not bytes:
            request = channel.view(request)
        if request:
            try:
                text = str(request, "utf-8")
                try:
                    event, end = scan(text, 0)
                except StopIteration:  # no value at its very beginning
                    event, end = decoder.decode(text), len(text)
                if end != len(text) and text[end:].strip(_JSON_SPACE):
                    decoder.decode(text)  # raises, and says where the value ended
                del text  # the handler may need the memory
            except (ValueError, RecursionError) as error:
                raise Failure("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from None
        result = function(event, context)
        if type(result) is CoroutineType:
            result = _finish(result)
        if type(result) in PARTS:
            return result
        if inside:
            inside.clear()  # what the last result was that could not be encoded
        try:
            return join(encode(result, 0)).encode()
        except UnicodeEncodeError:  # a lone surrogate, which only the escaped form can carry
            return json.dumps(result, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise Failure("Runtime.MarshalError", f"Unable to marshal response: {error}") from None

    return call


def _encoder():
    """`encode(value, 0) -> strings`, and the dict in which it notes the containers that it is inside of.

    `JSONEncoder.encode` makes such an encoder for each value, which takes longer than a
    small result. This one is kept, and so is for one thread at a time.
    """
    # ensure_ascii=False: half the bytes for text that is not English. allow_nan=False:
    # NaN is not JSON, and a caller's parser would fail on it.
    plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
    inside = {}
    if json.encoder.c_make_encoder is None:
        return lambda value, _: (plain.encode(value),), inside
    separators = plain.key_separator, plain.item_separator
    text, sort_keys, skip_keys, allow_nan = json.encoder.encode_basestring, False, False, False
    make = json.encoder.c_make_encoder
    return make(inside, plain.default, text, None, *separators, sort_keys, skip_keys, allow_nan), inside


def _raw(function, channel, lane):
    def call(request, context):
        context._lane = lane
        try:
            result = function(lane.lend(request), context)
            if type(result) is CoroutineType:
                result = _finish(result)
            return _collect(result, channel, lane)
        finally:
            context._lane = None

    return call


def send_parts(parts, send):
    """Sends what a generator yields; whether somebody took all of it."""
    if type(parts) is AsyncGeneratorType:
        return _finish(_send_parts_of(parts, send))
    try:
        return all(send(_encode(part)) for part in parts)
    finally:
        parts.close()


async def _send_parts_of(parts, send):
    try:
        async for part in parts:
            if not send(_encode(part)):
                return False
        return True
    finally:
        await parts.aclose()


def _encode(part):
    if isinstance(part, str):
        return part.encode()
    try:
        return memoryview(part)
    except TypeError:
        raise TypeError(f"a generator that answers yields bytes or str, not {type(part).__name__}") from None


def _collect(result, channel, lane):
    """Brings a raw handler's result to where it can be sent from once its views are gone."""
    if type(result) is bytes or type(result) in PARTS:
        return result
    if result is None:
        return b""
    if isinstance(result, str):
        raise TypeError("a raw handler returns bytes, bytearray or memoryview; encode the str it returned")
    if type(result) is memoryview and lane.starts_response(result):
        return result.nbytes
    view = memoryview(result)
    count = view.nbytes
    if count <= layout.INLINE_BYTES or not view.contiguous or view.format != "B":
        return view.tobytes()
    if count > channel.payload_limit:
        raise too_large(count, channel)
    channel.stage(lane.number, view)
    return count


def too_large(count, channel):
    """The error of a response that exceeds the payload limit."""
    return ResponseTooLarge(
        f"the response has {count} bytes, {channel.payload_limit} are allowed; return less or raise the payload limit"
    )
