"""What a handler learns of its invocation: the second argument.

Attribute names follow the AWS Lambda context, so that code written for it runs here.
Owns no shared memory; `reserve` asks the lane for it and only during the call.
"""

import os
import time

from . import layout, metadata
from .vilya import ResponseTooLarge

# Of what `Channel.take` returns, after the invocation and its lane.
_DEADLINE_NS = 2
_METADATA = 3


class Function:
    """What stays the same for every invocation of this sandbox, from its environment."""

    def __init__(self, environment):
        self.name = environment.get("VILYA_FUNCTION", "function")
        self.version = environment.get("VILYA_VERSION", "1")
        self.memory_in_mb = int(environment.get("VILYA_MEMORY_BYTES", "0")) >> 20
        self.log_stream_name = f"{self.version}/{os.urandom(8).hex()}"


class Context:
    """One invocation's context."""

    __slots__ = ("_function", "_channel", "_submission", "_lane", "_request", "_content_type", "_archived_content_type")

    def __init__(self, function, channel, submission):
        self._function = function
        self._channel = channel
        self._submission = submission  # see `Channel.take`
        self._lane = None  # set for raw handlers, while they run
        self._request = None
        self._content_type = None
        self._archived_content_type = b""

    # Of the function.

    @property
    def function_name(self):
        """The name the function is invoked by."""
        return self._function.name

    @property
    def function_version(self):
        """The deployed version that runs."""
        return self._function.version

    @property
    def invoked_function_arn(self):
        """A name in the form that libraries written for AWS Lambda take apart."""
        return f"arn:aws:lambda:local:000000000000:function:{self._function.name}"

    @property
    def memory_limit_in_mb(self):
        """The sandbox's memory limit, in MiB."""
        return self._function.memory_in_mb

    @property
    def log_group_name(self):
        """The function's logs."""
        return f"/vilya/{self._function.name}"

    @property
    def log_stream_name(self):
        """This process's part of the function's logs."""
        return self._function.log_stream_name

    @property
    def identity(self):
        """None: callers have no Cognito identity here."""
        return None

    @property
    def client_context(self):
        """None: callers send no mobile client context here."""
        return None

    # Of the request.

    @property
    def request_id(self):
        """The request's id, as the worker's own answer shows it: 32 hexadecimal digits."""
        return self._metadata().request_id.hex()

    @property
    def aws_request_id(self):
        """The same id in the form of AWS Lambda, which is a UUID's."""
        text = self.request_id
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    @property
    def received_unix_ms(self):
        """When the worker received the request, in milliseconds since the Unix epoch."""
        return self._metadata().received_unix_ms

    @property
    def request_content_type(self):
        """The request's content type; empty when it named none."""
        return self._metadata().content_type

    @property
    def trace_parent(self):
        """The request's W3C `traceparent`; empty when it had none."""
        return self._metadata().trace_parent

    @property
    def deadline_ns(self):
        """When the worker gives the invocation up, on the clock of `time.monotonic_ns()`."""
        return self._submission[_DEADLINE_NS]

    def get_remaining_time_in_millis(self):
        """Milliseconds until the deadline; 0 once it has passed."""
        return max(0, self._submission[_DEADLINE_NS] - time.monotonic_ns()) // 1_000_000

    @property
    def cancelled(self):
        """Whether the caller is gone: what is returned now will be thrown away."""
        return self._channel.cancelled(*self._submission[:_DEADLINE_NS])

    # Of the response.

    @property
    def content_type(self):
        """The response's content type; None stands for the default."""
        return self._content_type

    @content_type.setter
    def content_type(self, value):
        self._archived_content_type = b"" if value is None else metadata.response_metadata(value)
        self._content_type = value

    def reserve(self, count):
        """`count` writable bytes that the response is sent from without a copy.

        Return the view, or its beginning `view[:n]`. One area an invocation: a second
        call hands out the same bytes again.
        """
        if self._lane is None:
            raise RuntimeError("context.reserve works while a handler marked @vilya.raw runs")
        if count > self._channel.payload_limit:
            raise ResponseTooLarge(
                f"{count} bytes reserved, {self._channel.payload_limit} allowed; return less or raise the payload limit"
            )
        return self._lane.response.lend(layout.METADATA_BYTES, count)

    def _metadata(self):
        if self._request is None:
            self._request = metadata.RequestMetadata(self._submission[_METADATA])
        return self._request
