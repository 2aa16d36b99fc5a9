"""HTTP: the REST API, its events and the dashboard, served alone or inside another application.

Owns everything that knows the web framework. It may import `manager` and the rooms below; only the
command line imports it. What a batch does belongs below `manager`.
"""
