"""The center's device API, as strict as the golden messages in contract/ say."""

import base64
import time
import uuid
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import orjson
import pyarrow as pa

from .http import LoopbackServer, Reply

CONTRACT = Path(__file__).resolve().parents[3] / "contract"
ERRORS = orjson.loads((CONTRACT / "errors.json").read_bytes())
UTC_MS = pa.timestamp("ms")


def golden(name):
    return orjson.loads((CONTRACT / name).read_bytes())


def check_shape(sent, wanted, at="message"):
    """Every key of the golden message is sent, with a value of its kind; null is a value of any kind."""
    if sent is None or wanted is None:
        return
    kinds = (int, float) if isinstance(wanted, (int, float)) and not isinstance(wanted, bool) else type(wanted)
    assert isinstance(sent, kinds), f"{at}: {sent!r} is not like {wanted!r}"
    if isinstance(wanted, dict):
        assert set(sent) == set(wanted), f"{at}: keys {sorted(sent)}, not {sorted(wanted)}"
        for key, value in wanted.items():
            check_shape(sent[key], value, f"{at}.{key}")


class Refuse(Exception):
    def __init__(self, code, message="The reason, and what to do.", **more):
        self.code, self.message, self.more = code, message, more


class FakeCenter(LoopbackServer):
    def __init__(self):
        self.clock_ahead_ms = 0
        self.tokens = {}
        self.edges = {}
        self.keys = {}
        self.jtis = set()
        self.valid = set()
        self.desired = None
        self.checkins, self.pages, self.gaps, self.joins = [], [], [], []
        self.acked, self.rows = {}, {}
        self.refuse = {}  # path -> list of Refuse, Reply or None (dead line), taken one a request
        self.faults = []
        self.is_off = False  # observability: an administrator switched it off
        self.next_checkin = 30
        self.lapses_at = 1764288000000
        super().__init__()

    @property
    def serving(self):
        """The digest that the last check-in proved, None before there was one."""
        return (self.checkins[-1]["serving"] or {}).get("digest") if self.checkins else None

    def add_edge(self, name="edge-1", pipeline_url="", token=None):
        """A new edge; returns its bundle."""
        token = token or str(uuid.uuid4())
        self.tokens[token] = name
        lines = {
            "BUNDLE_VERSION": "1",
            "EDGE_NAME": name,
            "JOIN_TOKEN": token,
            "OPSCENTER_HOST": f"http://{self.host}/edge",
            "PIPELINE_URL": pipeline_url,
            "WORKSPACE_ID": "5",
        }
        return base64.b64encode("\n".join(f"export {k}={v}" for k, v in lines.items()).encode()).decode()

    def wish(self, name, version, url, digest, publish_id=12):
        self.desired = {
            "publish_id": publish_id,
            "pipeline": name,
            "pipeline_version": version,
            "pipeline_url": url,
            "digest": digest,
        }

    def total(self):
        """Rows received and rows told lost, over all epochs."""
        return sum(map(len, self.rows.values())), sum(gap["count"] for gap in self.gaps)

    def reply(self, method, path, headers, body):
        parts = urlsplit(path)
        try:
            return self._json(*self._answer(parts.path, parse_qs(parts.query), headers, body))
        except Refuse as refusal:
            told = {"code": refusal.code, "message": refusal.message, **refusal.more}
            return self._json(ERRORS[refusal.code], told)
        except (AssertionError, KeyError, jwt.PyJWTError) as fault:
            self.faults.append(repr(fault))  # tests look here: a wrong message must not pass as a passing fault
            return self._json(400, {"code": "invalid", "message": repr(fault)})
        except ConnectionAbortedError:
            return None

    def _json(self, status, told):
        if isinstance(status, Reply):
            return status
        told["server_time"] = int(time.time() * 1000) + self.clock_ahead_ms
        return Reply(status, orjson.dumps(told), {"Content-Type": "application/json"})

    def _answer(self, path, query, headers, body):
        planned = self.refuse.get(path) or []
        if planned:
            plan = planned.pop(0)
            if isinstance(plan, Refuse):
                raise plan
            if isinstance(plan, Reply):
                return plan, {}
            if plan is None:
                raise ConnectionAbortedError
            plan()
        if self.is_off and path in ("/edge/v1/logs", "/edge/v1/gaps"):
            raise Refuse("observability_off", "An administrator switched observability off.")
        handlers = {
            "/edge/v1/join": self._join,
            "/edge/v1/token": self._token,
            "/edge/v1/checkin": self._checkin,
            "/edge/v1/logs": self._logs,
            "/edge/v1/gaps": self._gaps,
        }
        if path in ("/edge/v1/join", "/edge/v1/token"):
            return handlers[path](orjson.loads(body))
        bearer = headers.get("Authorization", "")
        if not bearer.startswith("Bearer "):
            raise Refuse("token_missing")
        if bearer.removeprefix("Bearer ") not in self.valid:
            raise Refuse("token_expired")
        return handlers[path](query, body)

    def _join(self, told):
        check_shape(told, golden("join.request.json"))
        self.joins.append(told)
        token, key = told["join_token"], orjson.dumps(told["public_key"], option=orjson.OPT_SORT_KEYS)
        if token not in self.tokens:
            raise Refuse("join_token_unknown")
        if self.keys.setdefault(token, key) != key:
            raise Refuse("join_token_used", "This join token was used by another key: reissue the bundle.")
        name = self.tokens[token]
        edge = self.edges.setdefault(name, str(uuid.uuid4()))
        spiffe = f"spiffe://opscenter/ns/deployments/edge/{edge}"
        self.edge_key = jwt.PyJWK({**told["public_key"], "alg": "ES256"})
        self.spiffe = spiffe
        answer = golden("join.answer.json")
        answer["edge"] = {"id": edge, "name": name, "spiffe_id": spiffe}
        answer["session"].update(self._grant(), token_endpoint="https://center.example.com/edge/v1/token")
        answer.update(desired=self.desired, next_checkin=self.next_checkin)
        return 201, answer

    def _grant(self):
        token = f"access-{uuid.uuid4()}"
        self.valid.add(token)
        return {"access_token": token, "lapses_at": self.lapses_at}

    def _token(self, told):
        check_shape(told, golden("token.request.json"))
        assert told["grant_type"] == "client_credentials"
        now = time.time() + self.clock_ahead_ms / 1000
        claims = jwt.decode(
            told["client_assertion"],
            self.edge_key,
            algorithms=["ES256"],
            audience="https://center.example.com/edge/v1/token",
            options={"verify_exp": False, "verify_iat": False, "require": ["iss", "sub", "iat", "exp", "jti"]},
        )
        if not (now - 300 < claims["iat"] < now + 300 and now - 300 < claims["exp"]):
            raise Refuse("invalid_assertion", "The assertion's times are off.")
        assert claims["iss"] == claims["sub"] == self.spiffe
        assert claims["exp"] - claims["iat"] <= 300 and claims["jti"] not in self.jtis
        self.jtis.add(claims["jti"])
        return 200, {**golden("token.answer.json"), **self._grant()}

    def _checkin(self, query, body):
        told = orjson.loads(body)
        check_shape(told, golden("checkin.request.json"))
        assert told["update"]["state"] in ("idle", "pulling", "warming", "failed")
        self.checkins.append(told)
        acked = self.acked.get(told["logs"]["epoch"], 0)
        return 200, {
            "desired": self.desired,
            "logs": {"acked": acked},
            "lapses_at": self.lapses_at,
            "next_checkin": self.next_checkin,
        }

    def _logs(self, query, body):
        epoch, first = query["epoch"][0], int(query["first"][0])
        assert str(uuid.UUID(epoch)) == epoch
        table = pa.ipc.open_stream(body).read_all()
        assert len(body) <= 10 * 2**20 and 0 < table.num_rows <= 10_000
        assert table.column_names == ["time", "in", "out", "anomaly", "metadata"]
        assert table.schema.field("time").type == UTC_MS
        assert table.schema.field("anomaly").type.field("count").type == pa.int32()
        meta = table.schema.field("metadata").type
        wanted = {
            "last_model": pa.string(),
            "pipeline_version": pa.string(),
            "elapsed": pa.list_(pa.int64()),
            "dropped": pa.list_(pa.string()),
            "partition": pa.string(),
        }
        assert {meta.field(i).name: meta.field(i).type for i in range(meta.num_fields)} == wanted
        rows = table.to_pylist()
        assert {row["metadata"]["pipeline_version"] for row in rows} == {query["pipeline_version"][0]}
        acked = self.acked.get(epoch, 0)
        if first > acked + 1:
            raise Refuse("log_hole", "A hole.", expected=acked + 1)
        self.pages.append({"first": first, "count": len(rows), "epoch": epoch, "bytes": len(body)})
        kept = self.rows.setdefault(epoch, {})
        for number, row in enumerate(rows, first):
            kept.setdefault(number, row)
        self.acked[epoch] = max(acked, first + len(rows) - 1)
        return 200, {"acked": self.acked[epoch]}

    def _gaps(self, query, body):
        told = orjson.loads(body)
        check_shape(told, golden("gaps.request.json"))
        assert told["count"] == told["last"] - told["first"] + 1 > 0
        acked = self.acked.get(told["epoch"], 0)
        if told["first"] > acked + 1:
            raise Refuse("log_hole", "A hole.", expected=acked + 1)
        self.gaps.append(told)
        self.acked[told["epoch"]] = max(acked, told["last"])
        return 200, {"acked": self.acked[told["epoch"]]}
