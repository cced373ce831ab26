"""Keep objects' bodies in the cache: parsing YAML takes longer than all that is done with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from kfdeploy.cache import Cache, make_cache_key, program_digest
from kfdeploy.kubernetes.objects import Object


def load_bodies(objects: Sequence[Object], cache: Cache) -> None:
    """Give these objects their bodies, all from one entry of the cache.

    A date of YAML becomes a text, as the API server has it.

    Raises:
        UserError: broken YAML.
    """
    if not objects:
        return
    key = make_cache_key("bodies", program_digest(), *(item.text for item in objects))
    if (kept := cache.get(key)) is None:
        kept = json.dumps([item.body for item in objects], default=str).encode()
        cache.put(key, kept)
    for item, body in zip(objects, json.loads(kept), strict=True):
        item.__dict__["body"] = body  # the field of the cached property


def load_each_body(objects: Iterable[Object], cache: Cache) -> None:
    """Give each object its body, from an entry of its own: of many long ones few are looked at."""
    for item in objects:
        load_bodies([item], cache)
