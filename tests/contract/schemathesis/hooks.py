"""What schemathesis must know beyond the documents."""

import schemathesis


def first_line(response, **_):
    """Takes a stream's first line for the whole, since the stream has no end."""
    response._content = next(response.iter_lines(), b"")
    response._content_consumed = True
    response.close()
    return response


def in_short(fields):
    """Nothing comes here that a long poll could wait for, so none waits long."""
    if isinstance(fields, dict) and str(fields.get("wait_ms", "")).isdecimal():
        fields["wait_ms"] = min(int(fields["wait_ms"]), 1)


@schemathesis.hook
def before_call(context, case, kwargs):
    in_short(case.query)
    in_short(case.body)
    path = case.operation.path
    if path == "/v1/monitor":
        kwargs["hooks"] = {"response": first_line}
    elif path.endswith("/watch") and isinstance(case.query, dict):
        # A watch waits for 30 s if it is not told.
        case.query.setdefault("wait", "1ms")
