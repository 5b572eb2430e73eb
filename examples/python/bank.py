#!/usr/bin/env python3
"""A bank: transfers that never lose or make money, and auditors that look on.

    pip install requests
    examples/python/bank.py http://localhost:4000

Tellers move money between accounts, several at a time. A transfer reads two balances, then commits
both new ones and an entry in the ledger, provided that the balances are still what was read. It has
an idempotency id, so that it may be asked for again after any failure and still happens once.

Auditors add up all accounts, as they are at one version: the sum is the same each time. At the end
the ledger accounts for every balance. The bank stays open for --seconds, or until Ctrl-C.
"""

import argparse
import itertools
import random
import signal
import sys
import threading
import time
import uuid

import requests

ACCOUNTS = 8
DEPOSIT = 100
# A request that the cluster can't serve yet is worth another attempt for so long.
PATIENCE = 60


class Refused(Exception):
    """A problem document: an answer that another attempt does not change."""

    def __init__(self, problem):
        super().__init__(f"{problem['code']}: {problem['detail']}")
        self.code = problem["code"]


class Plinth:
    """A cluster, by its gateways. One for each thread: a session is not shared."""

    def __init__(self, urls):
        self.urls = itertools.cycle(urls)
        self.url = next(self.urls)
        self.session = requests.Session()

    def ask(self, method, path, pinned=False, **arguments):
        """Asks until there is an answer. What is asked must be safe to ask again.

        A request that is pinned to a version can't succeed once that is too old.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = self.session.request(method, self.url + path, timeout=10, **arguments)
                if answer.ok:
                    return answer.json()
                problem = answer.json()
                retryable, wait = problem["retryable"], answer.headers.get("Retry-After", 0)
                if pinned and problem["code"] == "transaction_too_old":
                    retryable = False
            except requests.ConnectionError as error:
                problem = {"code": "unreachable", "detail": f"{self.url}: {error}"}
                retryable, wait = True, 0.1
                self.url = next(self.urls)
            except requests.Timeout as error:
                problem = {"code": "timeout", "detail": f"{self.url}: {error}"}
                retryable, wait = True, 0
            if not retryable or time.monotonic() > deadline:
                raise Refused(problem)
            time.sleep(float(wait))

    def transact(self, **transaction):
        """Commits a transaction at one version, or raises Refused."""
        return self.ask("POST", "/v1/transactions", json=transaction)


class Bank:
    """Accounts in bank/accounts/, the ledger in bank/ledger/. Keys and values are text."""

    def __init__(self, plinth):
        self.plinth = plinth

    @staticmethod
    def account(number):
        return f"bank/accounts/{number:02}"

    def open(self):
        """Forgets the last bank, and gives each account its deposit."""
        clear = {"clear_range": {"from": "bank/", "to": "bank0"}}
        deposits = [
            {"set": {"key": self.account(number), "value": str(DEPOSIT)}}
            for number in range(ACCOUNTS)
        ]
        self.plinth.transact(mutations=[clear, *deposits])

    def transfer(self, payer, payee, amount):
        """Moves money, if the payer has so much. Says whether it did."""
        payer, payee = self.account(payer), self.account(payee)
        while True:
            reads = self.plinth.transact(reads=[{"key": payer}, {"key": payee}])["reads"]
            had, got = (int(read["value"]) for read in reads)
            if had < amount:
                return False
            name = uuid.uuid4().hex
            try:
                self.plinth.transact(
                    checks=[{"key": payer, "value": str(had)}, {"key": payee, "value": str(got)}],
                    mutations=[
                        {"set": {"key": payer, "value": str(had - amount)}},
                        {"set": {"key": payee, "value": str(got + amount)}},
                        {"set": {"key": f"bank/ledger/{name}", "value": f"{payer} {payee} {amount}"}},
                    ],
                    idempotency_id=name,
                )
                return True
            except Refused as refused:
                # Another teller was quicker: look again.
                if refused.code != "check_failed":
                    raise

    def list(self, prefix, limit):
        """All keys with a prefix, in pages; the cursor keeps to the version of the first."""
        while True:
            found, query = {}, {"prefix": prefix, "limit": limit}
            try:
                while True:
                    page = self.plinth.ask("GET", "/v1/keys", pinned="cursor" in query, params=query)
                    found |= {item["key"]: item["value"] for item in page["items"]}
                    if "cursor" not in page:
                        return found
                    query = {"cursor": page["cursor"], "limit": limit}
            except Refused as refused:
                # A version stays readable for 5 s, and not across a recovery.
                if refused.code != "transaction_too_old":
                    raise

    def audit(self):
        """The sum of all accounts."""
        balances = self.list("bank/accounts/", limit=3)
        return sum(int(balance) for balance in balances.values())

    def account_for_everything(self):
        """The number of transfers in the ledger; every balance must follow from them."""
        expected = {self.account(number): DEPOSIT for number in range(ACCOUNTS)}
        ledger = self.list("bank/ledger/", limit=1000)
        for entry in ledger.values():
            payer, payee, amount = entry.split()
            expected[payer] -= int(amount)
            expected[payee] += int(amount)
        balances = self.list("bank/accounts/", limit=1000)
        if {account: int(balance) for account, balance in balances.items()} != expected:
            raise AssertionError(f"the ledger says {expected}, the accounts {balances}")
        return len(ledger)


class Day:
    """A day at the bank: threads that work until it closes, or one of them fails."""

    def __init__(self, urls):
        self.urls = urls
        self.closed = threading.Event()
        self.lock = threading.Lock()
        self.transfers = 0
        self.audits = 0
        self.failure = None

    def teller(self, seed):
        bank, lot = Bank(Plinth(self.urls)), random.Random(seed)
        while not self.closed.is_set():
            payer, payee = lot.sample(range(ACCOUNTS), 2)
            if bank.transfer(payer, payee, lot.randint(1, 20)):
                with self.lock:
                    self.transfers += 1

    def auditor(self, _):
        bank = Bank(Plinth(self.urls))
        while not self.closed.is_set():
            total = bank.audit()
            if total != ACCOUNTS * DEPOSIT:
                raise AssertionError(f"the auditor finds {total}")
            with self.lock:
                self.audits += 1

    def work(self, role, seed):
        try:
            role(seed)
        except Exception as failure:
            self.failure = failure
            self.closed.set()

    def run(self, seconds):
        roles = [self.teller] * 4 + [self.auditor] * 2
        threads = [
            threading.Thread(target=self.work, args=(role, seed)) for seed, role in enumerate(roles)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        while not self.closed.wait(0.5) and time.monotonic() < deadline:
            with self.lock:
                print(f"{self.transfers} transfers, {self.audits} audits", flush=True)
        self.closed.set()
        for thread in threads:
            thread.join()
        if self.failure:
            raise self.failure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("urls", nargs="+", metavar="URL", help="a gateway, or several")
    parser.add_argument("--seconds", type=float, default=5, help="how long the bank stays open")
    arguments = parser.parse_args()
    urls = [url.rstrip("/") for url in arguments.urls]
    bank = Bank(Plinth(urls))
    bank.open()
    day = Day(urls)
    signal.signal(signal.SIGINT, lambda *_: day.closed.set())
    day.run(arguments.seconds)
    entries = bank.account_for_everything()
    if entries != day.transfers:
        raise AssertionError(f"{day.transfers} transfers were made, the ledger has {entries}")
    print(f"closed: {day.transfers} transfers, {day.audits} audits, all of {bank.audit()}")


if __name__ == "__main__":
    try:
        main()
    except (Refused, AssertionError) as error:
        sys.exit(f"bank: {error}")
