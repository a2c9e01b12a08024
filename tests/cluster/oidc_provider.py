"""oidc-provider-mock on loopback over TLS, for tests/cluster/oidc.rs.

Usage: oidc_provider.py CERTIFICATE KEY AUDIENCE SUBJECT=GROUP,GROUP...

Prints the port that it listens on, and serves until it is killed.

The library signs ID tokens, and its access tokens are opaque words that only the provider can look up. A resource server checks
signatures, so access tokens are made here as RFC 9068 has them, by the means that the library's own framework has for that
(OAUTH2_ACCESS_TOKEN_GENERATOR), and with the provider's own key. The library also takes no notice of PKCE: what it ignores is
checked here before it is asked.
"""

import base64
import hashlib
import logging
import sys
import time
import uuid

import flask
import oidc_provider_mock
import werkzeug.serving
from authlib import jose
from oidc_provider_mock import _app
from oidc_provider_mock._storage import storage

LIFETIME_S = 3600


def access_token(audience):
    def generate(client, grant_type, user, scope):
        now = int(time.time())
        key_id = storage.jwk.as_dict(is_private=False)["kid"]
        claims = {
            "iss": flask.request.host_url.rstrip("/"),
            "aud": audience,
            "sub": user.sub,
            "client_id": client.get_client_id(),
            "iat": now,
            # Longer than any server takes it: the age has to be looked at as well.
            "exp": now + LIFETIME_S,
            "jti": str(uuid.uuid4()),
            "groups": user.claims.get("groups", []),
        }
        header = {"alg": "RS256", "typ": "at+jwt", "kid": key_id}
        return jose.jwt.encode(header, claims, storage.jwk).decode()

    return generate


def check_pkce(app):
    challenges = set()

    @app.before_request
    def check():
        if flask.request.path == "/oauth2/authorize":
            asked = flask.request.args
            if asked.get("code_challenge_method") != "S256":
                flask.abort(400, "no PKCE by S256")
            if not asked.get("state") or not asked.get("nonce"):
                flask.abort(400, "no state or no nonce")
            challenges.add(asked["code_challenge"])
        if flask.request.path == "/oauth2/token":
            verifier = flask.request.form.get("code_verifier", "")
            digest = hashlib.sha256(verifier.encode()).digest()
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            if len(verifier) < 43 or challenge not in challenges:
                flask.abort(400, "the verifier is not that of the challenge")


def main():
    certificate, key, audience, *people = sys.argv[1:]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # A program on somebody's machine keeps no secret.
    _app.AuthorizationCodeGrant.TOKEN_ENDPOINT_AUTH_METHODS = ["none"]
    users = []
    for person in people:
        subject, _, groups = person.partition("=")
        claims = {"groups": [group for group in groups.split(",") if group]}
        users.append(oidc_provider_mock.User(sub=subject, claims=claims))
    app = flask.Flask("provider")
    app.secret_key = "only for a test"
    app.config["OAUTH2_ACCESS_TOKEN_GENERATOR"] = access_token(audience)
    check_pkce(app)
    oidc_provider_mock.init_app(app, require_nonce=True, user_claims=users)
    app.debug = False
    server = werkzeug.serving.make_server(
        "localhost", 0, app.wsgi_app, threaded=True, ssl_context=(certificate, key)
    )
    print(server.server_port, flush=True)
    server.serve_forever()


main()
