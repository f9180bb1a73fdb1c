"""Tags of a deployment."""

from __future__ import annotations

import pytest
from emulated_cloud import (
    SLEEPER,
    a_cloud,
    answer,
    deployed,
)

from edgegap_async.api.requests import TagName
from edgegap_async.errors import BadRequest, Conflict, NotFound


async def test_tags_are_made_read_renamed_and_deleted() -> None:
    async with a_cloud(SLEEPER) as cloud:
        deployment = await deployed(cloud, SLEEPER, tags=["a", "b"])
        one = {"request_id": deployment.request_id}

        made = await answer(cloud, "create_tag", **one, body=TagName("c"))
        renamed = await answer(cloud, "rename_tag", **one, tag_name="a", body=TagName("z"))
        await answer(cloud, "rename_tag", **one, tag_name="b", body=TagName("b"))
        await cloud.delete_tag(**one, tag_name="b")
        page = await answer(cloud, "list_tags", **one)

        assert [tag.name for tag in page.tags] == ["z", "c"]
        assert (page.count, page.total_count, page.pagination.has_next) == (2, 2, False)
        assert await answer(cloud, "get_tag", **one, tag_name="c") == made
        assert renamed.create_time < renamed.last_updated
        assert deployment.deployment().tags == ("z", "c")


async def test_missing_and_duplicate_tags_are_refused() -> None:
    async with a_cloud(SLEEPER) as cloud:
        deployment = await deployed(cloud, SLEEPER, tags=[f"t{number}" for number in range(39)])
        one = {"request_id": deployment.request_id}

        for call in ("get_tag", "delete_tag"):
            with pytest.raises(NotFound, match="Tag none not found"):
                await getattr(cloud, call)(**one, tag_name="none")
        with pytest.raises(NotFound):
            await cloud.rename_tag(**one, tag_name="none", body=TagName("x"))
        with pytest.raises(Conflict):
            await cloud.rename_tag(**one, tag_name="t1", body=TagName("t2"))
        with pytest.raises(Conflict):
            await cloud.create_tag(**one, body=TagName("t1"))
        await cloud.create_tag(**one, body=TagName("t39"))
        with pytest.raises(BadRequest, match="40 tags at most"):
            await cloud.create_tag(**one, body=TagName("t40"))
