"""Delete old tags of an image from Edgegap's container registry.

python examples/registry.py
"""

from edgegap_async import EdgegapClient, run
from edgegap_async.errors import NotFound


async def main() -> None:
    """Delete two tags of the image studio/arena, and print what became of each."""
    async with EdgegapClient() as client:
        images = client.container_registry
        try:
            deletions = await images.delete_tags("studio/arena", ["v1", "missing"])
        except NotFound:
            print("there is no image studio/arena")
            return
        for result in deletions.results:
            print("deleted:" if result.is_deleted else "gone before:", result.tag)
        print("left:", [tag.tag async for tag in images.tags("studio/arena")])


if __name__ == "__main__":
    run(main())
