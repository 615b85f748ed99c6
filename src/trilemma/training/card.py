"""The model card of a run: README.md, filled from what the run folder holds."""

from typing import Any

from jinja2 import Template

CARD = Template(
    """\
# {{ config.model }} on {{ config.data }}

{{ recipe.summary|capitalize }}. Source: {{ recipe.source }}.

| | |
| --- | --- |
| images | {{ config.model_config.shape|join(" x ") }} (channels x height x width) |
| parameters | {{ "{:,}".format(summary.parameters) }} |
| trained on | {{ "{:,}".format(summary.images) }} images in {{ "%.1f"|format(summary.seconds) }} s of training steps
({{ "{:,.0f}".format(summary.images_per_second) }} images/s) |
| device | {{ environment.device }}, {{ environment.precision }} |
{%- for name, value in figures.items() %}
| {{ name }} | {{ "%.4g"|format(value) }}{% if name in recipe.figures %} (to reach: {{ recipe.figures[name] }} on {{ recipe.data }}){% endif %} |
{%- endfor %}

![samples](samples/last.png)

![curves](curves.png)

Train it again:

    {{ config.command }}

Draw from it:

    trilemma sample {{ path }} n=64 seed=0

Data: {{ config.notes|join("; ") }}. Only the figures above were measured; `trilemma evaluate` measures the samples.
""",
    trim_blocks=False,
)


def model_card(path: str, config: dict[str, Any], recipe: Any, summary: dict[str, Any], environment: dict[str, Any]) -> str:
    """The card as Markdown; `figures` are the summary's `valid_*` entries."""
    figures = {name: value for name, value in summary.items() if name.startswith("valid_")}
    return CARD.render(
        path=path, config=config, recipe=recipe, summary=summary, environment=environment, figures=figures
    ).replace(" s of training steps\n(", " s of training steps (")
