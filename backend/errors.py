"""Every error this project raises on purpose.

    YoloopError                 500
    ├── BadRequest              400  a body, header or parameter that cannot be used
    │   ├── LabelConfigError    400  the labelling config has nothing yoloop can work with
    │   └── TooLarge            413  a body of more bytes, or values, than its address takes
    ├── Unauthorized            401  wrong or missing credentials
    ├── NotFound                404  no such project, version or job
    ├── Busy                    503  nothing is lost, ask again
    ├── LabelStudioError        502  Label Studio refused or could not be reached
    ├── ImageError                   one image cannot be used; its task is answered as failed
    │   ├── ImageUnavailable         not fetched: address, network, credentials, size or time
    │   └── ImageUnreadable          fetched, but not an image
    └── TrainingError                one training ended without a version
        └── TrainingCancelled        because a person asked for it

`message` says what happened and `hint` what to do. Neither ever holds a token or a path of the host.
"""

from __future__ import annotations


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


class LabelStudioError(YoloopError):
    """Args as for the root, and `reason`: Label Studio's own words, when it gave any."""

    status = 502

    def __init__(self, message: str, hint: str = "", *, reason: str = "", code: int | None = None) -> None:
        super().__init__(message, hint)
        self.reason = reason
        self.code = code


class ImageError(YoloopError):
    pass


class ImageUnavailable(ImageError):
    pass


class ImageUnreadable(ImageError):
    pass


class TrainingError(YoloopError):
    pass


class TrainingCancelled(TrainingError):
    pass
