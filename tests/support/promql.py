"""Reads PromQL, as far as dashboards use it: which metrics an expression is about, and whether it is one at all.

After https://prometheus.io/docs/prometheus/latest/querying/basics/, without subqueries, offsets and `@`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<duration>\d+(?:ms|[smhdwy])(?!\w))
    | (?P<name>[a-zA-Z_:][\w:]*)
    | (?P<text>"(?:[^"\\]|\\.)*")
    | (?P<sign>=~|!~|!=|==|<=|>=|[-+*/%^<>=(){}\[\],])
    )""",
    re.X,
)
_AGGREGATIONS = {"sum", "min", "max", "avg", "count", "group", "stddev", "topk", "bottomk", "quantile"}
_WITH_PARAMETER = {"topk", "bottomk", "quantile"}
_OF_RANGES = {"rate", "irate", "increase", "delta", "changes", "max_over_time", "min_over_time", "avg_over_time"}
_ARGUMENTS = {"histogram_quantile": 2, "time": 0, "vector": 1, "clamp_max": 2, "clamp_min": 2, "abs": 1, "round": 1}
_BINARY = {"+", "-", "*", "/", "%", "^", "==", "!=", "<", ">", "<=", ">=", "and", "or", "unless"}


@dataclass
class Expression:
    """What an expression asks for: metric → the labels that it selects or groups by."""

    metrics: dict[str, set[str]] = field(default_factory=dict)


def parse(text: str) -> Expression:
    """Raises ValueError where the text is no PromQL."""
    reader = _Reader(text)
    reader.expression()
    if reader.kind != "end":
        raise ValueError(f"{reader.word!r} comes unexpected in {text!r}")
    return reader.found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text, self._tokens, place = text, [], 0
        while text[place:].strip():
            token = _TOKEN.match(text, place)
            if token is None:
                raise ValueError(f"{text[place:]!r} in {text!r} is no PromQL")
            self._tokens.append((str(token.lastgroup), token.group(str(token.lastgroup))))
            place = token.end()
        self._tokens.append(("end", ""))
        self._place = 0
        self.found = Expression()

    @property
    def kind(self) -> str:
        return self._tokens[self._place][0]

    @property
    def word(self) -> str:
        return self._tokens[self._place][1]

    def expression(self) -> None:
        self._operand()
        while self.word in _BINARY:
            self._next()
            if self.word == "bool":
                self._next()
            if self.word in ("on", "ignoring"):
                self._next()
                self._labels()
                if self.word in ("group_left", "group_right"):
                    self._next()
                    if self.word == "(":
                        self._labels()
            self._operand()

    def _operand(self) -> None:
        if self.word in ("-", "+"):
            self._next()
        if self.kind == "number":
            self._next()
        elif self.word == "(":
            self._next()
            self.expression()
            self._expect(")")
        elif self.kind == "name" and self.word in _AGGREGATIONS:
            self._aggregation()
        elif self.kind == "name" and self._tokens[self._place + 1][1] == "(":
            self._call()
        elif self.kind == "name":
            if self._selector():
                raise ValueError(f"{self._text!r}: a range must stand in a function such as rate")
        else:
            raise ValueError(f"{self.word!r} comes unexpected in {self._text!r}")

    def _aggregation(self) -> None:
        name = self._next()
        before = set(self.found.metrics)
        grouped = self._grouping()
        count = self._arguments()
        if count != (2 if name in _WITH_PARAMETER else 1):
            raise ValueError(f"{name} does not take {count} arguments: {self._text!r}")
        grouped |= self._grouping()
        for metric in set(self.found.metrics) - before:
            self.found.metrics[metric] |= grouped

    def _call(self) -> None:
        name = self._next()
        if name in _OF_RANGES:
            self._expect("(")
            if not self._selector():
                raise ValueError(f"{name} needs a range: {self._text!r}")
            self._expect(")")
            return
        if name not in _ARGUMENTS:
            raise ValueError(f"There is no function {name}: {self._text!r}")
        if (count := self._arguments()) != _ARGUMENTS[name]:
            raise ValueError(f"{name} does not take {count} arguments: {self._text!r}")

    def _arguments(self) -> int:
        self._expect("(")
        count = 0
        while self.word != ")":
            if count:
                self._expect(",")
            self.expression()
            count += 1
        self._expect(")")
        return count

    def _selector(self) -> bool:
        """A metric with its matchers; whether a range follows."""
        if self.kind != "name":
            raise ValueError(f"{self.word!r} is no metric: {self._text!r}")
        labels = self.found.metrics.setdefault(self._next(), set())
        if self.word == "{":
            self._next()
            while self.word != "}":
                labels.add(self._take("name"))
                if self.word not in ("=", "!=", "=~", "!~"):
                    raise ValueError(f"{self.word!r} compares no label: {self._text!r}")
                self._next()
                re.compile(self._take("text")[1:-1])
                if self.word != "}":
                    self._expect(",")
            self._expect("}")
        if self.word != "[":
            return False
        self._next()
        self._take("duration")
        self._expect("]")
        return True

    def _grouping(self) -> set[str]:
        if self.word not in ("by", "without"):
            return set()
        self._next()
        return self._labels()

    def _labels(self) -> set[str]:
        found = set()
        self._expect("(")
        while self.word != ")":
            if found:
                self._expect(",")
            found.add(self._take("name"))
        self._expect(")")
        return found

    def _next(self) -> str:
        word = self.word
        self._place += 1
        return word

    def _take(self, kind: str) -> str:
        if self.kind != kind:
            raise ValueError(f"{self.word!r} should be a {kind}: {self._text!r}")
        return self._next()

    def _expect(self, sign: str) -> None:
        if self.word != sign:
            raise ValueError(f"{self.word!r} should be {sign!r}: {self._text!r}")
        self._next()
