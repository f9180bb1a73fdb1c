"""Call the API directly: lists, tags, logs, metrics, locations, one method for each call.

python examples/api_calls.py
"""

from edgegap_async import EdgegapClient, run
from edgegap_async.requests import Filter, OrderBy, StopFilter


async def main() -> None:
    """Deploy a server, then ask the API about it in every way."""
    async with EdgegapClient() as client:
        async with client.run("arena", "v1", users=["8.8.8.8"], tags=["ranked"]) as server:
            async for row in client.deployments.list(  # turns the pages by itself
                filters=[Filter("tags", "in", ["ranked"]), Filter("status", "eq", "ready")],
                order_by=[OrderBy("created_at", "desc")],
            ):
                print(f"{row.request_id} at {row.ports['game'].link}")
            deployment = await client.deployments.get(server.request_id)
            city = deployment.location.city if deployment.location else "an unknown city"
            print(f"{deployment.current_status} in {city}")
            print(f"a field as the API sent it: {deployment.raw['app_version']}")
            await client.tags.create(server.request_id, "season-3")
            print(f"tags: {[tag.name async for tag in client.tags.list(server.request_id)]}")
            print(f"logs: {(await client.deployments.logs(server.request_id)).logs}")
        print(f"locations: {(await client.locations.list()).total_count}")
        await client.deployments.bulk_stop([StopFilter("deployment_tags", ["ranked"])])


if __name__ == "__main__":
    run(main())
