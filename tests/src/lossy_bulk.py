"""Stands before a server of _bulk and makes it worse: the first request is told that all its documents are
too many now (429), the second is passed on and its answer lost, the others are passed on.

Usage: lossy_bulk.py PORT SERVER_PORT
"""
import http.client, http.server, json, sys

port, server = int(sys.argv[1]), int(sys.argv[2])


class Relay(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Relay.requests += 1
        if Relay.requests == 1:
            error = {"type": "es_rejected_execution_exception", "reason": "rejected"}
            count = body.count(b"\n") // 2
            item = {"create": {"status": 429, "error": error}}
            return self.answer(200, json.dumps({"errors": True, "items": [item] * count}).encode())
        link = http.client.HTTPConnection("127.0.0.1", server)
        link.request("POST", self.path, body, {"Content-Type": self.headers["Content-Type"]})
        response = link.getresponse()
        answer = response.read()
        if Relay.requests == 2:
            self.close_connection = True
            return
        self.answer(response.status, answer)

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Relay).serve_forever()
