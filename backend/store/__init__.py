"""The database, and the only SQL: a module for each table or two."""
