"""Files of jobs; what evaluations asked and predicted; scenarios of measurements, whose samples are a file now."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NO_SAMPLES = '{"warmup_ms":[],"samples_ms":[]}'


def upgrade() -> None:
    """Make them. Samples that were kept in the table are dropped."""
    op.create_table(
        "job_files",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("media_type", sa.String(length=100), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_files_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name", name=op.f("pk_job_files")),
    )
    op.create_index(op.f("ix_job_files_sha256"), "job_files", ["sha256"], unique=False)

    # Rows that are there get a value by the default, which goes again: nobody may write one without.
    with op.batch_alter_table("evaluations") as table:
        # Nobody asks the empty question: what was evaluated before is never taken for an answer.
        table.add_column(sa.Column("question", sa.String(length=64), nullable=False, server_default=""))
        table.add_column(sa.Column("predictions_sha256", sa.String(length=64), nullable=True))
    with op.batch_alter_table("evaluations") as table:
        table.alter_column("question", existing_type=sa.String(length=64), server_default=None)
        table.create_index(op.f("ix_evaluations_question"), ["question"], unique=False)

    with op.batch_alter_table("measurements") as table:
        table.add_column(sa.Column("scenario", sa.String(length=32), nullable=False, server_default="single_stream"))
        table.add_column(sa.Column("instances", sa.Integer(), nullable=False, server_default="1"))
        table.drop_column("samples")
    with op.batch_alter_table("measurements") as table:
        table.alter_column("scenario", existing_type=sa.String(length=32), server_default=None)
        table.alter_column("instances", existing_type=sa.Integer(), server_default=None)


def downgrade() -> None:
    """Drop them. Samples cannot be brought back: measurements have none then."""
    with op.batch_alter_table("measurements") as table:
        table.add_column(sa.Column("samples", sa.Text(), nullable=False, server_default=_NO_SAMPLES))
        table.drop_column("instances")
        table.drop_column("scenario")
    with op.batch_alter_table("measurements") as table:
        table.alter_column("samples", existing_type=sa.Text(), server_default=None)

    with op.batch_alter_table("evaluations") as table:
        table.drop_index(op.f("ix_evaluations_question"))
        table.drop_column("predictions_sha256")
        table.drop_column("question")

    op.drop_index(op.f("ix_job_files_sha256"), table_name="job_files")
    op.drop_table("job_files")
