"""The tables of the database: what must survive.

Each belongs to one module, which alone reads and writes it; `database` owns the first three.
"""

from __future__ import annotations

import sqlalchemy as sa

from backend.store.dialect import unique_where

metadata = sa.MetaData()

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("label_config", sa.Text, nullable=False, server_default=""),
    sa.Column("title", sa.String, nullable=False, server_default=""),
    # Label Studio's address, as `yoloop connect` was told; its token is in `label_studios`.
    sa.Column("url", sa.String, nullable=False, server_default=""),
    # The token of a project whose Label Studio has none there: as releases until 0.7 kept it.
    sa.Column("api_key", sa.String, nullable=False, server_default=""),
    # As Label Studio says itself in /setup; its token is a legacy one, which new installs refuse.
    sa.Column("hostname", sa.String, nullable=False, server_default=""),
    sa.Column("access_token", sa.String, nullable=False, server_default=""),
    sa.Column("baseline", sa.String, nullable=False, server_default=""),
    sa.Column("cursor", sa.Float),
    sa.Column("synced_at", sa.Float),
    sa.Column("sync_error", sa.Text, nullable=False, server_default=""),
    sa.Column("waiting_for", sa.Text, nullable=False, server_default=""),
    # As `yoloop connect` was told: Label Studio's backend is titled with the served version.
    sa.Column("active_learning", sa.Boolean, nullable=False, server_default=sa.false()),
    # yoloop's address as Label Studio reaches it, as `yoloop connect` was told.
    sa.Column("backend_url", sa.String, nullable=False, server_default=""),
    # When `yoloop disconnect` took it out of Label Studio, in epoch seconds; null: it is connected.
    sa.Column("disconnected_at", sa.Float),
)

label_studios = sa.Table(
    # One token for each Label Studio: all projects of that address use it.
    "label_studios",
    metadata,
    sa.Column("url", sa.String, primary_key=True),
    sa.Column("api_key", sa.String, nullable=False),
)

hints = sa.Table(
    "hints",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("deletions", sa.Boolean, nullable=False),
    # Events that ask for a training, where Label Studio sends one by itself at a submit, and submits: see
    # `Hint.asked_by_a_person`.
    sa.Column("asked", sa.Integer, nullable=False, server_default="0"),
    sa.Column("submits", sa.Integer, nullable=False, server_default="0"),
)

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("task_created_at", sa.Float, nullable=False),
    # The task's `updated_at` as it was read, in epoch seconds; null: read by 0.7 or before, so it is read again.
    sa.Column("updated_at", sa.Float),
    sa.Column("data", sa.JSON, nullable=False),
    # The annotation that teaches, or the newest of those that do together; null when the task has none.
    sa.Column("annotation_id", sa.Integer),
    # When that annotation was first submitted, in epoch seconds.
    sa.Column("submitted_at", sa.Float),
    sa.Column("result", sa.JSON(none_as_null=True)),
    sa.Column("content", sa.String),
    # The content that the last finished training saw.
    sa.Column("seen", sa.String),
    # Of a task with several annotations that could teach: all of them, what `result` was made of them with, and how
    # much annotators agree, 0 to 1.
    sa.Column("annotations", sa.JSON(none_as_null=True)),
    sa.Column("selection", sa.String),
    sa.Column("agreement", sa.Float),
)

leases = sa.Table(
    # Who may do what only one may do at a time. `number` goes up each time that it is taken: who holds an older one
    # writes nothing any more.
    "leases",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("holder", sa.String, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    # Epoch seconds at which it ends by itself.
    sa.Column("until", sa.Float, nullable=False),
)

listings = sa.Table(
    # How far the ids of a project's tasks, with their times, are compared with the ledger.
    "listings",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    # Wanted: from the first id on, as soon as the one that goes on has ended.
    sa.Column("wanted", sa.Boolean, nullable=False, server_default=sa.true()),
    # All ids up to this one are compared; null: no listing goes on.
    sa.Column("after", sa.Integer),
    # Epoch seconds at which the last one ended.
    sa.Column("finished_at", sa.Float),
    # Numbers of tasks, here and there, that differed although all ids were compared.
    sa.Column("counted", sa.String, nullable=False, server_default=""),
)

unreadable = sa.Table(
    # Annotated tasks of which an image could not be read: no news, and no lesson.
    "unreadable",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    # A hash of the task's data; another one may be readable.
    sa.Column("data", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    # Epoch seconds of the last try.
    sa.Column("tried_at", sa.Float, nullable=False),
)

readings = sa.Table(
    # What the annotation that teaches for a task says under the labelling config.
    "readings",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    # A hash of the labelling config that it was read with.
    sa.Column("config", sa.String, nullable=False),
    # Label → objects, as JSON.
    sa.Column("labels", sa.Text, nullable=False),
    # Why a region is not understood; empty: all are.
    sa.Column("problem", sa.Text, nullable=False),
    # Something can be learned from it.
    sa.Column("used", sa.Boolean, nullable=False),
    # Its regions, and the task's submitted annotations that could teach.
    sa.Column("regions", sa.Integer, nullable=False),
    sa.Column("annotations", sa.Integer, nullable=False, server_default="1"),
    # Key of the task's image, as `thumbnails` has it; of several a hash.
    sa.Column("image", sa.String, nullable=False, server_default=""),
    # "training" or "validation", as the last dataset had it.
    sa.Column("side", sa.String, nullable=False, server_default=""),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("uid", sa.String, nullable=False, index=True),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("epoch", sa.Integer),
    sa.Column("epochs", sa.Integer),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
    sa.Column("version", sa.String, nullable=False, server_default=""),
    sa.Column("cancel", sa.Boolean, nullable=False, server_default=sa.false()),
    # One unfinished job per project: a second request joins the first.
    unique_where("one_unfinished_job", "uid", "finished_at IS NULL"),
)

serving = sa.Table(
    # Which version of each project serves. Changed only by whoever has seen its present `sequence`.
    "serving",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    # Null: no trained version serves.
    sa.Column("number", sa.Integer),
    # What led there: "promoted", "rolled back", "deleted" in MLflow, "unset" there; by "person" or "training".
    sa.Column("what", sa.String, nullable=False),
    sa.Column("decided_by", sa.String, nullable=False),
    sa.Column("decided_at", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    # Numbers of the promotions that were not rolled back, the last one at the end.
    sa.Column("stack", sa.JSON, nullable=False),
    # Number → the last act on that version.
    sa.Column("acts", sa.JSON, nullable=False),
    # The highest number that was ever given to a version; null: none was.
    sa.Column("highest", sa.Integer),
    # Counts the acts; MLflow was told of them up to `mirrored`.
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("mirrored", sa.Integer, nullable=False),
)

shown = sa.Table(
    # One row for each submitted annotation: which suggestion its author was shown, and how long they took.
    "shown",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("annotation_id", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.Integer, nullable=False),
    # Empty: none was shown.
    sa.Column("version", sa.String, nullable=False),
    sa.Column("submitted_at", sa.Float, nullable=False),
    sa.Column("lead_time", sa.Float),
    # Whether the suggestion was yoloop's own: others' are not counted.
    sa.Column("ours", sa.Boolean, nullable=False, server_default=sa.true()),
)

outcomes = sa.Table(
    # What became of each suggested region, and each region that was missed (its `score` is null).
    "outcomes",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("annotation_id", sa.Integer, primary_key=True),
    sa.Column("region_id", sa.String, primary_key=True),
    sa.Column("control", sa.String, nullable=False),
    sa.Column("label", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("score", sa.Float),
    # Of a moved region: intersection over union with what was suggested.
    sa.Column("iou", sa.Float),
)

acceptances = sa.Table(
    # The annotations that `yoloop accept` made, until they are undone.
    "acceptances",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("annotation_id", sa.Integer, primary_key=True),
    sa.Column("run", sa.String, nullable=False, index=True),
    sa.Column("task_id", sa.Integer, nullable=False),
    # What was accepted; another content shows that a person has worked on it.
    sa.Column("content", sa.String, nullable=False),
    sa.Column("regions", sa.Integer, nullable=False),
    sa.Column("accepted_at", sa.Float, nullable=False),
)

removed_annotations = sa.Table(
    # Annotations that were deleted in Label Studio when a run was taken back, as they were there.
    "removed_annotations",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("annotation_id", sa.Integer, primary_key=True),
    # Epoch seconds; Label Studio may give an id out again.
    sa.Column("removed_at", sa.Float, primary_key=True),
    sa.Column("task_id", sa.Integer, nullable=False),
    sa.Column("run", sa.String, nullable=False),
    # All that Label Studio said of it.
    sa.Column("annotation", sa.JSON, nullable=False),
)

refreshes = sa.Table(
    # How far the unlabelled tasks of a project carry suggestions of the version in service.
    "refreshes",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    # What the suggestions depend on, see `refresh.state.key_of`.
    sa.Column("key", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False, server_default=""),
    # Tasks that the project had when it began, labelled ones too.
    sa.Column("tasks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("total", sa.Integer, nullable=False, server_default="0"),
    sa.Column("done", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
    # Outdated predictions that are still too young to be removed.
    sa.Column("outdated", sa.Integer, nullable=False, server_default="0"),
    sa.Column("started_at", sa.Float),
    sa.Column("finished_at", sa.Float),
    sa.Column("message", sa.Text, nullable=False, server_default=""),
)

heartbeats = sa.Table(
    # The last sign of life of the worker, and when its loop last came round, in epoch seconds.
    "heartbeats",
    metadata,
    sa.Column("process", sa.String, primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("turned_at", sa.Float, nullable=False),
)

failures = sa.Table(
    # How often something failed in the worker, see `heartbeat.FAILURES`.
    "failures",
    metadata,
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("times", sa.Integer, nullable=False),
)

embeddings = sa.Table(
    # What a version's own layers make of a task's image: float32 numbers of length 1, to tell images apart.
    "embeddings",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("task_id", sa.Integer, primary_key=True),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)

thumbnails = sa.Table(
    # Grey thumbnails of annotated images; near-duplicates share the group, which decides on their side.
    "thumbnails",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("pixels", sa.LargeBinary, nullable=False),
    sa.Column("group", sa.String, nullable=False, index=True),
    # Groups that are alike although the first was full; empty: the key is an address, as releases until 0.7 kept it.
    sa.Column("family", sa.String, nullable=False, server_default=""),
    # Groups of other families that it is like, too, with spaces between.
    sa.Column("also", sa.Text, nullable=False, server_default=""),
    # A release until 0.7 has put it on a side.
    sa.Column("old", sa.Boolean, nullable=False, server_default=sa.true()),
)

sides = sa.Table(
    # Which images train and which validate: one row for each image, and for each thing that keeps images on one side,
    # once it is given.
    "sides",
    metadata,
    sa.Column("uid", sa.String, primary_key=True),
    # See `backend.fit.dataset.split`.
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("group", sa.String, nullable=False),
    # "training" or "validation"; "both": of what kept images together too late.
    sa.Column("side", sa.String, nullable=False),
)
