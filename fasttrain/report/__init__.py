"""Self-contained HTML reports: pages of text, tables, figures and pictures in one file without outside requests."""
