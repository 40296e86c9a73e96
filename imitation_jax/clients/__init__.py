"""Clients of APIs: one request is asked, retried, paced, paid for and kept; `request_pool` has many of them under way.

To ask another API, give `http.JsonApi` its address, a `RateLimiter` and a `Budget`, and write the function that reads
its answers (see perspective.py). To ask a chat model, add the keys of `config.get_config()` to a config and
open a pool: `with request_pool.open_pool(config, ledger) as pool: pool.ask_all(requests, done)`. All is asyncio on one
thread inside of the pool; what it calls back runs between two events and needs no lock.
"""
