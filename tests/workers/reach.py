"""What tests reach of the workers' inside."""

from reliable_imports_async.workers import processes


def restart_after(monkeypatch, seconds):
    """Start a process that has died again after so many seconds."""
    monkeypatch.setattr(processes, "FIRST_PAUSE", seconds)
