"""The ways to change an object: three kinds of patch, and server-side apply with the ownership of fields."""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.emulators.kube import schema as schemas
from tests.emulators.kube.kinds import Object

Path = tuple[str, ...]


class Conflict(Exception):
    """Server-side apply would take fields from others."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        super().__init__(", ".join(f"{manager}: {field}" for manager, field in fields))
        self.fields = fields


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(target: Any, operations: list[Object]) -> Any:
    """RFC 6902: add, replace, remove and test."""
    result = copy.deepcopy(target)
    for operation in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = result
        for part in parts[:-1]:
            place = place[int(part)] if isinstance(place, list) else place[part]
        last: Any = parts[-1]
        if isinstance(place, list):
            last = len(place) if last == "-" else int(last)
        if operation["op"] == "remove":
            del place[last]
        elif operation["op"] == "test":
            if place[last] != operation["value"]:
                raise ValueError(f"testing {operation['path']} failed")
        elif operation["op"] == "add" and isinstance(place, list):
            place.insert(last, operation["value"])
        else:
            place[last] = operation["value"]
    return result


def strategic(target: Any, patch: Any, schema: Object) -> Any:
    """A strategic merge patch."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        inner = schemas.child(schema, key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, list) and (merge_key := schemas.merge_key(inner)):
            result[key] = _strategic_list(result.get(key) or [], value, merge_key, schemas.items(inner))
        else:
            result[key] = strategic(result.get(key), value, inner)
    for key, order in patch.items():
        if key.startswith("$setElementOrder/") and (name := key.partition("/")[2]) in result:
            merge_key = schemas.merge_key(schemas.child(schema, name)) or ""
            wanted = [item.get(merge_key) if isinstance(item, dict) else item for item in order]
            result[name].sort(key=lambda item: wanted.index(item[merge_key]) if item.get(merge_key) in wanted else -1)
        elif key.startswith("$deleteFromPrimitiveList/") and (name := key.partition("/")[2]) in result:
            result[name] = [item for item in result[name] if item not in order]
        elif key == "$retainKeys":
            result = {name: value for name, value in result.items() if name in order}
    return result


def _strategic_list(target: list[Object], patch: list[Object], key: str, schema: Object) -> list[Object]:
    result = list(target)
    for item in patch:
        if not isinstance(item, dict):
            result += [item] if item not in result else []
            continue
        same = next((index for index, each in enumerate(result) if each.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            result = [each for each in result if each.get(key) != item.get(key)]
        elif same is None:
            result.append(item)
        else:
            result[same] = strategic(result[same], item, schema)
    return result


def fields(found: Object) -> set[Path]:
    """Every field that an object sets, in the spelling of managedFields."""
    paths: set[Path] = set()
    schema = schemas.of(found)
    for key, value in found.items():
        if key not in ("apiVersion", "kind", "metadata"):
            _walk(value, schemas.child(schema, key), (f"f:{key}",), paths)
    for key in ("labels", "annotations", "ownerReferences", "finalizers"):
        if key in found.get("metadata", {}):
            _walk(found["metadata"][key], {}, ("f:metadata", f"f:{key}"), paths)
    return paths


def _walk(value: Any, schema: Object, path: Path, paths: set[Path]) -> None:
    keys = schemas.map_keys(schema) if isinstance(value, list) else ()
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        for key, inner in value.items():
            _walk(inner, schemas.child(schema, key), (*path, f"f:{key}"), paths)
    elif keys and all(isinstance(item, dict) for item in value):
        for item in value:
            told = json.dumps(dict(zip(keys, schemas.identity(item, keys), strict=True)), separators=(",", ":"))
            paths.add((*path, f"k:{told}"))
            for key, inner in item.items():
                _walk(inner, schemas.child(schemas.items(schema), key), (*path, f"k:{told}", f"f:{key}"), paths)
    else:
        paths.add(path)


def _step(value: Any, part: str) -> tuple[Any, Any]:
    """Where a part of a path leads: the key or index, and what is there; None and None where there is nothing."""
    if part.startswith("f:") and isinstance(value, dict):
        key = part[2:]
        return (key, value[key]) if key in value else (None, None)
    if part.startswith("k:") and isinstance(value, list):
        told = json.loads(part[2:])
        for index, item in enumerate(value):
            if schemas.identity(item, tuple(told)) == tuple(told.values()):
                return index, item
    return None, None


def value_at(found: Any, path: Path) -> Any:
    """What stands there, or None."""
    for part in path:
        key, found = _step(found, part)
        if key is None:
            return None
    return found


def _remove(found: Any, path: Path) -> None:
    chain = []
    for part in path:
        key, inner = _step(found, part)
        if key is None:
            return
        chain.append((found, key))
        found = inner
    place, key = chain.pop()
    del place[key]
    while chain and not place:  # nothing is left in it
        inner = place
        place, key = chain.pop()
        if place[key] is inner and not inner:
            del place[key]


def to_tree(paths: set[Path]) -> Object:
    """As `fieldsV1` writes fields."""
    tree: Object = {}
    for path in sorted(paths):
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        if path[-1].startswith("k:"):
            place["."] = {}
    return tree


def from_tree(tree: Object, path: Path = ()) -> set[Path]:
    """The other way."""
    found: set[Path] = set()
    for part, inner in tree.items():
        if part == ".":
            found.add(path)
        elif inner:
            found |= from_tree(inner, (*path, part))
        else:
            found.add((*path, part))
    return found


def managers(found: Object) -> dict[tuple[str, str], set[Path]]:
    """(manager, operation) -> the fields that it owns."""
    entries = found.get("metadata", {}).get("managedFields", ())
    return {(each["manager"], each["operation"]): from_tree(each["fieldsV1"]) for each in entries}


def set_managers(found: Object, owned: dict[tuple[str, str], set[Path]], now: str) -> None:
    """Writes managedFields."""
    found["metadata"]["managedFields"] = [
        {"manager": manager, "operation": operation, "apiVersion": found["apiVersion"], "time": now,
         "fieldsType": "FieldsV1", "fieldsV1": to_tree(paths)}
        for (manager, operation), paths in owned.items() if paths
    ]  # fmt: skip


def apply(live: Object | None, applied: Object, manager: str, *, force: bool, now: str) -> Object:
    """Server-side apply.

    Args:
        live: The object as it is, or None.
        applied: All that the manager wants of it.
        manager: Who applies.
        force: Take fields over from others.
        now: The time to write.

    Raises:
        Conflict: Others own fields that this would change.
    """
    wanted = fields(applied)
    me = (manager, "Apply")
    if live is None:
        result = copy.deepcopy(applied)
        set_managers(result, {me: wanted}, now)
        return result
    owned = managers(live)
    changed = {path for path in wanted if value_at(live, path) != value_at(applied, path)}
    leaves = {path for path in changed if not path[-1].startswith("k:")}
    taken = [(who, path) for (who, how), paths in owned.items() if (who, how) != me for path in paths & leaves]
    if taken and not force:
        raise Conflict([(who, "".join(f".{part[2:]}" for part in path)) for who, path in sorted(taken)])
    result = copy.deepcopy(live)
    _merge(result, applied, schemas.of(applied))
    for key in owned:
        if key != me:
            owned[key] -= leaves
    others = set().union(*(paths for key, paths in owned.items() if key != me)) if owned else set()
    for path in sorted(owned.get(me, set()) - wanted - others, key=len, reverse=True):
        if not any(other[: len(path)] == path for other in wanted | others):
            _remove(result, path)
    owned[me] = wanted
    set_managers(result, owned, now)
    return result


def _merge(into: Object, applied: Object, schema: Object) -> None:
    for key, value in applied.items():
        inner = schemas.child(schema, key)
        present = into.get(key)
        keys = schemas.map_keys(inner) if isinstance(value, list) else ()
        if isinstance(value, dict) and isinstance(present, dict) and inner.get("x-kubernetes-map-type") != "atomic":
            _merge(present, value, inner)
        elif keys and isinstance(present, list):
            into[key] = _merge_lists(present, value, keys, schemas.items(inner))
        else:
            into[key] = copy.deepcopy(value)


def _merge_lists(present: list[Object], applied: list[Object], keys: tuple[str, ...], schema: Object) -> list[Object]:
    result = []
    rest = {schemas.identity(item, keys): item for item in present}
    for item in applied:
        same = rest.pop(schemas.identity(item, keys), None)
        if same is None:
            result.append(copy.deepcopy(item))
        else:
            _merge(same, item, schema)
            result.append(same)
    return [*result, *rest.values()]


def updated(before: Object | None, after: Object, manager: str, now: str) -> None:
    """Gives the fields that an update changed to who made it."""
    owned = managers(before) if before is not None else {}
    me = (manager, "Update")
    now_set = fields({key: value for key, value in after.items() if key != "status"})
    changed = {path for path in now_set if before is None or value_at(before, path) != value_at(after, path)}
    for key in owned:
        owned[key] = {path for path in owned[key] if path in now_set and (key == me or path not in changed)}
    owned[me] = owned.get(me, set()) | changed
    set_managers(after, owned, now)
