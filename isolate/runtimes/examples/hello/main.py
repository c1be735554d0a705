"""Greets whoever the event names: `{"name": "Ada"}`."""


def handler(event, context):
    name = event.get("name", "world") if isinstance(event, dict) else "world"
    return {"message": f"Hello, {name}!", "requestId": context.request_id}
