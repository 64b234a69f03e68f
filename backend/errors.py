"""Every error this project raises on purpose.

    YoloopError                 500
    ├── BadRequest              400  a body, header or parameter that cannot be used
    │   ├── LabelConfigError    400  the labelling config has nothing yoloop can work with
    │   └── TooLarge            413  a body of more bytes, or values, than its address takes
    ├── Unauthorized            401  wrong or missing credentials
    ├── NotFound                404  no such project, version or job
    ├── Busy                    503  nothing is lost, ask again
    │   └── NoRoom              503  YOLOOP_HOME takes nothing just now, most often as its disk is full
    ├── LabelStudioError        502  Label Studio refused or could not be reached
    ├── ImageError                   one image cannot be used; its task is answered as failed
    │   ├── ImageUnavailable         not fetched: address, network, credentials, size or time
    │   │   └── ImageNotStored       fetched, but there is no room to keep it
    │   └── ImageUnreadable          fetched, but not an image
    └── TrainingError                one training ended without a version
        └── TrainingCancelled        because a person asked for it

`message` says what happened and `hint` what to do. Neither ever holds a token, nor a path of the host, but for the home
that a command at the terminal looked for, which no HTTP answer tells of.
"""

from __future__ import annotations

import errno
import re
import sqlite3


class YoloopError(Exception):
    """Root of the tree.

    Args:
        message: what happened, in one sentence.
        hint: what the reader can do about it; may be empty.
    """

    status = 500

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadRequest(YoloopError):
    status = 400


class LabelConfigError(BadRequest):
    pass


class TooLarge(BadRequest):
    status = 413


class Unauthorized(YoloopError):
    status = 401


class NotFound(YoloopError):
    status = 404


class Busy(YoloopError):
    status = 503


class NoRoom(Busy):
    """What was interrupted by it goes on by itself when there is room again."""


class LabelStudioError(YoloopError):
    """Args as for the root, and `reason`: Label Studio's own words, when it gave any.

    Without a `code` it gave no answer, and they are the words of what failed on the way.
    """

    status = 502

    def __init__(self, message: str, hint: str = "", *, reason: str = "", code: int | None = None) -> None:
        super().__init__(message, hint)
        self.reason = reason
        self.code = code


class ImageError(YoloopError):
    pass


class ImageUnavailable(ImageError):
    pass


class ImageNotStored(ImageUnavailable):
    """`data`: the file's bytes."""

    def __init__(self, message: str, hint: str, data: bytes) -> None:
        super().__init__(message, hint)
        self.data = data


class ImageUnreadable(ImageError):
    pass


class TrainingError(YoloopError):
    pass


class TrainingCancelled(TrainingError):
    pass


FULL = "the disk is full"
LOCKED = "its database is locked"

_ERRNO = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: "the disk's quota is used up",
    errno.EROFS: "the disk is read-only",
}
_SQLITE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_READONLY: "its database is read-only",
    sqlite3.SQLITE_IOERR: "its database cannot be read or written",
    sqlite3.SQLITE_CANTOPEN: "its database cannot be opened",
}
_SAID = re.compile(
    "no space left on device|disk is full|disk quota exceeded|read-only file system|readonly database|disk i/o error"
    "|unable to open database file|database is locked|PytorchStreamWriter failed writing|iostream error",
    re.IGNORECASE,
)
"""What libraries say that wrap such an error, and do not hand it on."""


def unwritable(error: BaseException) -> str:
    """What an error, or one that it came of, says of a disk that takes nothing: "the disk is full"; else empty."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, (LabelStudioError, ImageError)):
            continue  # another machine's disk
        if isinstance(each, NoRoom):
            return each.message.rpartition(": ")[2].removesuffix(".")
        if isinstance(each, OSError) and each.errno in _ERRNO:
            return _ERRNO[each.errno]
        if isinstance(each, sqlite3.Error):
            code = getattr(each, "sqlite_errorcode", 0) & 0xFF  # the higher bits tell more of the same
            if code in _SQLITE:
                return _SQLITE[code]
        if said := unwritable_by(str(each)):
            return said
        todo += [each.__cause__, each.__context__]
    return ""


def unwritable_by(text: str) -> str:
    """As `unwritable`, of a library's message."""
    found = _SAID.search(text)
    if found is None:
        return ""
    if "locked" in found[0].lower():
        return LOCKED
    return FULL if "full" in found[0].lower() or "space" in found[0].lower() else "it cannot be written"
