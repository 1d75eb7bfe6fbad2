"""A small language-model service on the loopback interface that answers well, or misbehaves as it is told to."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = {"parts": "attributes", "phrases": "attributes"}


def good_answer(family, prompt):
    """A valid answer that differs with the prompt."""
    name = prompt.splitlines()[0].removeprefix("Label: ")
    if family == "triage":
        kind = "metadata" if name == "nikon" else "object"
        return {"kind": kind, "gloss": f"the everyday {name} seen in photographs", "other_senses": [], "visible": True}
    if family == "hierarchy":
        return {"narrower": [f"small {name}", f"old {name}", f"garden {name}"], "broader": ["tool", "artefact"], "bearers": []}
    if family == "scenes":
        return {"scenes": [{"name": "Back Yard", "description": f"beside a shed and a fence, {len(name)} pots"},
                           {"name": "Shop", "description": "on a shelf under bright lamps"}]}  # fmt: skip
    if family == "parts":
        return {"attributes": ["handle: long and wooden", "surface: worn and grey"]}
    return {"attributes": ["a simple implement", "often leans on a wall", "sharp metal edge"]}


def completion(text, finish="stop", refusal=None, usage=(100, 50), model="stand-in-1"):
    """JSON body of a chat completion."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": usage and {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }  # fmt: skip


class FakeService:
    """What the server has seen, and how it should behave.

    Attributes:
        seen: bodies of the chat requests, in order.
        behave: (body, number of times this question has been asked before) -> None for a good answer, or a dict with any of
            status, headers, raw (bytes), cut (bytes to announce but not to send), body (JSON), sleep (seconds), wire (all that
            is sent, headers too), drip (seconds before each byte of it).
    """

    def __init__(self):
        self.seen, self.behave, self.batches, self.files = [], lambda body, before: None, {}, {}
        self.lock, self.most, self.now, self.authorisation = threading.Lock(), 0, 0, set()
        self.batch_line = lambda number, request: None  # one line of a batch's output; None for a good one
        self.batch_status = ["in_progress", "completed"]
        self.models = ["stand-in-1", "stand-in-2"]
        self.asked, self.queries = [], []  # (method, path) of all other requests, and their queries
        self.behave_else = lambda method, path, before: None  # to those, the same as `behave`

    def families(self):
        """The kinds of the requests seen."""
        return [family(body) for body in self.seen]


def family(body):
    return body["response_format"]["json_schema"]["name"]


def reply_to(body):
    return completion(json.dumps(good_answer(family(body), body["messages"][1]["content"])))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _send(self, status=200, headers=(), raw=b"", cut=0):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw) + cut))
        self.end_headers()
        self.wfile.write(raw)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def _json(self, value, status=200, headers=()):
        self._send(status, {"Content-Type": "application/json", **dict(headers)}, json.dumps(value).encode())

    def do_POST(self):
        service, raw = self.server.service, self.rfile.read(int(self.headers.get("Content-Length") or 0))
        service.authorisation.add(self.headers.get("Authorization"))
        if not self.path.endswith("/chat/completions") and self._misbehaved("POST"):
            return None
        if self.path.endswith("/files"):
            lines = next(line for line in raw.split(b"\r\n") if line.startswith(b'{"custom_id"'))
            name = f"file-{len(service.files)}"
            service.files[name] = lines.decode()
            return self._json({"id": name, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"})
        body = json.loads(raw)
        if self.path.endswith("/batches"):
            name = f"batch-{len(service.batches)}"
            service.batches[name] = {"input": body["input_file_id"], "looks": 0}
            return self._json(self._batch(name))
        with service.lock:
            before = sum(b["messages"][:2] == body["messages"][:2] and b["seed"] == body["seed"] for b in service.seen)
            service.seen.append(body)
            service.now += 1
            service.most = max(service.most, service.now)
        plan = service.behave(body, before) or {}
        time.sleep(plan.get("sleep", 0))
        with service.lock:
            service.now -= 1
        self._obey(plan, reply_to(body))

    def _obey(self, plan, good):
        if "wire" in plan:
            size = 1 if "drip" in plan else len(plan["wire"])
            for start in range(0, len(plan["wire"]), size):
                time.sleep(plan.get("drip", 0))
                self.wfile.write(plan["wire"][start : start + size])
            self.close_connection = True
        elif "raw" in plan:
            self._send(plan.get("status", 200), plan.get("headers", {}), plan["raw"], plan.get("cut", 0))
        else:
            self._json(plan.get("body", good), plan.get("status", 200), plan.get("headers", {}))

    def _misbehaved(self, method):
        """Whether this request, which is none for a completion, was answered as `behave_else` has it."""
        path, _, query = self.path.partition("?")
        service, asked = self.server.service, (method, path.partition("/v1")[2])
        with service.lock:
            before = service.asked.count(asked)
            service.asked.append(asked)
            service.queries.append(query)
        plan = service.behave_else(*asked, before)
        if plan is not None:
            time.sleep(plan.get("sleep", 0))
            self._obey(plan, {})
        return plan is not None

    def do_GET(self):
        service, name = self.server.service, self.path.partition("?")[0].split("/")[-1]
        if self._misbehaved("GET"):
            return None
        if name == "models":
            return self._json({"object": "list", "data": [{"id": model, "object": "model"} for model in service.models]})
        if name == "batches":
            return self._json({"object": "list", "data": [self._batch(batch) for batch in service.batches], "has_more": False})
        if self.path.endswith("/content"):
            return self._send(raw=service.files[self.path.split("/")[-2]].encode())
        service.batches[name]["looks"] += 1
        self._json(self._batch(name))

    def _batch(self, name):
        service, batch = self.server.service, self.server.service.batches[name]
        status = service.batch_status[min(batch["looks"], len(service.batch_status) - 1)]
        out = {"id": name, "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h", "created_at": 0,
               "input_file_id": batch["input"], "status": status}  # fmt: skip
        if status in ("completed", "expired"):
            out |= self._results(name, batch)
        if status == "failed":
            out["errors"] = {"object": "list", "data": [{"code": "x", "message": "the file is not valid"}]}
        return out

    def _results(self, name, batch):
        """Ids of the output and error files, which are made when first asked for."""
        service = self.server.service
        if "results" not in batch:
            batch["results"], good, bad = {}, [], []
            for number, line in enumerate(service.files[batch["input"]].splitlines()):
                request = json.loads(line)
                response = {"status_code": 200, "request_id": "r", "body": reply_to(request["body"])}
                record = {"id": "x", "custom_id": request["custom_id"], "response": response, "error": None}
                told = service.batch_line(number, request)
                if told != "absent":
                    (bad if told else good).append(record | (told or {}))
            for kind, records in (("output", good), ("error", bad)):
                if records:
                    service.files[f"{name}-{kind}"] = "".join(json.dumps(r) + "\n" for r in reversed(records))
                    batch["results"][f"{kind}_file_id"] = f"{name}-{kind}"
        return batch["results"]


@contextmanager
def serve():
    """(base_url, FakeService) of a running server."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.service = FakeService()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", server.service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
