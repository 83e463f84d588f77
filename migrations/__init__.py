"""The database's layouts, one revision after the other (Alembic)."""
