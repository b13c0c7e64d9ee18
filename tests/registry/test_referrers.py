import re
from typing import Any

import pytest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
MISSING = "sha256:" + "0" * 64
SIGNATURE = "application/vnd.example.signature"


def subject(digest: str) -> dict[str, Any]:
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}


def test_referrer_is_listed_under_its_subject(robot: Any) -> None:
    model = robot.push_artifact("v1")
    signature = robot.push_artifact(artifactType=SIGNATURE, subject=subject(model), annotations={"by": "factory"})
    answer = robot.call("GET", f"site/app/referrers/{model}")
    assert answer.status_code == 200
    assert answer["Content-Type"] == OCI_INDEX
    size = int(robot.call("HEAD", f"site/app/manifests/{signature}")["Content-Length"])
    assert answer.json() == {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": signature,
                "size": size,
                "artifactType": SIGNATURE,
                "annotations": {"by": "factory"},
            }
        ],
    }


def test_push_confirms_the_subject_even_when_it_is_missing(robot: Any, descriptor: Any) -> None:
    robot.push_blob(b"{}")
    document = {
        "schemaVersion": 2,
        "config": descriptor(b"{}", "text/plain"),
        "layers": [],
        "subject": subject(MISSING),
    }
    answer = robot.push_manifest(document)
    assert answer.status_code == 201
    assert answer["OCI-Subject"] == MISSING
    (listed,) = robot.call("GET", f"site/app/referrers/{MISSING}").json()["manifests"]
    # Without an artifactType the config's type stands in.
    assert listed["artifactType"] == "text/plain"
    assert "annotations" not in listed


def test_index_may_refer(robot: Any) -> None:
    model = robot.push_artifact("v1")
    index = robot.index_of(model, subject=subject(model))
    assert robot.push_manifest(index, media_type=OCI_INDEX)["OCI-Subject"] == model
    (listed,) = robot.call("GET", f"site/app/referrers/{model}").json()["manifests"]
    assert listed["mediaType"] == OCI_INDEX
    assert "artifactType" not in listed


def test_nothing_known_is_an_empty_index(robot: Any) -> None:
    answer = robot.call("GET", f"site/none/referrers/{MISSING}")
    assert (answer.status_code, answer.json()["manifests"]) == (200, [])
    assert "OCI-Filters-Applied" not in answer


def test_filter_is_applied_and_said(robot: Any) -> None:
    model = robot.push_artifact("v1")
    signature = robot.push_artifact(artifactType=SIGNATURE, subject=subject(model))
    robot.push_artifact(artifactType="application/vnd.example.sbom", subject=subject(model))
    answer = robot.call("GET", f"site/app/referrers/{model}?artifactType={SIGNATURE}")
    assert answer["OCI-Filters-Applied"] == "artifactType"
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [signature]
    assert len(robot.call("GET", f"site/app/referrers/{model}").json()["manifests"]) == 2


def test_referrers_stay_in_their_repository(robot: Any) -> None:
    model = robot.push_artifact("v1")
    robot.push_artifact(subject=subject(model), name="site/other")
    assert robot.call("GET", f"site/app/referrers/{model}").json()["manifests"] == []


def test_deleted_referrer_is_not_listed(robot: Any) -> None:
    model = robot.push_artifact("v1")
    signature = robot.push_artifact(artifactType=SIGNATURE, subject=subject(model))
    robot.call("DELETE", f"site/app/manifests/{signature}")
    assert robot.call("GET", f"site/app/referrers/{model}").json()["manifests"] == []


def test_long_list_comes_in_pages(robot: Any) -> None:
    model = robot.push_artifact("v1")
    pushed = {
        robot.push_artifact(
            artifactType=SIGNATURE, subject=subject(model), annotations={"n": str(n), "x": "x" * 1_500_000}
        )
        for n in range(5)
    }
    found = []
    path = f"site/app/referrers/{model}?artifactType={SIGNATURE}"
    for count in (2, 2, 1):
        answer = robot.call("GET", path)
        assert len(answer.content) <= 4 * 1024 * 1024
        assert len(answer.json()["manifests"]) == count
        found += [entry["digest"] for entry in answer.json()["manifests"]]
        if count == 2:
            path = re.fullmatch(r'<([^>]+)>; rel="next"', answer["Link"])[1]  # type: ignore[index]
    assert "Link" not in answer
    assert set(found) == pushed
    assert len(found) == 5


@pytest.mark.parametrize("digest", ["sha256:1", "latest"])
def test_malformed_digest_is_refused(robot: Any, codes: Any, digest: str) -> None:
    answer = robot.call("GET", f"site/app/referrers/{digest}")
    assert answer.status_code == 400
    assert codes(answer) == ["DIGEST_INVALID"]
