"""Deploy from the jobs of a task queue: a job that is delivered twice gets the same server.

    pip install taskiq
    python examples/jobs_taskiq.py

The broker of this example keeps its jobs in memory. With a broker of Redis, RabbitMQ or NATS the
worker is a process of its own: taskiq worker examples.jobs_taskiq:broker
"""

import asyncio

from taskiq import Context, InMemoryBroker, TaskiqDepends, TaskiqEvents, TaskiqState

from edgegap_async import EdgegapClient, run

broker = InMemoryBroker()


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    """Open one client for all jobs of the worker."""
    state.edgegap = await EdgegapClient(owner="jobs").__aenter__()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_client(state: TaskiqState) -> None:
    """Close it; deploys under way are undone, and the queue delivers their jobs again."""
    await state.edgegap.close()


@broker.task
async def start_match(match: str, context: Context = TaskiqDepends()) -> str:  # noqa: B008
    """Start a server for a match, and return its id; the server lives on after the job."""
    client: EdgegapClient = context.state.edgegap
    server = await client.deploy("arena", "v1", users=["75.28.35.192"], idempotency_key=match)
    await server.wait_ready()
    return server.request_id


async def main() -> None:
    """Deliver a job twice, as queues do after a failure, and end the match."""
    await broker.startup()
    try:
        jobs = [await start_match.kiq("match-42") for _ in range(2)]
        results = await asyncio.gather(*(job.wait_result() for job in jobs))
        servers = {result.return_value for result in results}
        print(f"{len(jobs)} deliveries, {len(servers)} server")
        client: EdgegapClient = broker.state.edgegap
        for request_id in servers:
            await client.handle(request_id).stop()
    finally:
        await broker.shutdown()


if __name__ == "__main__":
    run(main())
