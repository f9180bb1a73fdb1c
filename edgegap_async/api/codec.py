"""Converts models to JSON and back, without network access.

One writer and two readers, because the client is strict in what it sends and lenient in what it
reads:

- **Answers** are read leniently. The page and the live API disagree on types: `sockets` is `"5"` or
  `5`, coordinates are texts or numbers, times have a `T` or a space or are null. The reader takes a
  value for what it means; a value without meaning becomes None and stays in `raw`. Only a missing
  required field, such as a `request_id`, makes an answer unreadable.
- **Requests**, which the emulator reads, must match the reference exactly.

An answer and each row of a list read only their required fields at once, and any other field at the
first access (see `models.LazyModel`). So a status costs little more than its JSON, as does a list
of a hundred rows of which a program reads a few. No hook of an optional field raises: a late read
cannot fail.

cattrs, which takes as long to import as all of `http`, is imported by functions, first `prepare`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, get_args, get_origin

import attrs

from edgegap_async.errors import InvalidRequest, log_fields

from .models import LazyModel, Location, Status, field_readers
from .models.response import Model as AnyModel
from .requests import (
    STRICT,
    EnvironmentVariable,
    Filter,
    GeoCoordinates,
    IpAddress,
    OrderBy,
    RequestModel,
    StopFilter,
    User,
)
from .validation import items_of

if TYPE_CHECKING:
    from cattrs import Converter
    from cattrs.errors import BaseValidationError

Model = TypeVar("Model")

logger = logging.getLogger(__name__)

_DIGITS_TO_ZERO: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * 19  # digits; orjson reads an integer beyond 64 bits as a float
_EACH_FOURTH: Final = _LONG_NUMBER[3::4]  # what every fourth byte of a long number shows


def _fast_loads(body: bytes) -> Any:
    """Parses JSON with orjson, and with `json` what orjson refuses or would read differently.

    orjson refuses NaN and Infinity, numbers beyond a float, half surrogates, a byte order mark, and
    UTF-16, which `json` reads. The search for a long number takes a fifth of orjson's own time: it
    reads every fourth byte first, which is enough for nearly every answer.
    """
    if _EACH_FOURTH in body[::4].translate(_DIGITS_TO_ZERO) and (
        _LONG_NUMBER in body.translate(_DIGITS_TO_ZERO)
    ):
        return json.loads(body)
    try:
        return orjson.loads(body)
    except ValueError:
        return json.loads(body)


loads: Callable[[bytes], Any] = json.loads
"""Parses JSON, as `json.loads` does. Raises ValueError or RecursionError if it is not JSON."""
with contextlib.suppress(ImportError):  # the extra `speed`
    import orjson

    loads = _fast_loads


def dumps(value: object, *, allow_nan: bool = True) -> bytes:
    """Returns a JSON value as compact UTF-8.

    Raises:
        ValueError: the value is NaN or infinite, and `allow_nan` is False, or it cannot be encoded.
        TypeError: the value is of a type that JSON does not have.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=allow_nan)
    return text.encode()


# ── times ─────────────────────────────────────────────────────────────────────────────────────────


def format_time(value: datetime) -> str:
    """Returns a time as v1 writes it: `2025-11-29 22:35:31.971359`. A naive time counts as UTC."""
    return _utc(value).strftime("%Y-%m-%d %H:%M:%S.%f")


def _iso(value: datetime) -> str:
    """Returns a time as v2 and filters write it: `2025-11-26T16:32:30.825138Z`."""
    return _utc(value).replace(tzinfo=None).isoformat() + "Z"


def _utc(value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise InvalidRequest(f"in UTC {value} is not in the years 1 to 9999") from None


def read_time(value: object, _: object = None) -> datetime | None:
    """Reads a time in any format that the API uses; None if the value is not a time."""
    if not value or not isinstance(value, str):
        return None
    try:
        # The format of v1, which is UTC without a zone: a shortcut, in a third of the time.
        if len(value) == len("YYYY-MM-DD HH:MM:SS.ffffff") and value[10] == " ":
            return datetime.fromisoformat(value + "+00:00")
        return _utc(datetime.fromisoformat(value))
    except ValueError:
        return None


# ── answers: lenient ──────────────────────────────────────────────────────────────────────────────


def _text(value: object, _: object = None) -> str | None:
    if value is None or type(value) is str:
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _required_text(value: object, _: object = None) -> str:
    if type(value) is str and value:
        return value  # a shortcut that every request_id takes
    text = _text(value)
    if not text:  # the value may be a secret
        shown = value if value is None or value == "" else f"a {type(value).__name__}"
        raise ValueError(f"a text is needed, not {shown!r}")
    return text


def _list_of_texts(value: object, _: object = None) -> tuple[str, ...]:
    texts = map(_text, value) if isinstance(value, list) else ()
    return tuple(text for text in texts if text is not None)


def _number(value: object, _: object = None) -> float | None:
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: object, _: object = None) -> int | None:
    if value is None or type(value) is int:
        return value
    number = _number(value)
    return int(number) if number is not None and number.is_integer() else None


def _optional_flag(value: object, _: object = None) -> bool | None:
    if type(value) is bool:
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None


def _flag(value: object, _: object = None) -> bool:
    return value if type(value) is bool else _optional_flag(value) or False


_STATUSES: Final[Mapping[object, Status]] = {status.api_text: status for status in Status}


def _status(value: object, _: object = None) -> Status:
    text = value if type(value) is str else ""
    return _STATUSES.get(text) or Status(text)


def _optional_status(value: object, _: object = None) -> Status | None:
    return _status(value) if isinstance(value, str) and value else None


_HOOKS: Final[Mapping[object, Callable[[Any, Any], Any]]] = {
    str: _required_text,
    str | None: _text,
    int | None: _integer,
    float | None: _number,
    bool: _flag,
    bool | None: _optional_flag,
    datetime | None: read_time,
    Status: _status,
    Status | None: _optional_status,
}
_NEVER_RAISE: Final = {_list_of_texts, *_HOOKS.values()} - {_required_text}


@functools.cache
def _lenient() -> Converter:
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn

    # Only `_required_text` raises, so cattrs has no errors to explain.
    converter = Converter(detailed_validation=False)
    for kind, hook in _HOOKS.items():
        converter.register_structure_hook(kind, hook)

    @converter.register_structure_hook_factory(attrs.has)
    def _object_of(kind: type[Any]) -> Callable[[Any, Any], Any]:
        attrs.resolve_types(kind)
        structure = make_dict_structure_fn(kind, converter)

        def read(value: Any, _: Any) -> Any:
            # Another value than an object reads as an empty one: most fields are optional.
            try:
                return structure(value if isinstance(value, dict) else {}, kind)
            except (KeyError, TypeError) as error:  # a required field; a caller's own hook
                reason = f"{type(error).__name__}: {error}"
                raise ValueError(f"a field cannot be read ({reason})") from None

        return read

    @converter.register_structure_hook_factory(_is_lazy_model)
    def _lazy_model(kind: type[LazyModel]) -> Callable[[Any, Any], Any]:
        attrs.resolve_types(kind)
        every = attrs.fields(kind)
        fields = [field for field in every if field.init and field.name != "raw"]
        ours = [(field.name, field.default) for field in every if not field.init]
        hooks = {field.name: _hook_of_field(converter, field) for field in fields}
        # Nearly every answer with a status is read for it: an access that reads late costs more.
        needed = [
            (field.name, hooks[field.name])
            for field in fields
            if field.default is attrs.NOTHING or field.type is Status
        ]
        field_readers[kind] = hooks
        put = object.__setattr__
        # A gateway's {"status": "ok"} is no empty list: it would show that a deployment is absent.
        list_names = hooks.keys() - {"message"} if "pagination" in hooks else frozenset[str]()

        def read(value: Any, _: Any) -> Any:
            if list_names and value and list_names.isdisjoint(value):
                raise ValueError(f"the object has no field of a {kind.__name__}")
            # Like `__init__` of the class, except that fields which are read late stay unset.
            answer = kind.__new__(kind)
            put(answer, "raw", value)
            for name, default in ours:
                put(answer, name, default)
            for name, hook in needed:
                try:
                    put(answer, name, hook(value.get(name), None))
                except ValueError as error:
                    raise ValueError(f"{error} @ $.{name}") from None
            return answer

        return read

    @converter.register_structure_hook_factory(_is_optional_object)
    def _optional_object(kind: Any) -> Callable[[Any, Any], Any]:
        inner = get_args(kind)[0]
        read = _or_none(inner, converter.get_structure_hook(inner))
        return lambda value, _: read(value) if isinstance(value, dict) else None

    @converter.register_structure_hook_factory(_is_tuple)
    def _list(kind: Any) -> Callable[[Any, Any], Any]:
        inner = get_args(kind)[0]
        if inner is str:
            return _list_of_texts
        read_one = converter.get_structure_hook(inner)
        if not attrs.has(inner):
            return lambda value, _: (
                tuple([read_one(item, inner) for item in value]) if isinstance(value, list) else ()
            )
        read = _or_none(inner, read_one)

        def read_all(value: Any, _: Any) -> tuple[Any, ...]:
            if not isinstance(value, list):
                return ()
            items = [read(item) for item in value if isinstance(item, dict)]
            return tuple([item for item in items if item is not None])

        return read_all

    @converter.register_structure_hook_factory(_is_mapping)
    def _mapping(kind: Any) -> Callable[[Any, Any], Any]:
        inner = get_args(kind)[1]
        if not attrs.has(inner):  # in a caller's own model
            return lambda value, _: dict(value) if isinstance(value, dict) else {}
        return _mapping_of(_or_none(inner, converter.get_structure_hook(inner)))

    return converter


def _hook_of_field(converter: Converter, field: attrs.Attribute[Any]) -> Callable[[Any, Any], Any]:
    """Returns what reads a field: a value without meaning reads as the field's default.

    A caller's own model may have an `int`, a `list[str]` or a `str` with a default, whose hooks
    raise.
    """
    kind, default = field.type, field.default
    hook: Callable[[Any, Any], Any] = converter.get_structure_hook(kind)
    is_ours = hook.__module__ == __name__
    if hook in _NEVER_RAISE or (is_ours and default is attrs.NOTHING):
        return hook

    def read(value: object, _: object) -> object:
        try:
            return hook(value, kind)
        except Exception as error:  # noqa: BLE001 - any type may have any hook
            if default is attrs.NOTHING:
                raise ValueError(f"the value cannot be read ({type(error).__name__})") from None
            factory = getattr(default, "factory", None)
            return default if factory is None else factory()

    return read


def _or_none(
    kind: type[Any], read: Callable[[Any, Any], Any]
) -> Callable[[Mapping[str, object]], Any]:
    def read_or_none(value: Mapping[str, object]) -> Any:
        try:
            return read(value, kind)
        except ValueError as error:
            # A row without an id must not make the whole list unreadable.
            logger.warning(
                "skipping a %s of an answer: %s",
                kind.__name__,
                error,
                extra=log_fields(error, model=kind.__name__),
            )
            return None

    return read_or_none


def _mapping_of(
    read: Callable[[Mapping[str, object]], Any],
) -> Callable[[Any, Any], dict[str, Any]]:
    def read_all(value: Any, _: Any) -> dict[str, Any]:
        rows = value.items() if isinstance(value, dict) else ()
        items = {key: read(row) for key, row in rows if isinstance(row, dict)}
        return {key: item for key, item in items.items() if item is not None}

    return read_all


def _is_lazy_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, LazyModel)


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is Mapping


def _is_optional_object(kind: Any) -> bool:
    parts: tuple[Any, ...] = get_args(kind)
    return parts[1:] == (type(None),) and isinstance(parts[0], type) and attrs.has(parts[0])


def prepare() -> None:
    """Makes the converters of answers and requests, for which the first call would wait."""
    _lenient()
    _writing()


def read_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object of a body.

    Raises:
        ValueError: the body is something else.
    """
    try:
        value = loads(body)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is needed, not a {type(value).__name__}")  # noqa: TRY004 - as documented
    return value


def read_answer(kind: type[Model], body: bytes) -> Model:
    """Reads the body of an answer; an answer of `type(None)` has none that counts.

    Raises:
        ValueError: the body is not a JSON object, or lacks a required field.
    """
    if kind is type(None):
        nothing: Model = cast("Any", None)  # the type of None is Model
        return nothing
    return _lenient().structure(read_object(body), kind)


_readable_models: Final[set[object]] = {type(None)}  # those that were checked


def check_answer_model(kind: Any) -> None:
    """Checks that answers can be read as a model.

    Raises:
        InvalidRequest: `kind` or one of its fields is of a type that the reader does not know.
    """
    if kind in _readable_models:
        return
    from cattrs.errors import StructureHandlerNotFoundError

    try:
        _lenient().structure({}, kind)
    except (StructureHandlerNotFoundError, NameError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InvalidRequest(f"no answer can be read as a {kind!r} ({reason})") from None
    except Exception:  # noqa: BLE001, S110 - a required field is missing
        pass
    _readable_models.add(kind)


def _explain(error: BaseValidationError) -> str:
    from cattrs import transform_error
    from cattrs.v import format_exception

    def text(problem: BaseException, kind: type | None) -> str:
        is_ours = isinstance(problem, InvalidRequest | TypeError) or type(problem) is ValueError
        if get_origin(kind) is Literal:
            value = str(problem).partition(" not in literal ")[0]
            return f"one of {', '.join(map(str, get_args(kind)))}, not {value!r}"
        return str(problem) if is_ours else format_exception(problem, kind)

    return "; ".join(transform_error(error, format_exception=text))


# ── requests and answers to JSON ──────────────────────────────────────────────────────────────────


@functools.cache
def _writing() -> Converter:
    from cattrs import Converter
    from cattrs.gen import make_dict_unstructure_fn, override

    converter = Converter()
    converter.register_unstructure_hook(datetime, format_time)
    converter.register_unstructure_hook(Status, lambda status: status.api_text)
    converter.register_unstructure_hook(
        IpAddress,
        lambda user: {
            "user_type": "ip_address",
            "user_data": {"ip_address": user.ip_address},
        },
    )
    converter.register_unstructure_hook(
        GeoCoordinates,
        lambda user: {
            "user_type": "geo_coordinates",
            "user_data": {"latitude": user.latitude, "longitude": user.longitude},
        },
    )
    converter.register_unstructure_hook(Filter, _filter)
    leave_out = override(omit_if_default=True)
    v2_time = override(unstruct_hook=lambda value: value and _iso(value))

    @converter.register_unstructure_hook_factory(attrs.has)
    def _object(kind: type[Any]) -> Callable[[Any], dict[str, Any]]:
        attrs.resolve_types(kind)
        overrides: dict[str, Any] = {}
        if kind is Location:
            overrides = dict.fromkeys(("type", "tags"), leave_out)
        omitted: tuple[object, ...] = (None, ()) if issubclass(kind, RequestModel) else ()
        if getattr(kind, "omits_none", False):
            omitted = (None,)
        for field in attrs.fields(kind):
            if field.default in omitted:
                overrides[field.name] = leave_out
        if hasattr(attrs.fields(kind), "raw"):
            overrides["raw"] = override(omit=True)
        if not issubclass(kind, AnyModel):
            return make_dict_unstructure_fn(kind, converter, **overrides)
        overrides |= dict.fromkeys(kind.v2_times, v2_time)
        write = make_dict_unstructure_fn(kind, converter, **overrides)
        if kind.absent_fields is AnyModel.absent_fields:
            return write
        return lambda model: {
            name: value for name, value in write(model).items() if name not in model.absent_fields()
        }

    return converter


def _filter(condition: Filter) -> dict[str, object]:
    value = condition.value
    if isinstance(value, datetime):
        value = _iso(value)
    elif condition.field == "status":  # lower case without prefix, as Edgegap's documents show
        value = Status(str(value)).lower()
    return {"field": condition.field, "operator": condition.operator, "value": value}


def to_json(value: object) -> Any:
    """Returns a model as the JSON value that the API sends or accepts."""
    return _writing().unstructure(value)


# ── requests: strict, for the emulator ────────────────────────────────────────────────────────────


@functools.cache
def _strict() -> Converter:
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn, override

    converter = Converter(forbid_extra_keys=True)
    spelled: dict[type, str] = {int: "an int", dict: "an object"}

    def exactly(*kinds: type) -> Callable[[Any, Any], Any]:
        def read(value: Any, _: Any) -> Any:
            if type(value) not in kinds:
                kind = spelled.get(kinds[0]) or f"a {kinds[0].__name__}"
                raise TypeError(f"{kind} is needed, not {value!r:.50}")
            return value

        return read

    def parts(what: str, value: Any, *names: str) -> tuple[Any, ...]:
        if not isinstance(value, dict) or set(value) != set(names):
            raise TypeError(f"{what} has {', '.join(names[:-1])} and {names[-1]}")
        return tuple(value[name] for name in names)

    for kinds in ((str,), (int,), (bool,), (float, int)):
        converter.register_structure_hook(kinds[0], exactly(*kinds))

    is_list, is_object = exactly(list), exactly(dict)

    @converter.register_structure_hook_factory(attrs.has)
    def _object(kind: type[Any]) -> Callable[[Any, Any], Any]:
        attrs.resolve_types(kind)
        marked = [field for field in attrs.fields(kind) if STRICT in field.metadata]
        special: dict[str, Any] = {field.name: ways[field.metadata[STRICT]] for field in marked}
        read = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **special)
        return lambda value, _: read(is_object(value, None), kind)

    @converter.register_structure_hook_factory(_is_tuple)
    def _list(kind: Any) -> Callable[[Any, Any], Any]:
        inner = get_args(kind)[0]
        read = converter.get_structure_hook(inner)
        return lambda value, _: tuple(read(item, inner) for item in is_list(value, None))

    @converter.register_structure_hook
    def _user(value: Any, _: Any) -> User:
        kinds: dict[str, type[User]] = {
            "ip_address": IpAddress,
            "geo_coordinates": GeoCoordinates,
        }
        user_type, user_data = parts("a user", value, "user_type", "user_data")
        kind = kinds.get(str(user_type))
        if kind is None:
            raise TypeError(f"user_type must be one of {', '.join(kinds)}, not {user_type!r:.50}")
        return converter.structure(user_data, kind)

    # `Filter` checks the value, because its type depends on the field and the operator.
    @converter.register_structure_hook
    def _filter(value: Any, _: Any) -> Filter:
        field, operator, compared = parts("a filter", value, "field", "operator", "value")
        if field == "created_at":
            compared = read_time(compared) or compared
        return Filter(field, operator, compared)

    # The next three classes have defaults in Python; the API requires every field.
    whole: dict[type[Any], str] = {
        OrderBy: "an order",
        StopFilter: "a stop filter",
        EnvironmentVariable: "an environment variable",
    }

    @converter.register_structure_hook_factory(lambda kind: kind in whole)
    def _whole(kind: type[Any]) -> Callable[[Any, Any], Any]:
        names = [field.name for field in attrs.fields(kind)]
        return lambda value, _: kind(*parts(whole[kind], value, *names))

    def variables(value: Any, _: Any) -> tuple[EnvironmentVariable, ...]:
        # Those of a version may leave out `is_hidden`.
        items = [{"is_hidden": False, **is_object(item, None)} for item in is_list(value, None)]
        return tuple(converter.structure(item, EnvironmentVariable) for item in items)

    def objects(value: Any, _: Any) -> tuple[dict[str, Any], ...]:
        return tuple(is_object(item, None) for item in is_list(value, None))

    ways = {
        "variables": override(struct_hook=variables),
        "object": override(struct_hook=is_object),
        "objects": override(struct_hook=objects),
    }

    return converter


def read_json(body: bytes, what: str = "the body") -> Any:
    """Returns the value of a request's JSON text.

    Raises:
        InvalidRequest: the body is not JSON, or has half surrogates, which no answer could repeat.
    """
    try:
        value = loads(body)
        dumps(value)
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} has half surrogates") from None
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{what} is not JSON") from None
    return value


def read_request(kind: type[Model], body: bytes, what: str = "the body") -> Model:
    """Reads the body of a request that matches the reference exactly.

    Args:
        kind: the model.
        body: the JSON text.
        what: name of the text in errors.

    Raises:
        InvalidRequest: the body is not JSON, lacks a field, or has an unknown or invalid field.
    """
    value = read_json(body, what)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what} is not a JSON object")
    from cattrs.errors import BaseValidationError

    try:
        return _strict().structure(value, kind)
    except BaseValidationError as error:
        raise InvalidRequest(_explain(error)) from None


def _as_filters(values: Iterable[Filter]) -> tuple[Filter, ...]:
    return items_of("filters", values, Filter)


def _as_orders(values: Iterable[OrderBy]) -> tuple[OrderBy, ...]:
    return items_of("order_by", values, OrderBy)


@attrs.frozen(eq=False, repr=False)
class ListQuery(RequestModel):
    """The filters and the order of a list."""

    filters: tuple[Filter, ...] = attrs.field(default=(), converter=_as_filters)
    """The conditions, which each row meets together; at most one for each field."""
    order_by: tuple[OrderBy, ...] = attrs.field(default=(), converter=_as_orders)
    """The order; undocumented if empty."""

    def __attrs_post_init__(self) -> None:
        fields = [condition.field for condition in self.filters]
        for field in fields:
            if fields.count(field) > 1:
                raise InvalidRequest(f"two filters on {field}: the API accepts one for each field")


def list_query(filters: Iterable[Filter], order_by: Iterable[OrderBy]) -> str | None:
    """Returns the `query` parameter of a list; None without filters and order.

    Raises:
        InvalidRequest: two filters are on one field, or an item is of another type.
    """
    query = to_json(ListQuery(filters, order_by))
    return json.dumps(query, separators=(",", ":")) if query else None


def read_list_query(text: str | None) -> ListQuery:
    """Reads the `query` parameter of a list.

    Raises:
        InvalidRequest: the query does not follow the documented grammar.
    """
    if text is None:
        return ListQuery()
    return read_request(ListQuery, text.encode(errors="surrogatepass"), "query")
