"""The tags that the container registry shows.

They are those of `[[images]]` in the settings (`tags`, and a tag in `image`), and those of
versions. A tag that was deleted is gone until the settings are read again: a version
cannot be created with it. The registry's host is no part of a name; its project, the first part of
the path, may be left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime

import attrs

from edgegap_async.api.resources.container_registry import ImageArtifact, ImageTag, ImageTagDeleted
from edgegap_async.errors import NotFound

from .catalogue import Application, Image, split_image
from .registry import Registry


@attrs.frozen
class _Tagged:
    repository: str  # registry and name
    tag: str
    pushed_at: datetime
    program: str  # what the image runs, which stands for its content


class ContainerImages:
    """The tags of images.

    Args:
        registry: the images of the settings, and the versions with the images that they run.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def tags(self, image: str) -> tuple[ImageTag, ...]:
        """Returns the tags of an image, in the order in which they were pushed.

        Raises:
            NotFound: no image has that name, or all its tags were deleted.
        """
        found = self._find(image)
        return tuple(
            ImageTag(tag=one.tag, last_push_at=one.pushed_at, artifact=_artifact(one, found))
            for one in found
        )

    def delete(self, image: str, tag: str) -> ImageTagDeleted:
        """Deletes a tag.

        Raises:
            NotFound: there is none.
        """
        found = self._find(image)
        for one in found:
            if one.tag == tag:
                self._registry.deleted_images.add(f"{one.repository}:{tag}")
                found.remove(one)
                return ImageTagDeleted(deleted_tag=tag, artifact=_artifact(one, found))
        raise NotFound(f"Tag {tag} of image {image} not found")

    def _find(self, image: str) -> list[_Tagged]:
        found: dict[tuple[str, str], _Tagged] = {}
        for one in (*self._of_settings(), *self._of_versions()):
            path = one.repository.partition("/")[2]
            is_deleted = f"{one.repository}:{one.tag}" in self._registry.deleted_images
            if image in {path, path.partition("/")[2]} and not is_deleted:
                found.setdefault((one.repository, one.tag), one)
        if not found:
            raise NotFound(f"Image {image} not found")
        return sorted(found.values(), key=lambda one: one.pushed_at)

    def _of_settings(self) -> Iterator[_Tagged]:
        for image in self._registry.images:
            repository, tag = split_image(image.image)
            for each in dict.fromkeys((*filter(None, [tag]), *image.tags)):
                yield _Tagged(repository, each, self._registry.loaded_at, _content(image, each))

    def _of_versions(self) -> Iterator[_Tagged]:
        for stored in self._registry.applications.values():
            for version in stored.versions.values():
                shown = version.shown
                if shown.docker_tag and shown.create_time:
                    yield _Tagged(
                        f"{shown.docker_repository}/{shown.docker_image}",
                        shown.docker_tag,
                        shown.create_time,
                        _content(version.program, shown.docker_tag),
                    )


def _content(source: Image | Application, tag: str) -> str:
    """Returns what the image has in it: a program, or what a container engine would pull."""
    return repr(source.argv) if source.argv else tag


def _artifact(one: _Tagged, every: list[_Tagged]) -> ImageArtifact:
    same = (one.repository, one.program)
    tags = tuple(each.tag for each in every if (each.repository, each.program) == same)
    content = "\0".join(same).encode()
    return ImageArtifact(
        image_hash=f"sha256:{hashlib.sha256(content).hexdigest()}",
        size_mb=0.0,  # there is no image
        remaining_tags=tags,
        artifact_deleted=not tags,
    )
