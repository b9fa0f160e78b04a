#!/usr/bin/env python3
"""Makes vectors.json from docs/formats/{keys,frame,segment,shard}.md alone, with no code of codec/.

Needs python3-cryptography and the zstd program; run by hand when a format gets a new version:
    python3 make_vectors.py > vectors.json
"""
import base64, hashlib, json, struct, subprocess, sys
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

u8, u16, u32, u64 = (lambda f: (lambda x: struct.pack(f, x)))("<B"), *(
    (lambda f: (lambda x: struct.pack(f, x)))(f) for f in ("<H", "<I", "<Q"))


def blake(key, message, size=32):
    return hashlib.blake2b(message, key=key, digest_size=size).digest()


def kdf(key, number, context, size=32):
    return hashlib.blake2b(b"", key=key, salt=u64(number) + bytes(8), person=context + bytes(8), digest_size=size).digest()


def hchacha20(key, nonce16):
    s = list(struct.unpack("<4I", b"expand 32-byte k")) + list(struct.unpack("<8I", key)) + list(struct.unpack("<4I", nonce16))
    rot = lambda v, n: ((v << n) | (v >> (32 - n))) & 0xFFFFFFFF

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] = rot(s[z] ^ s[x], n)

    for _ in range(10):
        quarter(0, 4, 8, 12), quarter(1, 5, 9, 13), quarter(2, 6, 10, 14), quarter(3, 7, 11, 15)
        quarter(0, 5, 10, 15), quarter(1, 6, 11, 12), quarter(2, 7, 8, 13), quarter(3, 4, 9, 14)
    return struct.pack("<8I", *(s[:4] + s[12:]))


def xseal(key, nonce, plain, ad):
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])).encrypt(bytes(4) + nonce[16:], plain, ad)


def place(kind, session, sequence):
    return u8(kind) + volume_id + session + u64(sequence)


def seal(key, nonce, plain, ad):
    return nonce + xseal(key, nonce, plain, ad)


# Keys and names
root = bytes(range(32))
volume_root = blake(root, b"qs volume 1" + b"photos")
sub = {n: kdf(volume_root, n, b"qs-root1") for n in range(2, 13)}
volume_id = kdf(volume_root, 1, b"qs-root1", 16)
vk, generation = bytes(range(0x40, 0x60)), 7
segments, journal, directories, shard_macs = (kdf(vk, n, b"qs-vol-1") for n in (1, 2, 3, 4))
no_session = bytes(20)
session = u32(3) + bytes(range(0xA0, 0xB0))
counter = 42
segment = session + u64(counter)
salt = bytes(range(0xC0, 0xE0))
b64 = lambda b: base64.urlsafe_b64encode(b).rstrip(b"=").decode()
node_name = "qs" + blake(sub[3], u32(5) + u32(2))[:8].hex()
nonce = lambda seed: hashlib.sha256(seed.encode()).digest()[:24]
file_names = ["a", "Urlaub 2024.jpg", "é"]

keys = {
    "root": root.hex(), "volume_name": "photos", "volume_id": volume_id.hex(),
    "wrap": sub[2].hex(), "local_secrets": sub[7].hex(), "reservation_signer_seed": sub[6].hex(),
    "shard_headers": sub[8].hex(), "shard_header_nonces": sub[9].hex(), "identity_objects": sub[12].hex(),
    "wallet": kdf(root, 1, b"qs-wllt1").hex(),
    "volume_key": vk.hex(), "generation": generation,
    "segments": segments.hex(), "journal": journal.hex(), "directories": directories.hex(), "shard_macs": shard_macs.hex(),
    "node": 5, "incarnation": 2, "node_name": node_name,
    "node_password": b64(blake(sub[4], node_name.encode())),
    "admin_password": b64(blake(sub[4], b"admin\0here")),
    "pointer_name": sub[5].hex(),
    "shard_name_index_4": blake(sub[10], u8(1) + segment + u8(4)).hex(),
    "identity_name": blake(sub[10], u8(2) + u32(5) + u32(2)).hex(),
    "dirent_hashes": {n: str(int.from_bytes(blake(sub[11], n.encode())[:8], "little") >> 9 or 1) for n in file_names},
    "wrapped_list": (u16(1) + u16(1) + u32(generation) + seal(sub[2], nonce("wrap"), vk, place(1, no_session, generation))).hex(),
    "identity_random": bytes(range(16)).hex(),
    "identity_object": seal(sub[12], nonce("identity"), u16(1) + volume_id + u32(5) + u32(2) + bytes(range(16)),
                            place(2, no_session, 0)).hex(),
}

# Frames and shards
noise = lambda seed, n: hashlib.shake_256(seed.encode()).digest(n)
text = b"".join(b"line %d of a file that compresses well\n" % i for i in range(60))
zstd = lambda b: subprocess.run(["zstd", "-1", "-c", "--no-check"], input=b, capture_output=True, check=True).stdout


def gf_mul(a, b):
    r = 0
    while b:
        if b & 1:
            r ^= a
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return r


gf_inv = lambda a: next(x for x in range(1, 256) if gf_mul(a, x) == 1)


def make_segment(cipher, k, m):
    aead = AESGCM if cipher == 1 else ChaCha20Poly1305
    bound = u32(generation) + volume_id + segment + salt + u8(cipher)
    frame_key, mac_key = blake(segments, bound), blake(shard_macs, bound)
    number_nonce = lambda n: u32(n) + bytes(8)
    frames, data, sealed_directories = [], [], []
    # shard 0: three frames with a hole of 50 bytes; shard 1: one; the others implied
    plan = [[(0, noise("f0", 900), 0, 0), (3, text, 1, 0), (4, noise("f4", 77), 0, 50)], [(6, noise("f6", 2000), 0, 0)]]
    length = 4096
    for index, shard in enumerate(plan):
        payload, entries = b"", b""
        for number, plain, codec, hole in shard:
            body = zstd(plain) if codec else plain
            stored = aead(frame_key).encrypt(number_nonce(number), body, u32(len(plain)) + u8(codec))
            payload += bytes(hole)
            inode, extent, sequence = 100 + number, number * 2, (3 << 40) + number
            entries += u32(len(payload)) + u32(len(stored)) + u32(len(plain)) + u32(number)
            entries += u64(inode) + u64(1) + u64(extent) + u64(sequence) + u8(codec)
            frames.append({"number": number, "shard": index, "position": len(payload), "codec": codec,
                           "inode": inode, "extent": extent, "sequence": str(sequence),
                           "plain": plain.hex(), "stored": stored.hex()})
            payload += stored
        directory = seal(directories, nonce("directory %d %d" % (cipher, index)), u16(1) + u16(len(shard)) + entries,
                         place(4, session, counter * 256 + index))
        sealed_directories.append(directory)
        data.append(payload + bytes(length - len(payload) - len(directory)) + directory)
    payloads = dict(enumerate(data))
    for p in range(m):
        row = [gf_inv((k + p) ^ j) for j in range(len(data))]
        tables = [bytes(gf_mul(c, x) for x in range(256)) for c in row]
        parity = 0
        for d, t in zip(data, tables):
            parity ^= int.from_bytes(d.translate(t), "little")
        payloads[k + p] = parity.to_bytes(length, "little")
    values = {}
    for index, payload in payloads.items():
        dlen = len(sealed_directories[index]) if index < k else 0
        fields = volume_id + segment + u8(index) + u8(k) + u8(len(data)) + u8(cipher)
        fields += u32(length) + u32(dlen) + u32(generation) + u32(0) + salt
        mac = aead(mac_key).encrypt(number_nonce(index), b"", fields + payload)
        plain = fields + mac + bytes(32)
        clear = b"qsSh" + u16(1) + u16(0)
        header_nonce = blake(sub[9], plain, 24)
        values[str(index)] = (clear + header_nonce + xseal(sub[8], header_nonce, plain, clear) + payload).hex()
    record = u16(1) + u8(k) + u8(cipher) + u32(generation) + segment + salt + u32(length) + u8(len(data))
    for d in sealed_directories:
        record += u32(len(d)) + d
    return {"cipher": cipher, "k": k, "m": m, "seal_record": record.hex(), "frames": frames, "values": values}


json.dump({"keys": keys, "segments": [make_segment(1, 4, 2), make_segment(2, 3, 2)]}, sys.stdout, indent=1)
print()
