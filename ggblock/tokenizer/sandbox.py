"""The sandbox that chat templates run in: Jinja for strangers.

On top of Jinja's immutable sandbox, which keeps templates away from Python's insides:

- a template sees plain data and calls only methods on a short list;
- every turn of a loop, call, filter and test is a step of its budget (see `budget`), so an endless template ends;
- whatever could make a huge value in one go (``*``, ``~``, padding, formats, joins) is refused before it is made;
- it has no loader, no randomness, and of the outside world it sees the clock.

It offers what Hugging Face's ``apply_chat_template`` offers: ``raise_exception``, ``strftime_now``, ``tojson`` without
ASCII escapes, ``{% generation %}``, ``{% break %}`` and ``{% continue %}``, and the same white space rules.
"""
from __future__ import annotations

import datetime
import functools
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from .. import errors
from .budget import Budget, LimitReached, values_of

MAX_SOURCE_CHARACTERS = 131_072
_MAX_RANGE = 100_000

_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, frozenset(
        "capitalize casefold center count endswith expandtabs find format format_map index isalnum isalpha isascii"
        " isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip"
        " partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines"
        " startswith strip swapcase title upper zfill".split()
    )),
    (dict, frozenset(["copy", "get", "items", "keys", "values"])),
    (list, frozenset(["copy", "count", "index"])),
    (tuple, frozenset(["count", "index"])),
    (int, frozenset(["bit_length"])),
    (float, frozenset(["is_integer"])),
    (range, frozenset(["start", "stop", "step"])),
)  # fmt: skip
# Jinja's filters without those that are random, that make pages, or whose cost is hard to bound.
_FILTERS = (
    "abs attr capitalize center count d default dictsort e escape first float forceescape format groupby indent int"
    " items join last length list lower map max min reject rejectattr replace reverse round safe select selectattr sort"
    " string striptags sum title trim truncate unique upper wordcount"
).split()
_GUARD = "guard"


class _Generation(Extension):
    """``{% generation %}...{% endgeneration %}`` marks what the assistant wrote; here it only shows it."""

    tags = {"generation"}  # noqa: RUF012  Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Instrument(NodeTransformer):
    """Rewrites a parsed template so that it counts its steps and measures what it makes."""

    def _guarded(self, node: nodes.Node, what: str, args: list[nodes.Expr]) -> nodes.Call:
        guard = nodes.Getattr(nodes.EnvironmentAttribute(_GUARD), what, "load")
        return nodes.Call(guard, args, [], None, None, lineno=node.lineno)

    def _counted(self, node: Any) -> Any:
        self.generic_visit(node)
        n_characters = sum(len(data.data) for child in node.body for data in _own_text(child))
        call = self._guarded(node, "turn", [nodes.Const(n_characters)])
        node.body.insert(0, nodes.ExprStmt(call, lineno=node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_Block = _counted

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._guarded(node, "concatenate", node.nodes)

    def _made(self, node: Any) -> Any:
        self.generic_visit(node)
        if getattr(node, "ctx", "load") != "load":
            return node  # the names on the left of an assignment
        return self._guarded(node, "make", [node])

    visit_List = visit_Tuple = visit_Dict = _made


def _own_text(node: nodes.Node) -> list[nodes.TemplateData]:
    """The literal text in a statement that is shown at most once a turn: not that of loops and macros in it."""
    if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)):
        return []
    if isinstance(node, nodes.TemplateData):
        return [node]
    return [data for child in node.iter_child_nodes() for data in _own_text(child)]


class _Guard(threading.local):
    """What the rewritten template calls. Each thread that renders has its own budget in it."""

    budget: Budget

    def turn(self, n_characters: int) -> None:
        self.budget.step()
        self.budget.printing(n_characters)

    def make(self, value: object) -> object:
        return self.budget.checked(value)

    def concatenate(self, *parts: object) -> str:
        self.budget.joining("", list(parts))
        return "".join(str(part) for part in parts)

    def show(self, value: object) -> str:
        """The text of a printed expression."""
        if isinstance(value, Namespace):
            raise SecurityError("a namespace cannot be printed")
        self.budget.measure(value)
        text = str(value)
        self.budget.printing(len(text))
        return text


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        guard = _Guard()
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # constants would be computed while compiling, outside of any budget
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=guard.show,
        )
        self.guard = guard
        filters: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in _FILTERS}
        filters["tojson"] = self._tojson
        checks: dict[str, Callable[..., None]] = {
            "center": lambda value, width=80: guard.budget.padding(width),
            "indent": self._check_indent,
            "replace": lambda value, old, new, count=None: guard.budget.replacing(str(value), str(old), str(new)),
            "format": lambda value, *args, **kwargs: guard.budget.formatting(str(value), values_of(args, kwargs)),
            "round": lambda value, precision=0, method="common": self._check_precision(precision),
        }
        self.filters = {name: self._stepping(call, checks.get(name)) for name, call in filters.items()}
        # These read their input once and would read a generator empty, so they are checked in their own words.
        self.filters["join"] = self._stepping(self._join)
        self.filters["sum"] = self._stepping(self._sum)
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: self._stepping(call) for name, call in tests.items()}
        self.globals = {
            "range": self._range,
            "dict": self._dict,
            "namespace": Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    # -- reaching into objects ---------------------------------------------------------------------------------

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, allowed in _METHODS:
            if isinstance(obj, kind):
                return attr in allowed
        return not isinstance(obj, type) and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        if isinstance(obj, dict) and attribute in obj:
            value: Undefined = obj[attribute]
            return value
        raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} object is unsafe")

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        guard = __self.guard
        if getattr(__obj, "__self__", None) is guard:
            return __obj(*args)
        budget = guard.budget
        budget.step()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            args = __self._check_method(budget, owner, getattr(__obj, "__name__", ""), args, kwargs)
        return budget.checked(super().call(__context, __obj, *args, **kwargs))

    @staticmethod
    def _check_method(
        budget: Budget, text: str, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """Refuse a string method that would make too large a text; returns the arguments to call it with."""
        if name in ("center", "ljust", "rjust", "zfill") and args:
            budget.padding(args[0])
        elif name == "expandtabs":
            tab = args[0] if args else kwargs.get("tabsize", 8)
            budget.making(len(text) + text.count("\t") * (tab if isinstance(tab, int) else 0))
        elif name == "replace" and len(args) > 1:
            budget.replacing(text, args[0], args[1])
        elif name == "join" and args:
            values = list(args[0])
            budget.joining(text, values)
            args = (values, *args[1:])
        return args

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        fill, pattern = wrapped, value.__self__

        def checked(*args: Any, **kwargs: Any) -> str:
            self.guard.budget.formatting(pattern, values_of(args, kwargs))
            return fill(*args, **kwargs)

        return checked

    # -- operators, filters, globals ---------------------------------------------------------------------------

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = self.guard.budget
        budget.step()
        if operator == "+":
            budget.adding(left, right)
        elif operator == "*":
            budget.multiplying(left, right)
        elif operator == "**":
            budget.raising(left, right)
        elif isinstance(left, str):
            budget.formatting(left, values_of([right], {}))
        return budget.checked(super().call_binop(context, operator, left, right))

    def _stepping(self, call: Callable[..., Any], check: Callable[..., None] | None = None) -> Callable[..., Any]:
        # Jinja passes its context, evaluation context or environment first to a function that is marked so.
        n_passed = 1 if getattr(call, "jinja_pass_arg", None) is not None else 0

        @functools.wraps(call)  # keeps that mark
        def stepping(*args: Any, **kwargs: Any) -> Any:
            self.guard.budget.step()
            if check is not None:
                check(*args[n_passed:], **kwargs)
            return self.guard.budget.checked(call(*args, **kwargs))

        return stepping

    def _check_indent(self, value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> None:
        n_characters = len(width) if isinstance(width, str) else int(width)
        text = str(value)
        self.guard.budget.making(len(text) + (text.count("\n") + 1) * n_characters)

    @staticmethod
    def _check_precision(precision: Any) -> None:
        if not isinstance(precision, int) or abs(precision) > 100:
            raise LimitReached("a precision beyond 100 digits")

    def _values(self, values: Any, attribute: Any) -> list[Any]:
        if attribute is None:
            return list(values)
        return [make_attrgetter(self, attribute)(value) for value in values]

    def _join(self, value: Any, d: Any = "", attribute: Any = None) -> str:
        values = self._values(value, attribute)
        separator = str(d)
        self.guard.budget.joining(separator, values)
        return separator.join(str(item) for item in values)

    def _sum(self, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
        values = self._values(iterable, attribute)
        if not all(isinstance(item, (int, float)) for item in values):
            # Each partial sum of lists is a new list.
            self.guard.budget.making(len(values) * sum(self.guard.budget.measure(item)[0] for item in values))
        return sum(values, start)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        size, depth = self.guard.budget.measure(value)
        width = len(indent) if isinstance(indent, str) else indent or 0
        self.guard.budget.making(size * (1 + depth * max(0, width) // 8))
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def _dict(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def _range(self, *args: int) -> range:
        numbers = range(*args)
        if len(numbers) > _MAX_RANGE:
            raise LimitReached(f"a range of more than {_MAX_RANGE} numbers")
        return numbers


class _Refusal(Exception):
    """The template itself says no."""


def _raise_exception(message: object) -> NoReturn:
    raise _Refusal(str(message))


def _strftime_now(form: str) -> str:
    if len(form) > 256:
        raise LimitReached("a date format of more than 256 characters")
    return datetime.datetime.now().strftime(form)


class Sandbox:
    """One template, compiled.

    Raises `errors.TemplateError` when ``source`` is no valid Jinja or longer than `MAX_SOURCE_CHARACTERS`.
    """

    def __init__(self, source: str, time_limit_s: float) -> None:
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise errors.TemplateError(
                "the chat template is too long",
                expected=f"at most {MAX_SOURCE_CHARACTERS} characters", actual=len(source),
            )  # fmt: skip
        self._time_limit_s = time_limit_s
        self._environment = _Environment()
        try:
            tree = _Instrument().visit(self._environment.parse(source))
            code = self._environment.compile(tree)
            self._template = jinja2.Template.from_code(self._environment, code, self._environment.make_globals(None))
        except jinja2.TemplateSyntaxError as problem:
            raise errors.TemplateError(f"the chat template is not valid: line {problem.lineno}: {problem}") from None
        except SyntaxError as problem:  # what only Python's compiler finds: {% break %} outside of a loop
            raise errors.TemplateError(f"the chat template is not valid: {problem.msg}") from None
        except (RecursionError, MemoryError):
            raise errors.TemplateError("the chat template is nested too deeply") from None

    def render(self, names: Mapping[str, object]) -> str:
        """The template's text with these names defined.

        Raises `errors.TemplateError` for whatever goes wrong in it.
        """
        guard = self._environment.guard
        budget = Budget(self._time_limit_s)
        guard.budget = budget
        try:
            budget.allow(names.values())
            parts = []
            n_characters = 0
            for part in self._template.generate(names):
                n_characters += len(part)
                budget.making(n_characters)
                parts.append(part)
            return "".join(parts)
        except LimitReached as problem:
            raise errors.TemplateError(f"the chat template was stopped: {problem}") from None
        except SecurityError as problem:
            raise errors.TemplateError(f"the chat template tried to leave its sandbox: {problem}") from None
        except (RecursionError, MemoryError):
            raise errors.TemplateError("the chat template was stopped: calls or data nested too deeply") from None
        except _Refusal as problem:
            raise errors.TemplateError(f"the chat template refuses: {problem}") from None
        except jinja2.TemplateError as problem:
            raise errors.TemplateError(f"the chat template failed: {problem}") from None
        except Exception as problem:  # a template can make any built-in operation fail
            raise errors.TemplateError(f"the chat template failed: {type(problem).__name__}: {problem}") from None
        finally:
            guard.__dict__.pop("budget", None)
