"""Which data was accepted before: the span before this one, or the last data of a pipeline without spans."""

from __future__ import annotations

from typing import Any

from tfx.dsl.components.common.resolver import ResolverStrategy

from pipelines.components.data_gate import SPAN

__all__ = ["AcceptedBefore"]


class AcceptedBefore(ResolverStrategy):  # type: ignore[misc]
    """Resolves to the DataVerdict of the highest span below this one, the newest of it; to nothing where none is.

    Args:
        span: This span's number; 0 where the data has none, and then the newest verdict counts.
    """

    def __init__(self, span: int = 0) -> None:
        self._span = span

    def resolve_artifacts(self, store: Any, input_dict: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """As TFX's runners call it."""
        del store
        return {name: self._latest(artifacts) for name, artifacts in input_dict.items()}

    def _latest(self, artifacts: list[Any]) -> list[Any]:
        fitting = [
            (each.get_int_custom_property(SPAN), each.id, each)
            for each in artifacts
            if not self._span or each.get_int_custom_property(SPAN) < self._span
        ]
        if not fitting:
            return []
        # Without spans the newest counts, whatever span an earlier one may have been of.
        newest = max(fitting, key=lambda each: each[:2] if self._span else each[1:2])
        return [newest[2]]
