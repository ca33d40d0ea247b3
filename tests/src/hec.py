"""A double of Splunk's HTTP Event Collector, as strict as its documents: it takes nothing that they do not
allow. What is indexed stands in a file, an event a line.

Usage: hec.py PORT OUT TOKEN acknowledge|plain
Whoever has sent three requests is told that the server is busy, once. With acknowledgement a batch is
indexed at the third question for it, and the second batch never: its ack is asked for in vain.
"""
import http.server, json, re, sys

port, out, token, mode = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
KEYS = {"time", "host", "source", "sourcetype", "index", "event", "fields"}
INDEXES = {"network"}


def fault(event):
    """The code of what is wrong with an event; 0 for nothing."""
    if not isinstance(event, dict) or set(event) - KEYS:
        return 6
    if "event" not in event:
        return 12
    if event["event"] in ("", {}, None):
        return 13
    if not isinstance(event.get("time", 0), (int, float)):
        return 6
    if any(not isinstance(event.get(key, ""), str) for key in ("host", "source", "sourcetype", "index")):
        return 6
    if event.get("index", "network") not in INDEXES:
        return 7
    fields = event.get("fields", {})
    flat = isinstance(fields, dict) and all(isinstance(it, (str, int, float)) for it in fields.values())
    return 0 if flat else 15


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests, acks, waiting, asked = 0, 0, {}, {}

    def answer(self, status, **body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        given = self.headers["Authorization"]
        if given is None:
            return self.answer(401, text="Token is required", code=2)
        if not given.startswith("Splunk "):
            return self.answer(401, text="Invalid authorization", code=3)
        if given != f"Splunk {token}":
            return self.answer(403, text="Invalid token", code=4)
        channel = self.headers["X-Splunk-Request-Channel"]
        if mode == "acknowledge":
            if channel is None:
                return self.answer(400, text="Data channel is missing", code=10)
            if not GUID.fullmatch(channel):
                return self.answer(400, text="Invalid data channel", code=11)
        if self.path == "/services/collector/event":
            return self.events(body)
        if self.path == "/services/collector/ack" and mode == "acknowledge":
            return self.acknowledge(json.loads(body)["acks"])
        self.answer(404, text="The requested URL was not found on this server.", code=404)

    def events(self, body):
        Collector.requests += 1
        if Collector.requests == 4:
            return self.answer(503, text="Server is busy", code=9)
        decoder, place, events = json.JSONDecoder(), 0, []
        while body[place:].strip():
            place += len(body[place:]) - len(body[place:].lstrip())
            try:
                event, place = decoder.raw_decode(body, place)
            except ValueError:
                return self.answer(400, text="Invalid data format", code=6)
            code = fault(event)
            if code:
                number = len(events)
                return self.answer(400, text="It is wrong", code=code, **{"invalid-event-number": number})
            events.append(event)
        if not events:
            return self.answer(400, text="No data", code=5)
        if mode == "plain":
            self.index(events)
            return self.answer(200, text="Success", code=0)
        Collector.acks += 1
        Collector.waiting[Collector.acks] = events
        self.answer(200, text="Success", code=0, ackId=Collector.acks)

    def acknowledge(self, ids):
        answers = {}
        for number in ids:
            asked = Collector.asked[number] = Collector.asked.get(number, 0) + 1
            if asked >= 3 and number != 2 and number in Collector.waiting:
                self.index(Collector.waiting.pop(number))
                answers[str(number)] = True
            else:
                answers[str(number)] = False
        self.answer(200, acks=answers)

    @staticmethod
    def index(events):
        with open(out, "a") as to:
            for event in events:
                to.write(json.dumps(event) + "\n")

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", port), Collector).serve_forever()
