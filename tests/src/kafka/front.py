"""Stands in front of a Kafka broker: TLS, SASL, and answers that get lost.

usage: front.py PORT BROKER-PORT FOLDER [tls] [MECHANISM]

FOLDER has broker.pem and broker.key for tls, and user and password for a MECHANISM (PLAIN, SCRAM-SHA-256,
SCRAM-SHA-512). While FOLDER/cut is there, the broker's answer to every third request that has records is
lost with its connection: the broker has them, the client cannot know. FOLDER/lost counts these answers.
While FOLDER/old is there, the broker says that it is one of version 0.10.
"""
import base64
import hashlib
import hmac
import os
import secrets
import socket
import ssl
import struct
import sys
import threading

PRODUCE, HANDSHAKE, AUTHENTICATE, API_VERSIONS = 0, 17, 36, 18
FAILED = 58  # SASL_AUTHENTICATION_FAILED

port, broker, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
tls = "tls" in sys.argv[4:]
mechanism = next((it for it in sys.argv[4:] if it != "tls"), None)
seen = {"produced": 0, "lost": 0}
lock = threading.Lock()


def text_of(name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.readline().rstrip("\n")


def whole(stream, octets):
    found = b""
    while len(found) < octets:
        part = stream.recv(octets - len(found))
        if not part:
            raise ConnectionError
        found += part
    return found


def message(stream):
    return whole(stream, struct.unpack(">i", whole(stream, 4))[0])


def send(stream, octets):
    stream.sendall(struct.pack(">i", len(octets)) + octets)


class Login:
    """What a client shows; RFC 4616 (PLAIN), RFC 5802 (SCRAM)."""

    def __init__(self):
        self.user, self.password, self.first = text_of("user"), text_of("password"), None

    def step(self, said):
        """An answer and whether that is all; None: refused."""
        if mechanism == "PLAIN":
            good = said.split(b"\0")[1:] == [self.user.encode(), self.password.encode()]
            return (b"", True) if good else None
        if self.first is None:
            bare = said.decode().split(",", 2)[2]
            fields = dict(it.split("=", 1) for it in bare.split(","))
            if fields["n"] != self.user:
                return None
            self.salt, self.nonce = secrets.token_bytes(16), fields["r"] + secrets.token_hex(8)
            salt = base64.b64encode(self.salt).decode()
            self.first = f"{bare},r={self.nonce},s={salt},i=4096"
            return f"r={self.nonce},s={salt},i=4096".encode(), False
        kind = "sha" + mechanism[-3:]
        salted = hashlib.pbkdf2_hmac(kind, self.password.encode(), self.salt, 4096)
        key = hmac.digest(salted, b"Client Key", kind)
        without, proof = said.decode().rsplit(",p=", 1)
        everything = f"{self.first},{without}".encode()
        signature = hmac.digest(hashlib.new(kind, key).digest(), everything, kind)
        wanted = bytes(one ^ other for one, other in zip(key, signature))
        if not hmac.compare_digest(wanted, base64.b64decode(proof)):
            return None
        signed = hmac.digest(hmac.digest(salted, b"Server Key", kind), everything, kind)
        return b"v=" + base64.b64encode(signed), True


def body_of(request):
    """What stands behind the header, which has a client's name."""
    length = struct.unpack(">h", request[8:10])[0]
    return request[10 + max(length, 0):]


def answer(client, request, login):
    """Handles a request of SASL. Whether the client is known now."""
    key, version, correlation = struct.unpack(">hhi", request[:8])
    body = body_of(request)
    if key == HANDSHAKE:
        name = body[2:].decode()
        error = 0 if name == mechanism else 33
        offered = mechanism.encode()
        send(client, struct.pack(">ihih", correlation, error, 1, len(offered)) + offered)
        return False
    step = login.step(body[4:])
    life = struct.pack(">q", 0) if version >= 1 else b""
    if step is None:
        why = b"these are no good credentials"
        said = struct.pack(">hh", FAILED, len(why)) + why + struct.pack(">i", 0)
        send(client, struct.pack(">i", correlation) + said + life)
        raise ConnectionError
    out, done = step
    said = struct.pack(">hhi", 0, -1, len(out)) + out
    send(client, struct.pack(">i", correlation) + said + life)
    return done


def of_old(request):
    """What requests a broker of 0.10 knows: this one in its first form only, and none of idempotence."""
    version, correlation = struct.unpack(">hi", request[2:8])
    known = [(0, 2), (1, 2), (2, 0), (3, 1), (8, 2), (9, 1), (10, 0), (11, 0), (12, 0), (13, 0), (14, 0),
             (15, 0), (16, 0), (17, 0), (18, 0)]
    error, known = (35, known[-1:]) if version else (0, known)
    forms = b"".join(struct.pack(">hhh", key, 0, last) for key, last in known)
    return struct.pack(">ihi", correlation, error, len(known)) + forms


def is_lost():
    with lock:
        seen["produced"] += 1
        if seen["produced"] % 3 or not os.path.exists(os.path.join(folder, "cut")):
            return False
        seen["lost"] += 1
        with open(os.path.join(folder, "lost"), "w", encoding="utf-8") as out:
            out.write(str(seen["lost"]))
        return True


def close(*streams):
    for stream in streams:
        try:
            stream.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        stream.close()


def answers(client, server, kinds):
    """Brings back what the broker says."""
    try:
        while True:
            said = message(server)
            if kinds.pop(said[:4], None) == PRODUCE and is_lost():
                break
            send(client, said)
    except OSError:
        pass
    close(client, server)


def serve(client):
    server = socket.create_connection(("127.0.0.1", broker))
    kinds, known, login = {}, mechanism is None, Login() if mechanism else None
    try:
        if tls:
            client.settimeout(10)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(os.path.join(folder, "broker.pem"), os.path.join(folder, "broker.key"))
            client = context.wrap_socket(client, server_side=True)
            client.settimeout(None)
        threading.Thread(target=answers, args=(client, server, kinds), daemon=True).start()
        while True:
            request = message(client)
            key = struct.unpack(">h", request[:2])[0]
            if mechanism and key in (HANDSHAKE, AUTHENTICATE):
                known = answer(client, request, login) or known
            elif key == API_VERSIONS and os.path.exists(os.path.join(folder, "old")):
                send(client, of_old(request))
            elif known or key == API_VERSIONS:
                kinds[request[4:8]] = key
                send(server, request)
            else:
                raise ConnectionError
    except (OSError, ssl.SSLError):
        pass
    close(client, server)


def main():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    while True:
        client = listener.accept()[0]
        threading.Thread(target=serve_one, args=(client,), daemon=True).start()


def serve_one(client):
    try:
        serve(client)
    except OSError:
        client.close()


main()
