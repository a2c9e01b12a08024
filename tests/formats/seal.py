"""Makes every vector of docs/formats-sealing.md from what that page says, and from nothing of Holdfast's own.

HPKE, HKDF and the layouts are written out here; X25519, Ed25519 and AES-GCM come from the `cryptography` package.
"""

import hashlib
import hmac
import re
import sys
import uuid

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PAGE = open(sys.argv[1], encoding="utf-8").read()


def raw(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def number(value, length):
    return value.to_bytes(length, "big")


# RFC 5869.
def extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def expand(prk, info, length):
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out, counter = out + block, counter + 1
    return out[:length]


# RFC 9180, base mode, first message.
KEM = b"KEM" + number(0x20, 2)
SUITE = b"HPKE" + number(0x20, 2) + number(1, 2) + number(2, 2)


def labeled_extract(suite, salt, label, ikm):
    return extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite, prk, label, info, length):
    return expand(prk, number(length, 2) + b"HPKE-v1" + suite + label + info, length)


def derive_key_pair(ikm):
    prk = labeled_extract(KEM, b"", b"dkp_prk", ikm)
    return X25519PrivateKey.from_private_bytes(labeled_expand(KEM, prk, b"sk", b"", 32))


def seal(public_key, info, associated, plaintext, seed):
    ephemeral = derive_key_pair(seed)
    encapsulated = raw(ephemeral)
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    prk = labeled_extract(KEM, b"", b"eae_prk", shared)
    shared = labeled_expand(KEM, prk, b"shared_secret", encapsulated + public_key, 32)
    context = (
        b"\0"
        + labeled_extract(SUITE, b"", b"psk_id_hash", b"")
        + labeled_extract(SUITE, b"", b"info_hash", info)
    )
    secret = labeled_extract(SUITE, shared, b"secret", b"")
    key = labeled_expand(SUITE, secret, b"key", context, 32)
    nonce = labeled_expand(SUITE, secret, b"base_nonce", context, 12)
    return encapsulated, AESGCM(key).encrypt(nonce, plaintext, associated)


# The vectors: names in the first 18 columns.
BLOCKS = [
    [(line[:18].strip(), line[18:].strip()) for line in block.strip().splitlines()]
    for block in re.findall(r"```text\n(.*?)```", PAGE, re.S)
]


def block_with(name):
    return next(block for block in BLOCKS if any(key == name for key, _ in block))


def equal(what, made, shown):
    if made.hex() != shown:
        sys.exit(f"{what}: made {made.hex()}, the page shows {shown}")


HEAD = dict(block_with("private key"))
ID = {name: uuid.UUID(HEAD[name]).bytes for name in ("cluster", "device", "volume", "key id")}
IDS = ID["cluster"] + ID["device"] + ID["volume"] + ID["key id"]
PUBLIC = bytes.fromhex(HEAD["public key"])
private = X25519PrivateKey.from_private_bytes(bytes.fromhex(HEAD["private key"]))
equal("public key", raw(private), HEAD["public key"])

sealed = []
for block in map(dict, BLOCKS):
    if "ephemeral seed" not in block:
        continue
    if "plaintext" in block:
        text, part = block["plaintext"], 1
        kind = 1 if text[0].isdigit() else 2
        plaintext = text.encode().ljust(128, b"\0")
    else:
        kind, part, plaintext = 1, 2, bytes.fromhex(block["plaintext (hex)"])
    associated = IDS + bytes([kind]) + number(7, 4) + number(1, 4) + bytes([part])
    equal("associated data", associated, block["associated data"])
    seed = bytes.fromhex(block["ephemeral seed"])
    encapsulated, ciphertext = seal(PUBLIC, b"holdfast seal v1", associated, plaintext, seed)
    equal("encapsulated key", encapsulated, block["encapsulated key"])
    equal("ciphertext", ciphertext, block["ciphertext"])
    sealed.append(b"\1" + number(1, 4) + encapsulated + number(len(ciphertext), 4) + ciphertext)
if len(sealed) != 6:
    sys.exit(f"{len(sealed)} sealed vectors, not 6")


def digest(key, package):
    return hashlib.sha256(b"holdfast sealed v1\0" + key + package).digest()


digests = dict(block_with("key alone"))
equal("digest of the key alone", digest(sealed[0], b"\0"), digests["key alone"])
equal("digest of key and package", digest(sealed[0], sealed[4]), digests["key and package"])

signed = block_with("signer seed")
signer = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(signed[0][1]))
equal("signer public key", raw(signer), signed[1][1])
escrow = b"holdfast escrow key v1\0" + ID["cluster"] + number(1, 4) + b"\x77" * 32
equal("escrow statement", escrow, signed[2][1])
equal("its signature", signer.sign(escrow), signed[3][1])
receipt = (
    b"holdfast receipt v1\0" + IDS + number(7, 4) + b"\xd1" * 32 + number(3, 8) + number(258, 8)
    + number(40, 8) + b"\xa1" * 32 + number(1795392000123, 8) + number(2, 8)
)
equal("receipt statement", receipt, signed[4][1])
equal("its signature", signer.sign(receipt), signed[5][1])

root = dict(block_with("root key"))
root_key = bytes.fromhex(root["root key"])
check = expand(root_key, b"holdfast root check v1\0" + ID["cluster"], 32)
equal("check value", check, root["check value"])
wrapping = expand(root_key, b"holdfast root wrapping key v1\0" + ID["cluster"], 32)
wrapped = bytes.fromhex(root["wrapped"])
associated = b"holdfast wrap v1\0" + bytes([2]) + ID["cluster"] + number(1, 4)
equal("version of what is wrapped", wrapped[:1], "01")
equal("secret", AESGCM(wrapping).decrypt(wrapped[1:13], wrapped[13:], associated), root["secret"])



def multiply(a, b):
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= 0x11D << (bit - 8)
    return product


def divide(a, b):
    return next(q for q in range(256) if multiply(q, b) == a)


split = block_with("shared root key")
points = []
for _, text in split[1:]:
    share = bytes.fromhex(text.removeprefix("holdfast-share-v1:").replace("-", ""))
    equal("cluster of a share", share[:16], ID["cluster"].hex())
    checksum = hashlib.sha256(b"holdfast share v1\0" + share[:59]).digest()[:5]
    equal("checksum of a share", checksum, share[59:].hex())
    points.append((share[24], share[27:59]))
if len(points) != share[26]:
    sys.exit(f"{len(points)} shares, not {share[26]}")
secret = bytearray(32)
for x, values in points:
    weight = 1
    for other, _ in points:
        if other != x:
            weight = multiply(weight, divide(other, other ^ x))
    for at, value in enumerate(values):
        secret[at] ^= multiply(weight, value)
equal("root key from its shares", bytes(secret), split[0][1])

print("all vectors hold")
