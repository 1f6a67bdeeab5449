"""A server of the tiny model with OpenAI's completions, and its ways of failing."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from toolkit.scoring import LoadedModel


class Served:
    """`fault` is what goes wrong: "" nothing. `answered` counts completions, `asked` keeps their bodies."""

    def __init__(self, loaded: LoadedModel, *, as_ids: bool = True, most: int = 20) -> None:
        self.loaded, self.as_ids, self.most = loaded, as_ids, most
        self.fault, self.after, self.key = "", 0, ""
        self.asked: list[dict[str, Any]] = []
        self.answered, self.refused, self.lock = 0, 0, threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/v1/models":
                    self.reply(200, {"data": [{"id": "tiny", "max_model_len": 256}]})
                else:
                    self.reply(200, {"version": "9.9"}) if self.path == "/version" else self.reply(404, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.post(self, body)

            def reply(self, code: int, value: Any, **headers: str) -> None:
                raw = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(code)
                for name, text in headers.items():
                    self.send_header(name.replace("_", "-"), text)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def post(self, handler: Any, body: dict[str, Any]) -> None:
        with self.lock:  # one at a time: the model is shared
            self.asked.append(body)
            if self.key and handler.headers.get("Authorization") != f"Bearer {self.key}":
                handler.reply(401, {"error": "who are you"})
            elif self.fault and self.answered >= self.after:
                self.refused += 1
                self.fail(handler, body)
            elif isinstance(body.get("logprobs"), int) and body["logprobs"] > self.most:
                handler.reply(400, {"error": f"logprobs must be at most {self.most}"})
            else:
                self.answered += 1
                handler.reply(200, self.completion(body))

    def fail(self, handler: Any, body: dict[str, Any]) -> None:
        if self.fault == "busy twice":
            if self.refused >= 2:
                self.fault = ""
            handler.reply(503, b"<html>busy</html>", Retry_After="0")
        elif self.fault == "500":
            handler.reply(500, b"<html><h1>Internal</h1> error</html>")
        elif self.fault == "html":
            handler.reply(200, b"<html>Sign in first</html>")
        elif self.fault == "elsewhere":
            handler.reply(302, b"", Location="http://127.0.0.1:9/v1/completions")
        elif self.fault == "hangs up":
            handler.close_connection = True
            handler.connection.close()
        else:
            value = {
                "null": None, "no choices": {"choices": []}, "a list": [1], "no logprobs": {"choices": [{"text": "A"}]},
                "words": {"choices": [{"logprobs": {"top_logprobs": [{"A": "much"}]}}]},
                "nothing": {"choices": [{"logprobs": {"top_logprobs": [{}]}}]},
            }.get(self.fault)  # fmt: skip
            if self.fault == "nan":
                value = {"choices": [{"logprobs": {"top_logprobs": [{" A": float("nan"), " B": -1.0}]}}]}
            handler.reply(200, value)

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        import torch

        prompt, loaded = body["prompt"], self.loaded
        ids = prompt if isinstance(prompt, list) else loaded.encode(prompt)
        with torch.no_grad():
            told = loaded.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        if not isinstance(body.get("logprobs"), int):
            generator = torch.Generator().manual_seed(body["seed"])
            drawn = torch.multinomial(told[-1].exp(), body["n"], replacement=True, generator=generator).tolist()
            letters = [" So the answer is B.", " I think so. The answer is C.", " Who knows?"]
            choices = [{"index": i, "text": letters[token % 3]} for i, token in enumerate(drawn)]
            return {"choices": choices[::-1], "usage": usage}
        top = told[-1].topk(body["logprobs"])
        names = [self.name(token, body) for token in top.indices.tolist()]
        likeliest: dict[str, float] = {}
        for name, value in zip(names, top.values.tolist(), strict=True):
            likeliest.setdefault(name, value)
        logprobs: dict[str, Any] = {"top_logprobs": [likeliest]}
        if body.get("echo"):
            own = [told[i - 1, token].item() for i, token in enumerate(ids) if i]
            logprobs["token_logprobs"] = [None, *own, top.values[0].item()]
        return {"choices": [{"index": 0, "text": names[0], "logprobs": logprobs}], "usage": usage}

    def name(self, token: int, body: dict[str, Any]) -> str:
        if self.as_ids and body.get("return_tokens_as_token_ids"):
            return f"token_id:{token}"
        return self.loaded.decode([token])  # which leaves the space before a word away, as servers do
