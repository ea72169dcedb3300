"""A collection that is served: the HTTP API, and a local socket for commands of this machine.

`asking` is the side of whoever asks by the socket, and needs neither towers nor fastapi. On the
other side, `app` joins what there is to ask for (`engine`, `pictures`, `additions`) with what keeps
strangers and floods out (`guard`, `work`), and `running` lets it run until a signal ends it.
"""
