"""What people look at afterwards: runs as a table, as curves, and as a page."""
