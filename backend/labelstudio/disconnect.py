"""Takes yoloop out of a project of Label Studio: the ML backend, its webhook, the order by score."""

from __future__ import annotations

from backend.errors import LabelStudioError
from backend.labelstudio.client import LabelStudioClient
from backend.labelstudio.connect import SEQUENTIAL, UNCERTAINTY, Step, our_backends, our_webhooks
from backend.labelstudio.refusals import public_url


def disconnect(
    client: LabelStudioClient, uid: str, url: str, *, title: str = "yoloop", active_learning: bool = False
) -> tuple[Step, ...]:
    """Remove what `connect` made; other people's backends and webhooks, predictions and annotations stay.

    Safe to repeat. A project that is gone, or that was made anew under its number, has nothing of ours any more.

    Args:
        uid: the project's, see `ProjectInfo.uid`.
        url: yoloop's address as Label Studio reaches it.
        active_learning: `connect` has set the order of tasks, which is set back.

    Raises LabelStudioError.
    """
    number = int(uid.partition(".")[0])
    try:
        project = client.project(number)
    except LabelStudioError as error:
        if error.code != 404:
            raise
        return (Step(f"Label Studio has no project {number} any more.", False),)
    if project.uid != uid:
        return (Step(f"Label Studio's project {number} is another one by now, and stays as it is.", False),)
    rows, hooks = client.backends(number), client.webhooks(number)
    mine = our_backends(rows, hooks, url, title)
    others = [row for row in rows if row not in mine]
    steps = []
    # The webhook first: without it nothing is learned, and the backend is what the next try finds it by.
    for hook in our_webhooks(hooks, mine, others, url):
        client.delete_webhook(hook.id)
        steps.append(Step(f"The webhook {public_url(hook.url)} is removed.", True))
    if active_learning and mine and project.sampling == UNCERTAINTY:
        client.set_sampling(number, SEQUENTIAL)
        steps.append(Step("Label Studio opens tasks in their order again.", True))
    for row in mine:
        client.delete_backend(row.id)
        steps.append(Step(f"The ML backend {public_url(row.url)} is removed.", True))
    return tuple(steps) or (Step("The project has no ML backend and no webhook of yoloop.", False),)
