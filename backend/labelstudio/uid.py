"""The name of a project that stays the same when Label Studio gives its number to another one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from backend.errors import BadRequest

_UID = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")


def project_uid(project: Any) -> str:
    """A project's uid, `<id>.<created_at epoch s>`, from that text or from the object that webhooks send.

    Empty when there is none. Raises BadRequest for anything that is not a project.
    """
    if project is None or project == "":
        return ""
    if isinstance(project, str):
        uid = project
    else:
        try:
            created_at = datetime.fromisoformat(project["created_at"])
            if created_at.tzinfo is None:
                created_at = created_at.replace(tzinfo=UTC)  # whatever this machine's zone is
            uid = f"{int(project['id'])}.{int(created_at.timestamp())}"
        except (KeyError, TypeError, ValueError, OverflowError):
            raise BadRequest("The field 'project' needs 'id' and 'created_at'.") from None
    if not _UID.fullmatch(uid):
        raise BadRequest("The field 'project' must look like '1.1795453273'.")
    return uid


def project_name(project: Any) -> str:
    """As `project_uid`, of what may be a project's number too: as text or as a number."""
    return project_uid(str(project) if isinstance(project, int) else project)
