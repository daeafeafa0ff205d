"""Parameters: frozen pydantic dataclasses, and their errors as one line for people.

    @params
    class Battery:
        capacity_kwh: Annotated[float, Field(gt=0, description="usable energy, kWh")] = 100.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, Union, dataclass_transform, get_args, get_origin, overload

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from cosim.errors import ScenarioError, cut, shown, unknown
from cosim.limits import refuse_magnitudes

T = TypeVar("T")


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def params(cls: type[T]) -> type[T]: ...


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def params(*, kw_only: bool) -> Callable[[type[T]], type[T]]: ...


def params(cls: type[T] | None = None, *, kw_only: bool = False) -> Any:
    """Decorator: a frozen, validated dataclass that refuses unknown fields, NaN and infinity."""
    made = dataclass(frozen=True, kw_only=kw_only, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    return made if cls is None else made(cls)


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def validate(params_type: type[T], params: Mapping[str, Any], owner: str, bounded: bool = True) -> T:
    """`params` as a `params_type`; ScenarioError naming owner.field, its value and what is allowed: the limits
    of its Field, and in any case those of its unit (`cosim.limits`). bounded: whether those of the unit hold; seeds
    and states of random numbers are larger."""
    try:
        if bounded:
            refuse_magnitudes(params, owner)
        return TypeAdapter(params_type).validate_python(dict(params))
    except ValidationError as err:
        raise ScenarioError(explain(err, params_type, owner, params)) from None


def explain(err: ValidationError, params_type: type, owner: str, given: Any = None) -> str:
    """A validation error as one line for people (the first problem, and how many more).

    given: what was validated, in which a key that its table does not have is found at any depth; it explains a missing
    one, and pydantic does not name it where a value may be of several types.
    """
    problems = err.errors()
    problems.sort(key=lambda p: p["type"] not in _UNKNOWN)
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if strange := _strange_key(params_type, given, ()):
        *inside, key = strange.loc
        return unknown(f"field of {_path(owner, inside)}", str(key), strange.allowed) + more
    path = _path(owner, _written(first["loc"], given))
    if first["type"] in _UNKNOWN:
        parent = _type_at(params_type, first["loc"][:-1])
        of = _path(owner, first["loc"][:-1])
        return unknown(f"field of {of}", str(first["loc"][-1]), field_names(parent)) + more
    if first["type"] in ("missing", "missing_argument"):
        field = _field_at(params_type, first["loc"])
        about = f" ({field.description})" if field is not None and field.description else ""
        return f"{path} is required and not given{about}{more}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{path} = {shown(first['input'])}: {message[0].lower()}{cut(message[1:], 240, 120)}{more}"


def _written(loc: tuple[Any, ...], given: Any) -> Iterator[Any]:
    """A validation path without the types that pydantic names in it where a value may be of several."""
    if given is None:
        yield from loc
        return
    for k, part in enumerate(loc):
        inside = isinstance(given, Mapping) and part in given or (
            isinstance(given, list | tuple) and isinstance(part, int) and part < len(given))
        if inside:
            given = given[part]
        if inside or isinstance(part, int) or (  # a place in text that is read as a list; a field that is missing
                isinstance(given, Mapping) and k == len(loc) - 1):
            yield part


class _Strange(NamedTuple):
    """Where a key stands that its table does not have, and those that it may have."""

    loc: tuple[Any, ...]
    allowed: list[str]


def _strange_key(kind: Any, given: Any, loc: tuple[Any, ...]) -> _Strange | None:
    """The first key in data that a table of the type `kind` does not have, the outermost first; None without one.

    Of several tables that a value may be, the one that has most of its keys counts.
    """
    if isinstance(given, Mapping):
        tables = [t for t in _alternatives(kind) if fields_of(t)]
        open_ended = [t for t in _alternatives(kind) if _is_mapping(t)]
        if tables and not open_ended:
            fields = max((fields_of(t) for t in tables), key=lambda known: len(known.keys() & given.keys()))
            if strange := [key for key in given if key not in fields]:
                return _Strange((*loc, strange[0]), list(fields))
            inner = [(fields[key].annotation, value, key) for key, value in given.items()]
        else:
            inner = [(get_args(t)[-1], value, key) for t in open_ended[:1] for key, value in given.items()]
    elif isinstance(given, list | tuple):
        rows = [get_args(t) for t in _alternatives(kind) if get_origin(t) in (list, tuple, Sequence) and get_args(t)]
        inner = [(types[min(k, len(types) - 1)] if types[-1] is not Ellipsis else types[0], value, k)
                 for types in rows for k, value in enumerate(given)]
    else:
        return None
    return next((found for of, value, key in inner if (found := _strange_key(of, value, (*loc, key)))), None)


def _alternatives(kind: Any) -> list[Any]:
    """The types that a value of a type may have, of a union each."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _alternatives(get_args(kind)[0])
    return [t for of in get_args(kind) for t in _alternatives(of)] if origin in (Union, UnionType) else [kind]


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(kind)) == 2


def _path(owner: str, loc: Iterable[Any]) -> str:
    return cut(".".join(cut(str(part)) for part in (owner, *loc)), 160, 80)


def field_names(kind: Any) -> list[str]:
    """Field names of a pydantic model or dataclass; [] for anything else."""
    return list(fields_of(kind))


def fields_of(kind: Any) -> dict[str, FieldInfo]:
    """Fields of a pydantic model or dataclass, by name; {} for anything else."""
    return getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", None) or {}


def _field_at(params_type: Any, loc: tuple) -> FieldInfo | None:
    """The field's declaration at a validation path; None where there is none."""
    return fields_of(_type_at(params_type, loc[:-1])).get(loc[-1])


def default_at(params_type: Any, loc: tuple) -> Any:
    """The default of the field at a path of names, as plain data; '' where it is required or not known."""
    field = _field_at(params_type, loc)
    if field is None or field.is_required():
        return ""
    return to_jsonable_python(field.get_default(call_default_factory=True), fallback=str)


def _type_at(kind: Any, loc: tuple) -> Any:
    """The type at a validation path: walks fields, and into the values of dicts and lists."""
    for part in loc:
        fields = fields_of(kind)
        if part in fields:
            kind = fields[part].annotation
        else:
            kind = next((a for a in reversed(getattr(kind, "__args__", ())) if a is not type(None)), None)
        while getattr(kind, "__origin__", None) is None and getattr(kind, "__args__", None):
            kind = next((a for a in kind.__args__ if a is not type(None)), None)
    return kind
