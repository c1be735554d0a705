"""The conformance function in Python: `end_to_end/runtimes.rs` says what it must do."""

import os
import sys
import threading
import time

import vilya

if "BROKEN" in os.environ:
    sys.exit(4)

_met = threading.Barrier(4)


class Refused(Exception):
    pass


def parts(word, context):
    context.content_type = "text/csv"
    if word == "parts":
        yield b"one,"
        yield "zwei,"
        yield b""
        yield bytearray(b"three")
    elif word == "parts large":
        for number in range(64):
            yield bytes([number]) * (1 << 20)
    elif word == "parts raise":
        yield b"begun"
        raise Refused("in the middle")
    elif word == "parts exit":
        yield b"begun"
        os._exit(3)
    elif word == "parts endless":
        try:
            while True:
                yield b"tick\n"
        finally:
            print("not taken")


@vilya.raw
def handler(request, context):
    word = bytes(request[:16])
    if word == b"raise":
        raise Refused('asked "to"')
    if word == b"exit":
        os._exit(3)
    if word == b"id":
        return context.request_id.encode()
    if word == b"environment":
        return os.environ["GREETING"].encode()
    if word == b"meet":
        _met.wait()
        return b"met"
    if word == b"large":
        return context.reserve(1 << 40)
    if word == b"print":
        sys.stdout.write("to stdout")
        sys.stderr.write("to stderr\n")
        sys.stdout.write("\n")
        return b""
    if word == b"remaining":
        return str(context.get_remaining_time_in_millis()).encode()
    if word == b"wait":
        print("waiting", flush=True)
        while not context.cancelled:
            time.sleep(0.005)
        print("gave up")
        return b""
    if word.startswith(b"parts"):
        return parts(word.decode(), context)
    context.content_type = context.request_content_type
    out = context.reserve(len(request))
    out[:] = request
    return out
