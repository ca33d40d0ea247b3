"""Takes IPFIX by TCP, TLS or as a file of messages, by the module ipfix; each record a line of JSON.

Usage: collector.py SPECS OUT tcp PORT | tls PORT CERTIFICATE KEY | file PATH
"""
import datetime, ipaddress, json, socket, ssl, sys
import ipfix.ie, ipfix.message

specs, out, way, *rest = sys.argv[1:]
ipfix.ie.clear_infomodel()
for line in open(specs):
    ipfix.ie.for_spec(line.strip())


def plain(value):
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=datetime.timezone.utc).isoformat()
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return str(value)
    return value


def collect(stream, to):
    """Checks that no record is missing by the sequence numbers of this session."""
    buffer, seen = ipfix.message.MessageBuffer(), 0
    while True:
        try:
            buffer.read_message(stream)
        except EOFError:
            return
        lost = buffer.sequence - seen
        for record in buffer.namedict_iterator():
            seen += 1
            line = {name: plain(value) for name, value in record.items()}
            to.write(json.dumps({"lost": lost, "domain": buffer.odid, "record": line}) + "\n")
            lost = 0
        to.flush()


with open(out, "a") as to:
    if way == "file":
        collect(open(rest[0], "rb"), to)
        sys.exit()
    listener = socket.create_server(("127.0.0.1", int(rest[0])))
    if way == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*rest[1:])
        listener = context.wrap_socket(listener, server_side=True)
    while True:
        try:
            connection, _ = listener.accept()
        except (OSError, ssl.SSLError):
            continue
        with connection, connection.makefile("rb") as stream:
            try:
                collect(stream, to)
            except (OSError, ssl.SSLError):
                pass
