"""A language-model service on the loopback interface, which misbehaves as it is told to."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from faults.harms import dump

ANSWERS = {  # kind of a question -> a good answer, which differs with the class
    "triage": {"kind": "object", "gloss": "the everyday {0} seen in photographs", "other_senses": [], "visible": True},
    "hierarchy": {"narrower": ["small {0}", "old {0}", "garden item"], "broader": ["artefact"], "bearers": []},
    "scenes": {"scenes": [{"name": "Garden", "description": "beside a shelf and {1} pots"}]},
    "parts": {"attributes": ["handle: long and worn", "surface: grey and bright"]},
    "phrases": {"attributes": ["a clean implement", "often leans on {1} walls"]},
}
BATCH = {
    "id": "b", "object": "batch", "created_at": 0, "status": "completed", "input_file_id": "f", "output_file_id": "o",
    "endpoint": "/v1/chat/completions", "completion_window": "24h",
}  # fmt: skip
SENT = Path("sent.jsonl")  # the requests of the one batch, in the world, so that they outlive a command


@dataclass
class Reply:
    """What the service says to one question; spoils change it before it is sent."""

    kind: str
    answer: Any  # the JSON in the message
    text: str | None = None  # instead of it
    message: dict = field(default_factory=dict)  # parts that are others
    choice: dict = field(default_factory=dict)
    top: dict = field(default_factory=dict)
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: Callable[[bytes], bytes] = bytes  # the last to change it
    absent: int = 0  # bytes that are announced and not sent
    pause: float = 0  # seconds after every byte

    def completion(self) -> dict:
        """The reply as a chat completion."""
        text = dump(self.answer).decode() if self.text is None else self.text
        message = {"role": "assistant", "content": text, "refusal": None} | self.message
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        choices = [{"index": 0, "finish_reason": "stop", "message": message} | self.choice]
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": choices,
            "usage": usage,
        } | self.top


class Handler(BaseHTTPRequestHandler):
    """Chat completions, and one batch of them."""

    protocol_version = "HTTP/1.1"
    log_message = lambda *_: None  # noqa: E731

    def _reply(self, request: dict) -> Reply:
        kind, name = request["response_format"]["json_schema"]["name"], request["messages"][1]["content"].split("\n")[0][7:]
        good = dump(ANSWERS[kind]).decode().replace("{0}", name).replace("{1}", str(len(name)))
        reply = Reply(kind, json.loads(good))
        for spoil in self.server.spoils:
            spoil(reply)
        return reply

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/completions"):
            reply = self._reply(json.loads(data))
            return self._send(reply.body(dump(reply.completion())), reply)
        if self.path.endswith("/files"):
            SENT.write_bytes(re.search(rb'^{"custom_id.*}', data, re.M | re.S)[0])
            file = {"id": "f", "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"}
            return self._send(dump(file))
        return self._send(dump(BATCH))

    def do_GET(self) -> None:
        if re.search(r"/batches(\?|$)", self.path):
            return self._send(dump({"object": "list", "data": [BATCH] if SENT.exists() else [], "has_more": False}))
        if not self.path.endswith("/content"):
            return self._send(dump(BATCH))
        lines = []
        for request in map(json.loads, SENT.read_bytes().splitlines()):
            reply = self._reply(request["body"])
            response = {"status_code": reply.status, "request_id": "r", "body": reply.completion()}
            lines.append(reply.body(dump({"id": "x", "custom_id": request["custom_id"], "response": response, "error": None})))
        return self._send(b"\n".join(lines))

    def _send(self, data: bytes, reply: Reply = Reply("", None)) -> None:  # noqa: B008, it is not changed
        with contextlib.suppress(OSError):  # the client may have gone
            self.send_response(reply.status)
            more = {"Content-Length": str(len(data) + reply.absent)}
            for name, value in ({"Content-Type": "application/json"} | reply.headers | more).items():
                self.send_header(name, value)
            self.end_headers()
            for i in range(len(data)) if reply.pause else ():
                self.wfile.write(data[i : i + 1])
                time.sleep(reply.pause)
            self.wfile.write(data)
            self.close_connection = bool(reply.absent)


def serve(listening: socket.socket, spoils: Sequence[Callable[[Reply], None]]) -> None:
    """Answer in a thread of this process, on a socket that the whole campaign shares."""
    server = ThreadingHTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket, server.spoils, server.daemon_threads = listening, list(spoils), True
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
