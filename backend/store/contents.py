"""What an annotation says, and what an image is called, in a few characters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from backend.images.addresses import without_embedded


def content_hash(data: Mapping[str, Any], result: Sequence[Mapping[str, Any]]) -> str:
    """Changes when what is taught changes: where the image lies and the regions, whatever their ids.

    It is the same whether embedded images are in `data` or what stands for them, see `addresses.without_embedded`.
    """
    regions = [{key: value for key, value in region.items() if key != "id"} for region in result]
    text = json.dumps([without_embedded(data), regions], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def name_of(*parts: str) -> str:
    """Sixty-four characters that stand for what names an image, or several: it may be long, and a person's name."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
