"""Uses a client that openapi-python-client has generated of openapi/gateway.json.

usage: generated_client.py DIRECTORY URL, where DIRECTORY holds the package `plinth_client`.
"""

import base64
import io
import sys

sys.path.insert(0, sys.argv[1])

from plinth_client import Client
from plinth_client.api.cluster import get_status, list_processes
from plinth_client.api.keys import (
    atomic_operation,
    delete_key,
    delete_keys,
    get_key,
    list_keys,
    put_key,
    put_key_b64,
    watch_key,
)
from plinth_client.api.transactions import (
    begin_transaction,
    commit_transaction,
    get_key_in_transaction,
    put_key_in_transaction,
    transact,
)
from plinth_client.models import (
    AddChange,
    AtomicName,
    AtomicRequest,
    Base64,
    Checking,
    CommitTransaction,
    ErrorCode,
    KeyAnswer,
    KeyRead,
    Operating,
    Page,
    Problem,
    RangeRead,
    Reading,
    SetChange,
    Setting,
    TransactionAnswer,
    TransactionRequest,
    Written,
)
from plinth_client.types import UNSET, File


def raw(value):
    return File(payload=io.BytesIO(value))


def is_a(kind, answer):
    assert isinstance(answer, kind), answer
    return answer


def refused(code, answer):
    assert is_a(Problem, answer).code == code, answer
    return answer


def single_keys(client):
    delete_keys.sync(client=client, from_="generated/", to="generated0")
    written = is_a(Written, put_key.sync("generated/a b", client=client, body=raw(b"one")))
    answer = is_a(KeyAnswer, get_key.sync("generated/a b", client=client))
    assert (answer.key, answer.value) == ("generated/a b", "one"), answer
    assert int(answer.version) >= int(written.version), answer
    # Bytes that are no text.
    is_a(Written, put_key.sync("generated/bytes", client=client, body=raw(b"\xff\x00")))
    answer = is_a(KeyAnswer, get_key.sync("generated/bytes", client=client))
    assert base64.b64decode(is_a(Base64, answer.value).b64) == b"\xff\x00", answer
    again = put_key.sync("generated/bytes", client=client, body=raw(b"x"), if_none_match="*")
    refused(ErrorCode.PRECONDITION_FAILED, again)
    is_a(Written, delete_key.sync("generated/bytes", client=client))
    missing = get_key.sync_detailed("generated/bytes", client=client)
    assert missing.status_code == 404, missing
    refused(ErrorCode.KEY_NOT_FOUND, missing.parsed)
    # A key that no path holds; it is the system's.
    system = put_key_b64.sync(client=client, key_b64="/w==", body=raw(b"x"))
    refused(ErrorCode.SYSTEM_KEY, system)


def ranges(client):
    for number in range(5):
        is_a(Written, put_key.sync(f"generated/r{number}", client=client, body=raw(b"v")))
    found, cursor = [], UNSET
    while True:
        page = is_a(Page, list_keys.sync(client=client, prefix="generated/r", limit=2, cursor=cursor))
        found += [item.key for item in page.items]
        cursor = page.cursor
        if not cursor:
            break
    assert found == [f"generated/r{number}" for number in range(5)], found


def transactions(client):
    request = TransactionRequest(
        checks=[Checking(key="generated/n", absent=True)],
        reads=[Reading(key="generated/r0"), Reading(prefix="generated/r")],
        mutations=[
            SetChange(set_=Setting(key="generated/t", value="v")),
            AddChange(add=Operating(key="generated/n", operand=7)),
        ],
        idempotency_id="generated",
    )
    answer = is_a(TransactionAnswer, transact.sync(client=client, body=request))
    key, range_ = answer.reads
    assert is_a(KeyRead, key).value == "v", key
    assert len(is_a(RangeRead, range_).items) == 5 and not range_.more, range_
    again = is_a(TransactionAnswer, transact.sync(client=client, body=request))
    assert again.version == answer.version, again
    request.idempotency_id = UNSET
    refused(ErrorCode.CHECK_FAILED, transact.sync(client=client, body=request))
    added = AtomicRequest(op=AtomicName.ADD, operand=1)
    is_a(Written, atomic_operation.sync("generated/n", client=client, body=added))
    answer = is_a(KeyAnswer, get_key.sync("generated/n", client=client))
    number = base64.b64decode(is_a(Base64, answer.value).b64)
    assert int.from_bytes(number, "little") == 8, answer

    begun = begin_transaction.sync(client=client).transaction
    put_key_in_transaction.sync(begun, "generated/i", client=client, body=raw(b"i"))
    own = is_a(KeyAnswer, get_key_in_transaction.sync(begun, "generated/i", client=client))
    assert own.value == "i", own
    assert get_key.sync_detailed("generated/i", client=client).status_code == 404
    is_a(TransactionAnswer, commit_transaction.sync(begun, client=client, body=CommitTransaction()))
    assert is_a(KeyAnswer, get_key.sync("generated/i", client=client)).value == "i"
    # It was committed, which nobody may deny.
    refused(ErrorCode.COMMIT_UNKNOWN_RESULT, commit_transaction.sync(begun, client=client, body=CommitTransaction()))


def cluster(client):
    status = get_status.sync(client=client)
    assert status.ready and status.health == "ready" and status.epoch >= 1, status
    assert any(row.role == "leader" for row in list_processes.sync(client=client).processes)
    event = watch_key.sync("generated/t", client=client, value="other")
    assert event.changed and event.value == "v", event


def main():
    # Values come as JSON where JSON is asked for.
    headers = {"Accept": "application/json"}
    with Client(base_url=sys.argv[2], headers=headers, raise_on_unexpected_status=True) as client:
        single_keys(client)
        ranges(client)
        transactions(client)
        cluster(client)


main()
