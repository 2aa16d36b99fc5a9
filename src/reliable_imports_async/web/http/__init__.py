"""What every request has in common: authentication, bodies, limits, problems and the call itself.

Owns the way of a request to its handler. It may import `manager` and the rooms below; the API,
the events and the dashboard import it. It knows no route.
"""
