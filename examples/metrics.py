"""Plot the CPU and memory of a server as they are measured, and follow its log.

    pip install matplotlib
    python examples/metrics.py [SECONDS] [FILE.png]

The API does not document the units; those of the labels are the emulator's.
"""

import asyncio
import contextlib
import sys

import matplotlib as mpl

from edgegap_async import DeploymentHandle, EdgegapClient, run
from edgegap_async.models import Metrics

mpl.use("agg")  # it needs no screen
from matplotlib import pyplot as plt


def plot(metrics: Metrics, file: str) -> None:
    """Write a PNG file with one plot above the other."""
    columns = metrics.columns()
    figure, (above, below) = plt.subplots(2, sharex=True)
    above.plot(columns["time"], columns["cpu"])
    above.set_ylabel("CPU, percent of one")
    below.plot(columns["time"], [value and value / 2**20 for value in columns["mem"]])
    below.set_ylabel("memory, MiB")
    figure.autofmt_xdate()
    figure.savefig(file)
    plt.close(figure)


async def print_log(server: DeploymentHandle) -> None:
    """Print the server's log while it runs."""
    async for text in server.follow_logs():
        print(text, end="", flush=True)


async def watch(server: DeploymentHandle, seconds: float) -> None:
    """Print the measurements of some seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for row in server.metrics():
                print(f"{row['time']:%H:%M:%S}  CPU {row['cpu']} %  memory {row['mem']} bytes")


async def main(seconds: float, file: str) -> None:
    """Run a server, and plot what it has used."""
    async with EdgegapClient() as client, asyncio.TaskGroup() as tasks:
        async with client.run("arena", "v1", users=["75.28.35.192"]) as server:
            tasks.create_task(print_log(server))
            await watch(server, seconds)
            metrics = await client.deployments.metrics(server.request_id, raw=True)
        plot(metrics, file)
        print(f"{len(metrics.rows())} measurements in {file}")


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    run(main(float(arguments.get(1, "10")), arguments.get(2, "metrics.png")))
