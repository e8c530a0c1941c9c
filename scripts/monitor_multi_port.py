#!/usr/bin/env python3
"""Watch generation servers on the ports of one host: runner monitor, with ports instead of URLs.

python scripts/monitor_multi_port.py --ports 10006 10007 --once
python scripts/monitor_multi_port.py --host gpu-box --start-port 10006 --count 4 --every 5

What else is given goes on to runner monitor (--once, --json, --every, --folder, --set …).
"""

from __future__ import annotations

import argparse
import sys

try:
    from runner.cli import entry
except ImportError as error:
    sys.exit(f"monitor_multi_port.py: {error}; install the runner for {sys.executable}: pip install FOLDER")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1")
    parser.add_argument("--ports", type=int, nargs="+", metavar="N", help="these ports, not consecutive ones")
    parser.add_argument("--start-port", type=int, default=10006, metavar="N", help="the first port (default: 10006)")
    parser.add_argument("--count", type=int, default=4, metavar="N", help="so many ports from there (default: 4)")
    chosen, others = parser.parse_known_args()
    if chosen.count < 1:
        parser.error(f"argument --count: expected at least 1, got {chosen.count}")
    ports = chosen.ports or range(chosen.start_port, chosen.start_port + chosen.count)
    host = f"[{chosen.host}]" if ":" in chosen.host and not chosen.host.startswith("[") else chosen.host
    sys.argv[1:] = ["monitor", *(f"--endpoint=http://{host}:{port}" for port in ports), *others]
    entry()
