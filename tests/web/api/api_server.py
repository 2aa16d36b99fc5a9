"""``python -m tests.web.api.api_server DSN PORT``: the API of `test_api` in a process of its own."""

import sys

from reliable_imports_async import APIManager, BatchManager

from .test_api import register

if __name__ == "__main__":
    APIManager(register(BatchManager(sys.argv[1]))).run(port=int(sys.argv[2]), log_level="warning")
