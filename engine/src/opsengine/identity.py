"""Who this edge is: its key and its session, kept in PERSIST_DIR so that a join token is needed only once."""

import hashlib
import platform
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import jwt
import onnxruntime as ort
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from opsengine import __version__, providers
from opsengine.errors import StateError
from opsengine.store import write_file

ASSERTION_SECONDS = 240  # contract/README.md: at most 5 minutes


@dataclass(frozen=True, slots=True)
class Session:
    """What a join gave. `token_hash` names the join token it came from; `clock_offset` is server minus local ms."""

    edge_id: str
    edge_name: str
    spiffe_id: str
    token_endpoint: str
    token_hash: str
    lapses_at: int
    clock_offset: int = 0


class Identity:
    """The key and session files under `<folder>`, all readable by the engine's user only."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder

    def session(self) -> Session | None:
        """The session of the last join, if there is one."""
        try:
            return Session(**orjson.loads((self._folder / "session.json").read_bytes()))
        except FileNotFoundError:
            return None
        except PermissionError:  # not damaged: for another user to read
            raise
        except (OSError, ValueError, TypeError):
            raise StateError(
                f"{self._folder / 'session.json'} is damaged: delete it and start with a new EDGE_BUNDLE."
            ) from None

    def keep(self, session: Session) -> None:
        """Store the session."""
        write_file(self._folder / "session.json", orjson.dumps(asdict(session)))

    def drop_other_keys(self, session: Session) -> None:
        """Delete the keys of earlier join tokens, once a join with a new one succeeded."""
        for path in self._folder.glob("key-*.pem"):
            if path.name != self._key_name(session.token_hash) and path.is_file():
                path.unlink()

    def key(self, token_hash: str) -> ec.EllipticCurvePrivateKey:
        """The P-256 key that goes with a join token; made at first use and on disk before it is ever shown.

        One key a token: a join may be repeated with the same key after a lost reply, and a new bundle rotates the key.
        """
        path = self._folder / self._key_name(token_hash)
        try:
            if not path.exists():
                made = ec.generate_private_key(ec.SECP256R1())
                encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
                write_file(path, made.private_bytes(encoding, form, serialization.NoEncryption()))
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except IsADirectoryError:
            key = None
        except OSError as error:
            raise StateError(f"{path} cannot be used ({error.strerror}): check the disk of PERSIST_DIR.") from error
        except ValueError:
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StateError(f"{path} is damaged: delete it and start with a new EDGE_BUNDLE.")
        return key

    @staticmethod
    def _key_name(token_hash: str) -> str:
        return f"key-{token_hash[:16]}.pem"


def hash_token(token: str) -> str:
    """How a spent join token is remembered: it is recognised, but cannot be read back."""
    return hashlib.sha256(token.encode()).hexdigest()


def public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, object]:
    """The public half as a JWK with only the members of contract/join.request.json."""
    members = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {name: members[name] for name in ("kty", "crv", "x", "y")}


def assertion(key: ec.EllipticCurvePrivateKey, session: Session, clock_offset: int) -> str:
    """A `private_key_jwt` (RFC 7523), its times on the server's clock."""
    now = int(time.time() + clock_offset / 1000)
    claims = {
        "iss": session.spiffe_id,
        "sub": session.spiffe_id,
        "aud": session.token_endpoint,
        "iat": now,
        "exp": now + ASSERTION_SECONDS,
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode(claims, key, algorithm="ES256")


def engine_facts() -> dict[str, str]:
    """What the engine says of itself when it joins and checks in."""
    accel = providers.accelerator(ort.get_available_providers())
    return {"version": __version__, "arch": platform.machine(), "accel": accel, "os": platform.system().lower()}
