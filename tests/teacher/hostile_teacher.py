"""A teacher behind a real HTTP server that misbehaves in all ways known, and keeps a tally."""

import json
import socket
import struct
import threading
import time
from collections import Counter
from email.utils import formatdate

MODEL = "teacher"
KEY = "sk-very-secret-0123456789"
PRICES = (2.0, 6.0)  # dollars a million tokens


def completion(text, model=MODEL, finish_reason="stop", usage=None):
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}]
    usage = usage or {"prompt_tokens": 11, "completion_tokens": len(text.split())}
    return {"id": "c", "object": "chat.completion", "model": model, "choices": choices, "usage": usage}


def echo(body):
    """What a good teacher says."""
    return f"You said: {body['messages'][-1]['content']}"


def reset(handler):
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.rfile.close()


def slow(handler):
    time.sleep(8)


def drip(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(80):
        handler.wfile.write(b" ")
        time.sleep(0.1)


def drip_of_headers(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(80):
        handler.wfile.write(b"x")
        time.sleep(0.1)


def cut(handler):
    text = json.dumps(completion("This answer never arri"))[:-30].encode()
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + text)


def _date():
    now = time.time()
    return {"Date": formatdate(now, usegmt=True), "Retry-After": formatdate(now + 1, usegmt=True)}


# (status, body, headers); a body with "usage" is billed.
QUICK = {
    "429 with seconds": lambda: (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.2"}),
    "429 with a date": lambda: (429, {"error": {"message": "slow down"}}, _date()),
    "500": lambda: (500, {"error": {"message": "oops"}}, {}),
    "503 of a proxy": lambda: (503, b"<html>busy</html>", {}),
    "cut JSON": lambda: (200, json.dumps(completion("An answer that is not who")).encode()[:-40], {}),
    "cut connection": lambda: (200, cut, {}),
    "no choice": lambda: (200, completion("x") | {"choices": []}, {}),
    "empty choice": lambda: (200, completion(""), {}),
    "no content": lambda: (200, completion("x") | {"choices": [{"message": {"content": None}}]}, {}),
    "another model": lambda: (200, completion("I am another.", model="teacher-mini"), {}),
    "reset": lambda: (200, reset, {}),
    "200 with an error": lambda: (200, {"error": {"message": "upstream failed", "code": 502}}, {}),
    "no JSON": lambda: (200, b"OK", {}),
    "a list": lambda: (200, [1, 2], {}),
    "half a character": lambda: (200, completion("\ud83d"), {}),
    "deep JSON": lambda: (200, b"[" * 200_000, {}),
}
SLOW = {
    "silence": lambda: (200, slow, {}),
    "drip": lambda: (200, drip, {}),
    "headers": lambda: (200, drip_of_headers, {}),
}


class Tally:
    """What was asked, answered and billed, by the last message's text. `reply` is what api_server.Server answers with.

    The n-th text that is asked misbehaves as many times as `troubles(n)` has names, then it is answered well.
    """

    def __init__(self, troubles=lambda number: (), answer=echo):
        self._troubles, self._answer = troubles, answer
        self._left, self._lock = {}, threading.Lock()
        self.asked, self.answered = Counter(), Counter()
        self.prompt_tokens = self.completion_tokens = 0

    @property
    def dollars(self):
        return (self.prompt_tokens * PRICES[0] + self.completion_tokens * PRICES[1]) / 1e6

    def reply(self, body):
        text = body["messages"][-1]["content"]
        with self._lock:
            self.asked[text] += 1
            left = self._left.setdefault(text, list(self._troubles(len(self._left))))
            if left:
                status, content, headers = (QUICK | SLOW)[left.pop(0)]()
            else:
                self.answered[text] += 1
                status, content, headers = 200, completion(self._answer(body), body["model"]), {}
            if isinstance(content, dict) and "usage" in content:
                self.prompt_tokens += content["usage"]["prompt_tokens"]
                self.completion_tokens += content["usage"]["completion_tokens"]
        return status, content, headers, 0
