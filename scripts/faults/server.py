"""A language-model service on the loopback interface, which misbehaves as it is told to."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from faults.junk import dump


@dataclass
class Reply:
    """What the service says to one question; `spoil` functions change it before it is sent."""

    kind: str
    answer: Any  # the JSON in the message
    text: str | None = None  # instead of it
    message: dict = field(default_factory=dict)
    choice: dict = field(default_factory=dict)
    top: dict = field(default_factory=dict)
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: Callable[[bytes], bytes] = bytes
    absent: int = 0  # bytes that are announced and not sent
    pause: float = 0  # seconds after every byte

    def completion(self) -> dict:
        """The reply as a chat completion."""
        text = dump(self.answer).decode() if self.text is None else self.text
        message = {"role": "assistant", "content": text, "refusal": None} | self.message
        choices = [{"index": 0, "finish_reason": "stop", "message": message} | self.choice]
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": choices,
            "usage": usage,
        } | self.top


def good_reply(request: dict) -> Reply:
    """A good answer, which differs with the class."""
    kind, name = request["response_format"]["json_schema"]["name"], request["messages"][1]["content"].split("\n")[0][7:]
    answer = {
        "triage": {"kind": "object", "gloss": f"the everyday {name} seen in photographs", "other_senses": [], "visible": True},
        "hierarchy": {"narrower": [f"small {name}", f"old {name}", "garden item"], "broader": ["artefact"]},
        "scenes": {"scenes": [{"name": "Garden", "description": f"beside a shelf and {len(name)} pots"}]},
        "parts": {"attributes": ["handle: long and worn", "surface: grey and bright"]},
        "phrases": {"attributes": ["a clean implement", f"often leans on {len(name)} walls"]},
    }[kind]
    return Reply(kind, answer)


class Handler(BaseHTTPRequestHandler):
    """Chat completions, and batches of them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def _reply(self, request: dict) -> Reply:
        reply = good_reply(request)
        for spoil in self.server.spoils:
            spoil(reply)
        return reply

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/files"):
            self.server.requests = [
                json.loads(line) for line in data.split(b"\r\n\r\n")[-1].splitlines() if line.startswith(b"{")
            ]
            return self._send(
                b'{"id": "f", "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"}'
            )
        if self.path.endswith("/batches"):
            return self._batch()
        reply = self._reply(json.loads(data))
        return self._send(reply.body(dump(reply.completion())), reply)

    def do_GET(self) -> None:
        if not self.path.endswith("/content"):
            return self._batch()
        lines = []
        for request in self.server.requests:
            reply = self._reply(request["body"])
            response = {"status_code": reply.status, "request_id": "r", "body": reply.completion()}
            lines.append(reply.body(dump({"id": "x", "custom_id": request["custom_id"], "response": response, "error": None})))
        return self._send(b"\n".join(lines))

    def _batch(self) -> None:
        self._send(
            b'{"id": "b", "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h", "created_at": 0, '
            b'"input_file_id": "f", "status": "completed", "output_file_id": "o"}'
        )

    def _send(self, data: bytes, reply: Reply = Reply("", None)) -> None:  # noqa: B008, it is not changed
        with contextlib.suppress(OSError):  # the client may have gone
            self.send_response(reply.status)
            for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) + reply.absent))
            self.end_headers()
            if reply.pause:
                for i in range(len(data)):
                    self.wfile.write(data[i : i + 1])
                    time.sleep(reply.pause)
            self.wfile.write(data)
            self.close_connection = bool(reply.absent)


def serve(listening: socket.socket, spoils: Sequence[Callable[[Reply], None]]) -> None:
    """Answer in a thread of this process, on a socket that the whole campaign shares."""
    server = ThreadingHTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket, server.spoils, server.requests, server.daemon_threads = listening, list(spoils), [], True
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
