"""The measurements of `bench.pages`, once Django is set up on a database of its own."""

import statistics
import time
import uuid
from datetime import timedelta

from django.conf import settings
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bench.logs.measure import analyze, made_page
from catalog.models import (
    Membership,
    Model,
    ModelVersion,
    Pipeline,
    PipelineVersion,
    Role,
    User,
    Workspace,
)
from drift.models import Assay, Baseline, Result
from edges.models import Assignment, Edge, EdgeEvent, FleetToken
from logs import operations as logs
from logs import pages, rollups, sketches
from logs.models import LogRollup, LogSeries
from publishing.models import Publish
from rollouts.models import Rollout, RolloutEvent, RolloutGroup, RolloutMember

FEW, FULL, MANY = 10, 50, 10_000  # FULL is what a page shows at most, which draws as much as with MANY
REPEATS = 9
WORST = 1.5  # the target: times as long
PAGES = {
    "pipelines": "/workspaces/{workspace}/pipelines",
    "models": "/workspaces/{workspace}/models",
    "versions of a model": "/models/{model}",
    "Version History": "/pipelines/{pipeline}",
    "edges": "/pipelines/{pipeline}/edges",
    "edges, filtered": "/pipelines/{pipeline}/edges?q=edge-00&state=online",
    "edges, counted anew": "/pipelines/{pipeline}/edges",
    "fleet": "/workspaces/{workspace}/edges",
    "fleet, counted anew": "/workspaces/{workspace}/edges",
    "rows": "/pipelines/{pipeline}/logs",
    "charts": "/pipelines/{pipeline}/logs/charts",
    "charts by edge": "/pipelines/{pipeline}/logs/charts?by=edge",
    "fleet tokens": "/pipelines/{pipeline}/fleet-tokens",
    "assays": "/pipelines/{pipeline}/drift",
    "rollouts": "/pipelines/{pipeline}/rollouts",
    "a rollout": "/rollouts/{rollout}",
    "a rollout, filtered": "/rollouts/{rollout}?bucket=waiting",
}
# The lists of the REST API with their filters; each has one order. A page of theirs is as long as those above.
LISTS = {
    f"REST {name}": f"/api/v1/{address}{'&' if '?' in address else '?'}limit={FULL}"
    for name, address in {
        "workspaces": "workspaces",
        "members": "workspaces/{workspace}/members",
        "models": "workspaces/{workspace}/models",
        "versions of a model": "models/{model}/versions",
        "pipelines": "workspaces/{workspace}/pipelines",
        "versions": "pipelines/{pipeline}/versions",
        "publishes": "pipelines/{pipeline}/publishes",
        "edges": "edges",
        "edges, last page": "edges?workspace={workspace}&offset={last}",
        "edges of a workspace": "edges?workspace={workspace}",
        "edges of a pipeline": "edges?pipeline={pipeline}",
        "edges of a publish": "edges?publish={publish}",
        "edges by name": "edges?name={edge_name}",
        "edges by state": "edges?state=online",
        "edges by all": "edges?workspace={workspace}&pipeline={pipeline}&publish={publish}&state=online",
        "edges that should run a publish": "publishes/{publish}/edges",
        "events of an edge": "edges/{edge}/events",
        "fleet tokens": "publishes/{publish}/fleet-tokens",
        "rollouts": "rollouts",
        "members of a rollout": "rollouts/{rollout}/members",
        "members, filtered": "rollouts/{rollout}/members?bucket=waiting&group=1",
        "events of a rollout": "rollouts/{rollout}/events",
        "assays": "pipelines/{pipeline}/assays",
        "baselines": "pipelines/{pipeline}/assays/baselines",
        "results": "assays/{assay}/results",
        "results, filtered": "assays/{assay}/results?status=ok&edge=",
        "exports": "pipelines/{pipeline}/logs/exports",
        "sources": "pipelines/{pipeline}/logs/sources",
        "signing keys": "signing-keys",
    }.items()
}


class Filled:
    """A workspace with so many of everything, and the addresses of its pages."""

    def __init__(self, owner: User, count: int) -> None:
        self.owner, self.count = owner, count
        self.workspace = Workspace.objects.create(name=f"of {count}", created_by=owner)
        Membership.objects.create(workspace=self.workspace, user=owner, role=Role.OWNER)
        self.models = self._models()
        self.pipeline = self._pipelines()
        publishes = self._versions()
        self.publish = publishes[0]
        self.edge = self._edges(self.publish)
        self.rollout = self._rollout(publishes[1], self.publish)
        self._fleet_tokens(self.publish)
        self.assay = self._assays()
        self._rows()

    def address(self, page: str) -> str:
        places = {"workspace": self.workspace, "model": self.models[0].model, "pipeline": self.pipeline}
        places |= {"publish": self.publish, "edge": self.edge, "rollout": self.rollout, "assay": self.assay}
        keys = {name: place.pk for name, place in places.items()}
        last = max(0, self.count - FULL)
        return (PAGES | LISTS)[page].format(**keys, edge_name=self.edge.name, last=last)

    def _models(self) -> list[ModelVersion]:
        made = Model.objects.bulk_create(
            Model(workspace=self.workspace, name=f"model-{n:05}", created_by=self.owner) for n in range(self.count)
        )
        like = {"sha256": "0" * 64, "size": 1, "file_name": "m.onnx", "status": "ready", "created_by": self.owner}
        of = [made[0]] * self.count + made[1:]
        return ModelVersion.objects.bulk_create(ModelVersion(model=model, **like) for model in of)

    def _pipelines(self) -> Pipeline:
        made = Pipeline.objects.bulk_create(
            Pipeline(workspace=self.workspace, name=f"line-{n:05}", created_by=self.owner) for n in range(self.count)
        )
        return made[0]

    def _versions(self) -> list[Publish]:
        model = self.models[0]
        steps = [{"ModelInference": {"models": [{"name": "m", "version": str(model.uuid), "sha": model.sha256}]}}]
        definition = {"id": self.pipeline.name, "steps": steps}
        others = self.workspace.pipelines.exclude(pk=self.pipeline.pk)
        of = [self.pipeline] * self.count + list(others)
        versions = PipelineVersion.objects.bulk_create(
            PipelineVersion(pipeline=one, definition=definition, created_by=self.owner) for one in of
        )
        like = {"status": "Published", "created_by": self.owner, "pipeline_digest": "sha256:" + "0" * 64}
        return Publish.objects.bulk_create(
            Publish(pipeline_version=version, published_at=timezone.now(), **like) for version in versions
        )

    def _edges(self, publish: Publish) -> Edge:
        """The first one, with as many events."""
        now = timezone.now()
        report = {"health": {}, "update": {"state": "idle"}, "counters": {f"counter_{n}": n for n in range(12)}}
        joined = {"joined_at": now, "last_contact": now, "session_lapses_at": now + timedelta(days=7)}
        Edge.objects.bulk_create(
            Edge(
                name=f"edge-{n:05}-of-{self.count}",
                tags=["north"] if n % 2 else [],
                publish=publish,
                created_by=self.owner,
                serving_digest=publish.pipeline_digest,
                report=report,
                # The first page is filled by those that joined, with few as with many.
                **(joined if n < FULL or n % 3 else {}),
            )
            for n in range(self.count)
        )
        made = list(publish.edges.all())
        Assignment.objects.bulk_create(Assignment(edge=edge, publish=publish) for edge in made)
        like = {"kind": EdgeEvent.Kind.SERVING, "actor": self.owner}
        EdgeEvent.objects.bulk_create(EdgeEvent(edge=made[0], **like) for _ in range(self.count))
        return made[0]

    def _rollout(self, target: Publish, replaced: Publish) -> Rollout:
        """The first one, which all edges are in, with as many events. As many ended without any."""
        now = timezone.now()
        strategy = {"success_percent": 95, "error_percent": 5, "healthy_seconds": 60, "answer_seconds": 900}
        like = {"publish": target, "created_by": self.owner, "max_in_flight": self.count, "auto_rollback": True}
        like |= {"deadline": now + timedelta(days=1), "started_at": now} | strategy
        rollout = Rollout.objects.create(state="running", **like)
        ended = Rollout.objects.bulk_create(Rollout(state="succeeded", ended_at=now, **like) for _ in range(self.count))
        link = Rollout.replaced.through
        link.objects.bulk_create(link(rollout=one, publish=replaced) for one in (rollout, *ended))
        RolloutEvent.objects.bulk_create(
            RolloutEvent(rollout=rollout, kind=RolloutEvent.Kind.PAUSED, actor=self.owner) for _ in range(self.count)
        )
        group = RolloutGroup.objects.create(rollout=rollout, order=1, selector={"percent": 100}, opened_at=now)
        RolloutMember.objects.bulk_create(
            RolloutMember(
                rollout=rollout,
                group=group,
                edge=edge,
                previous=replaced,
                bucket="waiting" if n < FULL or n % 3 else "done",
                since=now,
                bytes_to_fetch=0,
            )
            for n, edge in enumerate(replaced.edges.order_by("name"))
        )
        return rollout

    def log_everywhere(self) -> None:
        """The rows of the one edge that logged, as if every edge had them; `FEW` of them had rows that failed."""
        own = LogSeries.objects.filter(pipeline=self.pipeline).exclude(partition="").get()
        counted = list(own.rollups.all())
        edges = Edge.objects.filter(publish__pipeline_version__pipeline=self.pipeline).exclude(name=own.partition)
        others = LogSeries.objects.bulk_create(
            LogSeries(
                pipeline=self.pipeline,
                pipeline_version_id=own.pipeline_version_id,
                partition=name,
                model=own.model,
                model_sha=own.model_sha,
            )
            for name in edges.values_list("name", flat=True)
        )
        nothing = {"anomalies": 0, "failures": {}, "fields": sketches.packed({})}
        LogRollup.objects.bulk_create(
            LogRollup(
                series=series,
                grain=one.grain,
                start=one.start,
                rows=one.rows,
                anomalous=one.rows if at < FEW - 1 else 0,
                latency=one.latency,
                **nothing,
            )
            for at, series in enumerate(others)
            for one in counted
        )

    def _fleet_tokens(self, publish: Publish) -> None:
        FleetToken.objects.bulk_create(
            FleetToken(
                publish=publish,
                digest=uuid.uuid4().hex,
                pattern="shop-{n}",
                max_edges=5,
                expires_at=timezone.now() + timedelta(days=1),
                created_by=self.owner,
            )
            for _ in range(self.count)
        )

    def _assays(self) -> Assay:
        """The first one, with as many results. The pipeline has as many baselines."""
        stats = dict.fromkeys(("count", "min", "max", "mean", "median", "deviation"), 1)
        like = {
            "model": "m",
            "field": "out.y[0]",
            "baseline_stats": stats,
            "bin_mode": "equal",
            "bin_edges": [],
            "aggregation": "density",
            "baseline_parts": [],
            "metric": "psi",
            "alert": 0.25,
            "min_records": 1,
            "width": 3600,
            "interval": 3600,
            "wait": 60,
            "next_start": 0,
            "created_by": self.owner,
        }
        made = Assay.objects.bulk_create(
            Assay(pipeline=self.pipeline, name=f"assay-{n:05}", **like) for n in range(self.count)
        )
        Result.objects.bulk_create(
            Result(assay=made[0], start=n * 3_600_000, end=(n + 1) * 3_600_000, status="ok", stats=stats)
            for n in range(self.count)
        )
        Baseline.objects.bulk_create(
            Baseline(pipeline=self.pipeline, count=1, created_by=self.owner, numbers=b"") for _ in range(self.count)
        )
        return made[0]

    def _rows(self) -> None:
        edge = Edge.objects.filter(publish__pipeline_version__pipeline=self.pipeline).earliest("name")
        version, now = edge.publish.pipeline_version.uuid, timezone.now()
        body = pages.encode(made_page(self.count, int(now.timestamp() * 1000) - self.count, str(version), edge.name))
        logs.store_page(
            edge=edge, epoch=uuid.uuid4(), first=1, pipeline_version_uuid=version, page=logs.SentPage(body, now)
        )


def took(client: Client, address: str, *, anew: bool) -> float:
    """Milliseconds, with nothing kept of an earlier look if `anew`. Fails on an answer that is no page."""
    if anew:
        cache.clear()
    started = time.perf_counter()
    answer = client.get(address)
    spent = (time.perf_counter() - started) * 1000
    assert answer.status_code == 200, f"{address}: {answer.status_code}"
    return spent


def main() -> int:
    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)
    settings.ALLOWED_HOSTS.append("testserver")
    owner = User.objects.create_user("bench@example.com", "bench-password-1")
    filled = [Filled(owner, count) for count in (FEW, FULL, MANY)]
    rollups.roll_up_waiting(timezone.now)
    for one in filled:
        one.log_everywhere()
    analyze()
    client = Client()
    client.force_login(owner)
    print(f"ms of a page with {FEW}, {FULL} and {MANY} of everything on {connection.vendor}, medians of {REPEATS}")
    worst = 0.0
    for page in PAGES | LISTS:
        addresses = [one.address(page) for one in filled]
        anew = page.endswith("counted anew")
        turns = [[took(client, address, anew=anew) for address in addresses] for _ in range(REPEATS + 1)][1:]
        few, full, many = (statistics.median(column) for column in zip(*turns, strict=True))
        with CaptureQueriesContext(connection) as queries:
            client.get(addresses[-1])
        worst = max(worst, many / full)
        print(
            f"  {page:36} {few:7.1f} {full:7.1f} {many:7.1f}  {many / full:5.2f} times a full page, "
            f"{many / few:5.2f} times {FEW}, {len(queries)} queries",
            flush=True,
        )
    return int(worst > WORST)
