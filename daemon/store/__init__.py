"""What detectd remembers in SQLite: tables, the one writer, readers, and what is asked of them."""
