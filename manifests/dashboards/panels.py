"""The kinds of panels and the parts of a dashboard: Grafana's own types, with the settings that all of ours share.

A panel's title is its question, or the name of its figure. Its description says what a value means, and what to do.
"""

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

TAG = "podslots"
DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24
"""Of Grafana's grid."""

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "#808080"

SomePanel = TypeVar("SomePanel", bargauge.Panel, stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and what its series are called: a template, as `{{pool}}`; in a table the name of its column."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard. `rows` are titles with their panels, each row of a grid 24 wide."""

    uid: str
    title: str
    description: str
    variables: Sequence[Builder[model.VariableModel]]
    rows: Sequence[tuple[str, Sequence[Builder[model.Panel]]]]

    def made(self) -> model.Dashboard:
        """It as Grafana has it."""
        board = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG])
            .readonly()
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .time("now-6h", "now")
            .refresh("30s")
            .variables(list(self.variables))
            .link(_to_the_others())
        )
        for title, panels in self.rows:
            board = board.with_row(dashboard.Row(title))
            for panel in panels:
                board = board.with_panel(panel)
        made = board.build()
        for number, entry in enumerate(made.panels or (), start=1):
            entry.id_val = number
        return made


# --- panels -----------------------------------------------------------------------------------------------------------


def figure(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "short",
    steps: Mapping[float, str] | None = None,
    words: Mapping[str, tuple[str, str]] | None = None,
    link: str = "",
    width: int = 3,
) -> Builder[model.Panel]:
    """The present value. `steps` give colours from a value on. `words` replace values, each with its colour."""
    panel = stat.Panel().graph_mode(common_model.BigValueGraphMode.NONE).height(4).no_value("none")
    panel = panel.color_mode(common_model.BigValueColorMode.VALUE)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if words:
        panel = panel.mappings([_words(words)])
    if link:
        panel = panel.data_links([_link("Open", link)])
    return _common(panel, title, description, [query], unit=unit, width=width, steps=steps, instant=True)


def course(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    stacked: bool = False,
    bars: bool = False,
    steps: Mapping[float, str] | None = None,
    width: int = 12,
) -> Builder[model.Panel]:
    """Values over time. `bars` are for what has happened within each interval; `steps` are lines across."""
    panel = timeseries.Panel().height(8).min(0)
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(common_model.LegendDisplayMode.LIST)
        .placement(common_model.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs([])
    )
    panel = panel.tooltip(
        common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING)
    )
    if bars:
        panel = panel.draw_style(common_model.GraphDrawStyle.BARS).decimals(0)
    if stacked or bars:
        panel = panel.fill_opacity(40).stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    if steps:
        lines = common.GraphThresholdsStyleConfig().mode(common_model.GraphTresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(lines)
    return _common(panel, title, description, queries, unit=unit, width=width, steps=steps)


def states(
    title: str,
    description: str,
    query: Query,
    *,
    words: Mapping[str, tuple[str, str]],
    width: int = WIDTH,
    height: int = 8,
) -> Builder[model.Panel]:
    """Which state things were in, over time: a line for each. `words` replace its numbers."""
    panel = (
        statetimeline.Panel()
        .height(height)
        .show_value(common_model.VisibilityMode.NEVER)
        .merge_values(True)
        .fill_opacity(80)
        .mappings([_words(words)])
        .legend(
            common.VizLegendOptions()
            .display_mode(common_model.LegendDisplayMode.LIST)
            .placement(common_model.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
    )
    return _common(panel, title, description, [query], unit="short", width=width)


def shares(title: str, description: str, query: Query, *, width: int = 12, height: int = 8) -> Builder[model.Panel]:
    """Shares of a whole, one bar each."""
    panel = (
        bargauge.Panel()
        .height(height)
        .min(0)
        .max(1)
        .orientation(common_model.VizOrientation.HORIZONTAL)
        .display_mode(common_model.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    return _common(panel, title, description, [query], unit="percentunit", width=width, instant=True)


def rows(
    title: str,
    description: str,
    *columns: Query,
    units: Mapping[str, str] | None = None,
    steps: Mapping[str, Mapping[float, str]] | None = None,
    links: Mapping[str, str] | None = None,
    hidden: Iterable[str] = (),
    width: int = WIDTH,
) -> Builder[model.Panel]:
    """A table: a row for each set of labels, a column for each query. `units`, `steps` and `links` go by column."""
    values = [f"Value #{letter}" for letter in string.ascii_uppercase[: len(columns)]]
    if len(columns) == 1:
        values = ["Value"]
    renamed = {value: column.legend for value, column in zip(values, columns, strict=True)}
    panel = table.Panel().show_header(True).height(9).no_value("none")
    panel = panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    panel = panel.with_transformation(
        model.DataTransformerConfig(
            id_val="organize",
            options={"excludeByName": dict.fromkeys(("Time", *hidden), True), "renameByName": renamed},
        )
    )
    for column, unit in (units or {}).items():
        panel = panel.override_by_name(column, [model.DynamicConfigValue("unit", unit)])
    for column, its in (steps or {}).items():
        colour = model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"})
        panel = panel.override_by_name(
            column, [model.DynamicConfigValue("thresholds", _thresholds(its).build()), colour]
        )
    for column, url in (links or {}).items():
        link = {"title": "Open", "url": url}
        panel = panel.override_by_name(column, [model.DynamicConfigValue("links", [link])])
    return _common(panel, title, description, columns, width=width, instant=True, as_table=True)


def matrix(
    title: str,
    description: str,
    query: Query,
    *,
    row: str,
    column: str,
    words: Mapping[str, tuple[str, str]],
    width: int = WIDTH,
) -> Builder[model.Panel]:
    """A table of one query's values: `row` and `column` are labels."""
    grouped = {"rowField": row, "columnField": column, "valueField": "Value"}
    panel = table.Panel().show_header(True).height(9).no_value("none").mappings([_words(words)])
    panel = panel.with_transformation(model.DataTransformerConfig(id_val="groupingToMatrix", options=grouped))
    return _common(panel, title, description, [query], width=width, instant=True, as_table=True)


def _common(
    panel: SomePanel,
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    width: int,
    unit: str = "",
    steps: Mapping[float, str] | None = None,
    instant: bool = False,
    as_table: bool = False,
) -> SomePanel:
    panel = panel.title(title).description(description).datasource(DATASOURCE).span(width)
    panel = panel.thresholds(_thresholds(steps or {}))
    if unit:
        panel = panel.unit(unit)
    for letter, query in zip(string.ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().ref_id(letter).expr(query.expr).legend_format(query.legend)
        target = target.datasource(DATASOURCE)
        target = target.instant() if instant else target.range()
        panel = panel.with_target(target.format(PromQueryFormat.TABLE) if as_table else target)
    return panel


def _thresholds(steps: Mapping[float, str]) -> dashboard.ThresholdsConfig:
    """Green, or the colour of the greatest step that is not above the value."""
    marks = [model.Threshold(color=GREEN), *(model.Threshold(value, color) for value, color in steps.items())]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(marks)


def _words(words: Mapping[str, tuple[str, str]]) -> model.ValueMap:
    return model.ValueMap(
        {
            value: model.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(words.items())
        }
    )


# --- variables and links ----------------------------------------------------------------------------------------------


def datasource() -> Builder[model.VariableModel]:
    """Which Prometheus is asked."""
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def choice(
    name: str, series: str, *, several: bool = True, everything: bool = True, label: str = ""
) -> Builder[model.VariableModel]:
    """The values of a label in some series. `everything` offers all of them as one, and what has no such label."""
    variable = (
        dashboard.QueryVariable(name)
        .label(label or name.capitalize())
        .datasource(DATASOURCE)
        .query({"query": f"label_values({series}, {name})", "refId": "variable"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(several)
    )
    return variable.include_all(True).all_value(".*") if everything else variable


def address(uid: str, *kept: str, **chosen: str) -> str:
    """Where a dashboard is, with its time range, the variables that are `kept`, and those `chosen` by a template."""
    same = "".join(f"&${{{name}:queryparam}}" for name in kept)
    return f"/d/{uid}?${{datasource:queryparam}}&${{__url_time_range}}{same}" + "".join(
        f"&var-{name}={value}" for name, value in chosen.items()
    )


def _link(title: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url)


def _to_the_others() -> dashboard.DashboardLink:
    """At the top of each: the others, with the variables as they are."""
    link = dashboard.DashboardLink("podslots").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.include_vars(True).keep_time(True).as_dropdown(False)
