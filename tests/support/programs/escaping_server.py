"""A game server whose children try to survive it: `escaping_server.py PORT TOKEN`.

It leaves a child in another session, and a daemon in another session whose environment is empty.
`TOKEN` is in the command line of each of them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

_, port, token = sys.argv
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3600)
daemon = (
    "import os, signal, time\n"
    "if os.fork() == 0:\n"
    "  os.setsid()\n"
    "  signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "  if os.fork() == 0: time.sleep(3600)\n"
)
subprocess.run([sys.executable, "-I", "-S", "-c", daemon, token], env={}, check=True)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind(("127.0.0.1", int(port)))
    time.sleep(3600)
