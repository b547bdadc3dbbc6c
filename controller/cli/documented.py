"""Documents for programs: JSON and YAML."""

import json


def as_text(document: object, output: str) -> str:
    """The document as `output` says, json or yaml."""
    if output == "json":
        return json.dumps(document, indent=2)
    import yaml  # noqa: PLC0415 - 15 ms that the other outputs do not need

    return str(yaml.dump(document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)).rstrip()
