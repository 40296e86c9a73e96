"""A real HTTP server on this machine that answers as it is told."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Answers each request with the next of `replies`, and the last one for ever.

    A reply is (status, body, headers, seconds to wait first), or a function from the request's JSON to that; a body
    that is a function is called with the handler and writes what it likes. `asked` lists the requests: their JSON,
    "key" (the API key's header), "authorization", "at" (seconds) and "port" (the client's).
    """

    def __init__(self):
        self.replies, self.asked = [], []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler):
                body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
                with lock:
                    asked = {**body, "key": handler.headers["X-Goog-Api-Key"], "at": time.monotonic()}
                    asked |= {"authorization": handler.headers["Authorization"], "port": handler.client_address[1]}
                    self.asked.append(asked)
                    reply = self.replies[min(len(self.asked), len(self.replies)) - 1]
                status, content, headers, seconds = reply(body) if callable(reply) else reply
                time.sleep(seconds)
                try:
                    if callable(content):
                        handler.close_connection = True
                        content(handler)
                        return
                    content = content if isinstance(content, bytes) else json.dumps(content).encode()
                    handler.send_response_only(status)  # no Date of its own
                    for name, value in headers.items():
                        handler.send_header(name, value)
                    handler.send_header("Content-Length", str(len(content)))
                    handler.end_headers()
                    handler.wfile.write(content)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client did not wait, or was killed

            def log_message(handler, *args):
                pass

        class Listener(ThreadingHTTPServer):
            request_queue_size = 128

        self._handler, self._server = Handler, Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def keep_open(self, seconds):
        """Connections are used again from now on, until they were idle for so long."""
        self._handler.protocol_version, self._handler.timeout = "HTTP/1.1", seconds

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def reply(content, status=200, seconds=0.0, **headers):
    return status, content, {name.replace("_", "-"): value for name, value in headers.items()}, seconds


def perspective(body):
    """Answers as Perspective does: the number that ends a text is its score in percent."""
    text = body["comment"]["text"]

    def refuse(kind):
        details = [{"@type": "type.googleapis.com/google.commentanalyzer.v1alpha1.Error", "errorType": kind}]
        return 400, {"error": {"code": 400, "message": kind, "details": details}}, {}, 0

    if not text.strip():
        return refuse("COMMENT_EMPTY")
    if text == "Wie bitte?":
        return refuse("LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE")
    score = int(text.rsplit(" ", 1)[-1]) / 100
    return 200, {"attributeScores": {"TOXICITY": {"summaryScore": {"value": score, "type": "PROBABILITY"}}}}, {}, 0
