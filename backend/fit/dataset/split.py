"""Which annotated images judge and which teach."""

from __future__ import annotations

import hashlib

from backend.images.addresses import EMBEDDED, identity


def split_key(reference: str) -> str:
    """What names an image for the split: its address in the task, without what changes or lets somebody in."""
    return identity(reference)


def is_held_out(key: str, share: float) -> bool:
    """True for about `share` of all keys, and for one key always the same.

    The key is that of the image's group (see `backend.store.near_duplicates`), which never changes, so an image never
    changes sides when others come or go.
    """
    # What stands for an embedded image holds the hash that its own address would have.
    told = EMBEDDED.fullmatch(key)
    digest = bytes.fromhex(told[1]) if told else hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64
