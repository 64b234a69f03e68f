"""The sides that releases until 0.7 gave, which their images keep: a coin for each group of near-duplicates."""

from __future__ import annotations

from urllib.parse import urlsplit

from backend.images.addresses import EMBEDDED
from backend.store.contents import name_of


def old_image_name(reference: str) -> str:
    """What an image was called there, as `name_of`: by its address without its query, user name and password included.

    Images that only a query tells apart were one. An embedded image was called by its whole address, whose hash
    is kept in what stands for it now.
    """
    if told := EMBEDDED.fullmatch(reference):
        return told[1]
    if reference.startswith(("http://", "https://")):
        try:
            parts = urlsplit(reference)
        except ValueError:
            return name_of(reference)
        return name_of(f"{parts.netloc}{parts.path}")
    return name_of(reference)


def was_held_out(group: str, share: float) -> bool:
    """Whether a group, as `name_of` its first image's key, was held out."""
    return int(group[:16], 16) < share * 2**64
