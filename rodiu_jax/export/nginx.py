"""A router for nginx: each query type has a path, whose requests are split over pools by the plan's shares.

``split_clients`` hashes a text to a number and cuts the numbers by percentages. The text is ``$request_id``, sixteen
random bytes of each request: a client's address would send all of one client to one pool.
"""

from __future__ import annotations

from rodiu_jax.errors import one_line
from rodiu_jax.export.backends import backend_text, find_backends
from rodiu_jax.export.fleet import ELSEWHERE, UNMET, Fleet, Split
from rodiu_jax.export.settings import Address, Settings
from rodiu_jax.export.shares import percent_text

_KEY_FILE = "elsewhere-key.conf"
_KEY_PATTERN = "elsewhere-key.con[f]"  # a pattern, so that no file is none; no other name fits it

_CHECKED = """\
            proxy_ssl_server_name on;
            proxy_ssl_verify on;
            proxy_ssl_verify_depth 3;
            # Where Debian and Alpine keep the authorities that they trust.
            proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;
"""

_HEAD = """\
# Written by rodiu export: nginx -p FOLDER -c FOLDER/nginx.conf -e stderr -g 'daemon off;'
# A client of the query type LABEL has the base URL http://HOST:{listen}/LABEL/v1 and sends LABEL as the model.
worker_processes auto;
pid nginx.pid;
error_log stderr;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    client_body_temp_path body_temp;
    proxy_temp_path proxy_temp;
    fastcgi_temp_path fastcgi_temp;
    uwsgi_temp_path uwsgi_temp;
    scgi_temp_path scgi_temp;
    variables_hash_bucket_size 128;
    client_max_body_size 64m;
    keepalive_requests 100000;
    proxy_http_version 1.1;
    proxy_set_header Connection {connection};
    # Tokens go on as they come, and a long answer is no failure.
    proxy_buffering off;
    proxy_read_timeout 3600s;

"""


def write_nginx(fleet: Fleet, settings: Settings) -> dict[str, str]:
    """Write ``nginx.conf``, a whole configuration whose every path is relative to the folder that ``-p`` names."""
    other = settings.find_elsewhere()
    # Newer versions keep connections unless they are told: behind a service that would pin requests to a replica.
    connection = '""' if settings.backends else "close"
    parts = [_HEAD.format(listen=settings.used_listen, connection=connection)]
    for label, hosts in find_backends(fleet, settings).items():
        about = one_line(backend_text(fleet.find_pool(label)))
        parts.append(_write_upstream(label, hosts, about, named=label in settings.backends))
    parts += [_write_split(split) for split in fleet.splits]
    parts.append(f"\n    server {{\n        listen {settings.used_listen};\n")
    parts.append("        location = /healthz {\n            return 200;\n        }\n")
    parts.append("        location / {\n            return 404;\n        }\n")
    parts += [_write_location(split, other) for split in fleet.splits]
    if other is not None and any(split.buys_elsewhere for split in fleet.splits):
        parts.append(_write_elsewhere(other))
    parts.append("    }\n}\n")
    return {"nginx.conf": "".join(parts)}


def _write_upstream(label: str, hosts: tuple[str, ...], about: str, *, named: bool) -> str:
    """Write the addresses of a pool; behind a service of Kubernetes there are several replicas."""
    lines = [f"    # {about}", f"    upstream {label} {{"]
    if named:
        lines += [
            "        least_conn;",
            *(f"        server {host};" for host in hosts),
            "        keepalive 64;",
        ]
    else:
        lines.append(
            "        # The service picks a replica for each connection, so that none is kept for another request."
        )
        lines += [f"        server {host};" for host in hosts]
    return "\n".join([*lines, "    }", ""])


def _variable(split: Split) -> str:
    return f"$pool_of_{split.label.replace('-', '_')}"


def _write_split(split: Split) -> str:
    lines = [f"    # {one_line(split.query)}"]
    for label, share in split.dropped:
        lines.append(
            f"    # {label} would get {share:.2g} of it, which is less than nginx can tell: it gets nothing."
        )
    lines.append(f'    split_clients "$request_id" {_variable(split)} {{')
    for label, part in split.parts[:-1]:
        lines.append(f"        {percent_text(part)} {label};")
    label, part = split.parts[-1]
    lines.append(f"        * {label};  # {percent_text(part)}")
    return "\n".join([*lines, "    }", ""])


def _write_location(split: Split, other: Address | None) -> str:
    variable = _variable(split)
    lines = [
        f"        location /{split.label}/ {{",
        f"            add_header X-Pool {variable} always;",
    ]
    if split.buys_elsewhere:
        if other is None:
            about = "# The plan buys this part elsewhere, and nobody said where (--elsewhere URL)."
            then = "return 503;"
        else:
            about = f"# The plan buys this part elsewhere: {other} (--elsewhere), which is sent the client's model."
            then = f"rewrite ^/{split.label}/(.*)$ /{ELSEWHERE}/$1 last;"
        lines += [f"            {about}", f"            if ({variable} = {UNMET}) {{"]
        lines += [f"                {then}", "            }"]
    lines.append(f"            rewrite ^/{split.label}/(.*)$ /$1 break;")
    lines.append(f"            proxy_pass http://{variable};")
    return "\n".join([*lines, "        }", ""])


def _write_elsewhere(other: Address) -> str:
    return f"""\
        location /{ELSEWHERE}/ {{
            internal;
            # The client's key is for this router. That of the other API stands in {_KEY_FILE}, beside this file:
            # set $elsewhere_key "Bearer KEY";
            set $elsewhere_key "";
            include {_KEY_PATTERN};
            proxy_set_header Authorization $elsewhere_key;
            proxy_set_header Api-Key "";
            proxy_set_header X-Api-Key "";
            proxy_set_header Cookie "";
            add_header X-Pool {UNMET} always;
            rewrite ^/{ELSEWHERE}/(.*)$ {other.path}/$1 break;
            proxy_pass {other.scheme}://{other.host};
            proxy_set_header Host {other.host};
            proxy_set_header Connection "";
{_CHECKED if other.scheme == "https" else ""}        }}
"""
