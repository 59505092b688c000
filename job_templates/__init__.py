"""Job scripts: each runs alone under `uv run`, a job runner or pytest, and ends with one `RESULT {json}` line."""
