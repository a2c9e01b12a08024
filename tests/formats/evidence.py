"""Verifies a receipt, a checkpoint and an audit export, written from docs/formats-evidence.md, formats-sealing.md and
formats-audit.md alone.

usage: evidence.py NODE_CA.PEM RECEIPT CHECKPOINT EXPORT
"""

import base64
import datetime
import hashlib
import json
import sys
import uuid

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

CA = x509.load_pem_x509_certificate(open(sys.argv[1], "rb").read())


def number(value, length):
    return value.to_bytes(length, "big")


def ids(*texts):
    return b"".join(uuid.UUID(text).bytes for text in texts)


def fail(what):
    sys.exit(what)


def load(path, form):
    """One JSON object, of this format, without doubled fields."""

    def unique(pairs):
        fields = dict(pairs)
        return fields if len(fields) == len(pairs) else fail("doubled field")

    text = open(path, encoding="utf-8").read()
    fields = json.loads(text, object_pairs_hook=unique)
    return fields if fields["format"] == form else fail("another format")


def moment(when):
    return datetime.datetime.fromtimestamp(when / 1000, datetime.timezone.utc).replace(tzinfo=None)


def signed(file, statement, when, later):
    """The signature and the chain of one certificate, at its moment."""
    (der,) = (base64.b64decode(text) for text in file["signer_chain"])
    leaf = x509.load_der_x509_certificate(der)
    try:
        CA.public_key().verify(leaf.signature, leaf.tbs_certificate_bytes)
    except InvalidSignature:
        fail("not of the CA")
    begins = leaf.not_valid_before_utc.replace(tzinfo=None)
    at = max(moment(when), begins) if later else moment(when)
    if not begins <= at <= leaf.not_valid_after_utc.replace(tzinfo=None):
        fail("not valid then")
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
        fail("not for servers")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if uris != [f"spiffe://{file['cluster_id']}/node/{file['node_id']}"]:
        fail(f"signed by {uris}")
    try:
        leaf.public_key().verify(base64.b64decode(file["signature"]), statement)
    except InvalidSignature:
        fail("the signature is wrong")


receipt = load(sys.argv[2], "holdfast receipt v1")
statement = (
    b"holdfast receipt v1\0"
    + ids(*(receipt[name] for name in ("cluster_id", "device_id", "volume_id", "protector_id")))
    + number(receipt["version"], 4)
    + bytes.fromhex(receipt["sealed_digest"])
    + number(receipt["term"], 8)
    + number(receipt["index"], 8)
    + number(receipt["audit_sequence"], 8)
    + bytes.fromhex(receipt["audit_hash"])
    + number(receipt["escrowed_at_ms"], 8)
    + number(receipt["node_id"], 8)
)
signed(receipt, statement, receipt["escrowed_at_ms"], later=True)

checkpoint = load(sys.argv[3], "holdfast audit checkpoint v1")
statement = (
    b"holdfast audit checkpoint v1\0"
    + ids(checkpoint["cluster_id"])
    + number(checkpoint["sequence"], 8)
    + bytes.fromhex(checkpoint["hash"])
    + number(checkpoint["term"], 8)
    + number(checkpoint["index"], 8)
    + number(checkpoint["time_ms"], 8)
    + number(checkpoint["node_id"], 8)
)
signed(checkpoint, statement, checkpoint["time_ms"], later=False)


def canonical(record):
    def sized(data):
        return number(len(data), 4) + data

    def text(name):
        return sized(record[name].encode())

    def id_of(name):
        return sized(ids(record[name]) if record[name] else b"")

    return (
        b"holdfast audit v1\0"
        + b"".join(number(record[n], 8) for n in ("sequence", "time_ms", "term", "index", "count"))
        + number(record["version"], 4)
        + text("actor") + text("action") + text("outcome")
        + id_of("request_id") + id_of("device_id") + id_of("volume_id") + id_of("protector_id")
        + text("reason_code") + text("reason_text") + text("user_domain") + text("user_name")
        + text("ticket") + text("detail")
    )


header, *records, end = map(json.loads, open(sys.argv[4], encoding="utf-8"))
if (header["line"], header["format"]) != ("header", "holdfast audit export v1"):
    fail("another header")
if header["cluster_id"] != checkpoint["cluster_id"]:
    fail("another cluster")
before, sequence, known = header["previous_hash"], header["first"], {}
for record in records:
    if (record["line"], record["sequence"], record["previous_hash"]) != ("record", sequence, before):
        fail(f"record {sequence} does not continue the chain")
    before = hashlib.sha256(bytes.fromhex(before) + canonical(record)).hexdigest()
    if record["hash"] != before:
        fail(f"record {sequence} has not its hash")
    known[sequence] = before
    sequence += 1
if end != {"line": "end", "count": len(records), "last": sequence - 1, "hash": before}:
    fail("another end")
if sequence - 1 != header["last"]:
    fail("another last record")
for source in (checkpoint["sequence"], checkpoint["hash"]), (
    receipt["audit_sequence"],
    receipt["audit_hash"],
):
    if known.get(source[0]) != source[1]:
        fail(f"record {source[0]} is not as it is known")

print("all of it holds")
