"""An EDGE_BUNDLE: what an engine needs to find us and to join, as base64 of lines `export KEY=value`."""

import base64


def encode(*, edge_name: str, join_token: str, opscenter_host: str, pipeline_url: str, workspace_id: int) -> str:
    """The bundle's text; the order of its lines is that of `contract/bundle.txt`.

    The values must not need quoting: readers that `eval` a bundle exist, although ours never does.
    """
    lines = {
        "BUNDLE_VERSION": "1",
        "EDGE_NAME": edge_name,
        "JOIN_TOKEN": join_token,
        "OPSCENTER_HOST": opscenter_host,
        "PIPELINE_URL": pipeline_url,
        "WORKSPACE_ID": str(workspace_id),
    }
    text = "\n".join(f"export {key}={value}" for key, value in lines.items())
    return base64.b64encode(text.encode()).decode()
