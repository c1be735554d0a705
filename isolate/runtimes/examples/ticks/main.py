"""Answers in parts: server-sent events, each when the client has taken the one before."""


def handler(event, context):
    context.content_type = "text/event-stream"
    for number in range(event["count"]):
        yield f"data: {number}\n\n"
